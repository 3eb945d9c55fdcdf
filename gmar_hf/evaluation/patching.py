"""From pixels to the patches of a model."""

import torch
from torch import nn

from ..capture import unwrapped
from ..errors import ArgumentError
from ..forward import setting
from ..patches import Grid, pair


def patch_grid(model: nn.Module, pixel_values: torch.Tensor) -> Grid:
    """Where the patches are, without a forward.

    Raises:
        ArgumentError: If the model's config does not say how large a patch is.
    """
    height, width = patch_size(model)
    return Grid(0, pixel_values.shape[-2] // height, pixel_values.shape[-1] // width)


def patch_size(model: nn.Module) -> tuple[int, int]:
    """Height and width of a patch, in pixels.

    Raises:
        ArgumentError: If the model's config does not say.
    """
    found = known_patch_size(model)
    if found is None:
        raise ArgumentError("`model` must have a `patch_size` in its config; it has none.")
    return found


def known_patch_size(model: nn.Module) -> tuple[int, int] | None:
    """The same; None if the model's config does not say."""
    found = setting(unwrapped(model).config, "patch_size")
    return None if found is None else pair(found)


def sum_over_patches(model: nn.Module, values: torch.Tensor) -> torch.Tensor:
    """Pixels' values (rows, channels, height, width) summed over channels and patches: (rows, rows, cols).

    Pixels beyond the last whole patch are left out.
    """
    grid = patch_grid(model, values)
    height, width = patch_size(model)
    whole = values[..., : grid.rows * height, : grid.cols * width].float()
    return whole.unflatten(-1, (grid.cols, width)).unflatten(-3, (grid.rows, height)).sum(dim=(1, 3, 5))
