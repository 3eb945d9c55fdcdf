"""Maps drawn by a method that anybody may have written: what it gives is checked, and so is what it leaves behind."""

from collections.abc import Mapping

import torch
from torch import nn

from gmar_hf.errors import ArgumentError, NonFiniteError
from gmar_hf.evaluation.maps.map_registry import BUILT_IN
from gmar_hf.evaluation.maps.method import MapMethod
from gmar_hf.models.freezing import gradients_on


def draw_maps(
    method: MapMethod,
    model: nn.Module,
    pixels: torch.Tensor,
    classes: torch.Tensor,
    patch_size: tuple[int, int] | None,
) -> torch.Tensor:
    """Draw a method's maps and check them, since anybody may have written it: float32, one value a patch.

    Args:
        method ([`MapMethod`]): A map that comes along, or a user's.
        model (`nn.Module`): The classifier, which the method must leave as it is.
        pixels (`torch.Tensor` of shape (rows, channels, height, width)): The images.
        classes (`torch.LongTensor` of shape (rows,)): The explained class of each.
        patch_size (`tuple[int, int]`, *optional*): In pixels, where the maps must be of the model's patches.

    Raises:
        ArgumentError: If it gives no maps of that shape, or leaves the model changed.
        NonFiniteError: If a number is NaN or infinite.
    """
    is_ours = method in BUILT_IN
    before = () if is_ours else _outward(model)
    try:
        if is_ours:
            maps: object = method.draw(model, pixels, classes)
        else:
            with gradients_on():  # which it may need, and it may write into its arguments
                maps = method.draw(model, pixels.clone(), classes.clone())
    except Exception as error:
        error.add_note(f'This happened in the function of the map "{method.name}".')
        raise
    if not is_ours and _outward(model) != before:
        raise ArgumentError(
            f'`methods` must have functions that leave the model as it was; "{method.name}" changed its modes, hooks, '
            "weights or gradients. Put back what it changes, or let it work on a copy (`copy.deepcopy`)."
        )
    if not isinstance(maps, torch.Tensor):
        raise _no_maps(method, len(pixels), type(maps).__name__)
    if maps.ndim != 3 or len(maps) != len(pixels) or maps.numel() == 0:
        raise _no_maps(method, len(pixels), f"shape {tuple(maps.shape)}")
    if maps.is_complex():
        raise _no_maps(method, len(pixels), "complex numbers")
    if not maps.isfinite().all():
        raise NonFiniteError(str(_no_maps(method, len(pixels), "NaN or infinity")))
    # Maps of another resolution would be measured by other patches than all the rest.
    if patch_size is not None:
        rows, cols = (side // size for side, size in zip(pixels.shape[-2:], patch_size, strict=True))
        if maps.shape[1:] != (rows, cols):
            raise ArgumentError(
                f"`methods` must give one value for each of the model's {rows} x {cols} patches; "
                f'"{method.name}" gave {maps.shape[1]} x {maps.shape[2]}. Average its map over patches.'
            )
    return maps.detach().float()


def _outward(model: nn.Module) -> list[tuple[object, ...]]:
    """Return what a function may leave behind in a model that other maps would see, or the user."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    modules = [
        (module.training, "forward" in vars(module), *(_of_users(getattr(module, kind)) for kind in hooks))
        for module in model.modules()
    ]
    weights = [(weight.requires_grad, id(weight.grad), weight._version) for weight in model.parameters()]
    return [*modules, *weights]


def _of_users(hooks: Mapping[int, object]) -> tuple[int, ...]:
    """Return hooks without those by which transformers itself, once asked to, collects attentions for good."""
    return tuple(key for key, hook in hooks.items() if not getattr(hook, "__module__", "").startswith("transformers."))


def _no_maps(method: MapMethod, num_rows: int, got: str) -> ArgumentError:
    return ArgumentError(
        f"`methods` must give finite maps of shape (rows, grid rows, grid columns), here of {num_rows} rows; "
        f'"{method.name}" gave {got}. Mend its function.'
    )
