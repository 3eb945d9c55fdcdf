"""A few of a model's weights, by which a report knows the model again under any name and in any dtype."""

import torch
from torch import nn

from gmar_hf.models.introspection import unwrapped

_PER_PARAMETER = 16
_RELATIVE = 2.0**-6  # bfloat16 rounds by up to 2^-9 of a value; training moves most weights by far more
_ABSOLUTE = 1e-6  # float16 has no smaller steps near zero


def weight_sample(model: nn.Module) -> torch.Tensor:
    """Take values from evenly spaced places of every floating-point parameter, in the order of the parameters' names.

    Args:
        model (`nn.Module`): The classifier.

    Returns:
        `torch.Tensor` of shape (values,): float32, on the CPU. What Accelerate has offloaded is read from where it is.
    """
    samples: dict[str, torch.Tensor] = {}
    for prefix, module in unwrapped(model).named_modules():
        own = dict(module.named_parameters(prefix, recurse=False))
        if not any(parameter.is_meta for parameter in own.values()):
            samples |= _samples_of(own)
            continue
        from accelerate.utils import align_module_device

        with align_module_device(module, "cpu"):
            samples |= _samples_of(dict(module.named_parameters(prefix, recurse=False)))
    return torch.cat([samples[name] for name in sorted(samples)]) if samples else torch.zeros(0)


def _samples_of(parameters: dict[str, nn.Parameter]) -> dict[str, torch.Tensor]:
    """Take the values of parameters that are in memory, by their names."""
    samples = {}
    for name, parameter in parameters.items():
        if parameter.is_floating_point() and not parameter.is_meta and parameter.numel():
            places = torch.linspace(0, parameter.numel() - 1, _PER_PARAMETER, dtype=torch.float64).long()
            whole = parameter.full_tensor() if hasattr(parameter, "full_tensor") else parameter  # from all processes
            samples[name] = whole.detach().flatten()[places.to(whole.device)].float().cpu()
    return samples


def same_weights(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Tell whether two samples are of one model, maybe in two dtypes.

    Args:
        first, second (`torch.Tensor` of shape (values,)): Two results of [`weight_sample`].
    """
    return first.shape == second.shape and torch.allclose(first, second, rtol=_RELATIVE, atol=_ABSOLUTE)
