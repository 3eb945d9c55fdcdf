"""What is kept of a model's weights, by which a report knows the model again under any name and in any dtype."""

import torch
from torch import nn
from torch.nn.functional import adaptive_avg_pool1d

from gmar_hf.models.wrappers import unwrapped

_PER_TENSOR = 16
_ACROSS = 64  # on how many rows or so the norms of columns are taken, and those of rows on how many columns
_RELATIVE = 2.0**-6  # bfloat16 rounds by up to 2^-9 of a value; training moves most weights by far more
_ABSOLUTE = 1e-6  # float16 has no smaller steps near zero


def weight_sample(model: nn.Module) -> torch.Tensor:
    """Take some values of every floating-point parameter and saved buffer, and norms of groups of rows and columns.

    The values tell trained weights from others; the norms tell a head that is pruned, or a mask, wherever it is.

    Args:
        model (`nn.Module`): The classifier.

    Returns:
        `torch.Tensor` of shape (values,): float32, finite, on the CPU, in the order of the tensors' names. What
            Accelerate has offloaded is read from where it is.
    """
    samples: dict[str, torch.Tensor] = {}
    for prefix, module in unwrapped(model).named_modules():
        if not any(tensor.is_meta for tensor in _own_tensors(module).values()):
            samples |= _samples_of(prefix, module)
            continue
        from accelerate.utils import align_module_device

        with align_module_device(module, "cpu"):
            samples |= _samples_of(prefix, module)
    return torch.cat([samples[name] for name in sorted(samples)]).nan_to_num() if samples else torch.zeros(0)


def _own_tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    """Return a module's own parameters and buffers, without those that are made anew whenever it is loaded."""
    buffers = {name: buffer for name, buffer in module._buffers.items() if buffer is not None}
    kept = {name: buffer for name, buffer in buffers.items() if name not in module._non_persistent_buffers_set}
    return dict(module.named_parameters(recurse=False)) | kept


def _samples_of(prefix: str, module: nn.Module) -> dict[str, torch.Tensor]:
    """Take what is kept of a module's tensors that are in memory, by their names in the model."""
    samples = {}
    for name, tensor in _own_tensors(module).items():
        if tensor.is_floating_point() and not tensor.is_meta and tensor.numel():
            whole = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor  # from all processes
            samples[f"{prefix}.{name}"] = _sample(whole.detach()).cpu()
    return samples


def _sample(tensor: torch.Tensor) -> torch.Tensor:
    places = torch.linspace(0, tensor.numel() - 1, _PER_TENSOR, dtype=torch.float64, device="cpu").long()
    values = tensor.flatten()[places.to(tensor.device)].float()
    if type(tensor) not in (torch.Tensor, nn.Parameter):  # a quantised one, which has no norms
        return values
    matrix = tensor.reshape(tensor.shape[0] if tensor.ndim else 1, -1)
    steps = [max(1, size // _ACROSS) for size in matrix.shape]
    lines = (matrix[:: steps[0]].T, matrix[:, :: steps[1]])  # all columns on some rows, all rows on some columns
    wide = torch.float64 if tensor.dtype == torch.float64 else torch.float32
    squares = [torch.linalg.vector_norm(line, dim=1, dtype=wide).float().square() for line in lines]
    groups = [adaptive_avg_pool1d(each[None], _PER_TENSOR)[0].sqrt() for each in squares]
    return torch.cat([values, *groups])


def same_weights(first: torch.Tensor, second: torch.Tensor, relative: float = _RELATIVE) -> bool:
    """Tell whether two samples are of one model, maybe in two dtypes.

    Args:
        first, second (`torch.Tensor` of shape (values,)): Two results of [`weight_sample`].
        relative (`float`, defaults to 2^-6): By what share of itself a number may differ.
    """
    return first.shape == second.shape and torch.allclose(first, second, rtol=relative, atol=_ABSOLUTE)
