"""Where the patches stand among the tokens."""

from typing import Any, NamedTuple

import torch
from torch import nn

from gmar_hf.errors import ArgumentError, UnsupportedModelError
from gmar_hf.models.introspection import entry, settings

# What says of each stage how far apart its tokens stand on the map before. PVT's "strides" are how large they are.
_STRIDES = {"pvt": "patch_sizes", "pvt_v2": "strides", "segformer": "strides"}


class Grid(NamedTuple):
    """Prefix tokens (class, distillation, registers), then `rows * cols` patch tokens in row-major order."""

    prefix: int
    rows: int
    cols: int


def pair(size: Any) -> tuple[int, int]:
    """Return a config's size, which is an int or (height, width), as (height, width)."""
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


def find_grid(pixel_size: tuple[int, int], patch_size: int | tuple[int, int], num_tokens: int) -> Grid:
    """Tell prefix tokens from patch tokens.

    Args:
        pixel_size (`tuple[int, int]`): Height and width of `pixel_values`, pixels.
        patch_size (`int` or pair of `int`): Height and width of a patch, pixels.
        num_tokens (`int`): Tokens in the encoder.

    Returns:
        [`Grid`]: `rows = height // patch_height`, `cols = width // patch_width`, the rest is prefix.

    Raises:
        UnsupportedModelError: If there are fewer tokens than patches.

    Example:
        >>> find_grid((224, 224), 16, 197)
        Grid(prefix=1, rows=14, cols=14)
    """
    patch_height, patch_width = pair(patch_size)
    rows, cols = pixel_size[0] // patch_height, pixel_size[1] // patch_width
    prefix = num_tokens - rows * cols
    if prefix < 0 or rows * cols == 0:
        raise UnsupportedModelError(
            f"The model must keep one token for every patch; got {num_tokens} tokens for {rows} x {cols} patches "
            f"({pixel_size[0]} x {pixel_size[1]} pixels in patches of {patch_height} x {patch_width}). "
            "Models that merge or drop tokens cannot be mapped back to patches: use a plain ViT, DeiT, BEiT or "
            "their kin."
        )
    return Grid(prefix, rows, cols)


def to_grid(per_token: torch.Tensor, grid: Grid) -> torch.Tensor:
    """Lay the patch tokens out as a map (..., rows, cols).

    Args:
        per_token (`torch.Tensor` of shape (..., tokens)): One number a token.
        grid ([`Grid`]): Where the patches stand.
    """
    return per_token[..., grid.prefix :].unflatten(-1, (grid.rows, grid.cols))


def tokens_of(hidden: torch.Tensor) -> torch.Tensor:
    """Return a last hidden state as (batch, tokens, hidden_size), also a map (batch, hidden_size, rows, cols).

    Example:
        >>> tokens_of(torch.zeros(2, 16, 7, 7)).shape
        torch.Size([2, 49, 16])
    """
    return hidden.flatten(2).transpose(1, 2) if hidden.ndim == 4 else hidden


def patch_grid(model: nn.Module, pixel_values: torch.Tensor) -> Grid:
    """Tell where the patches are, without a forward.

    Raises:
        ArgumentError: If the model's config does not say how large a patch is.
    """
    height, width = patch_size(model)
    return Grid(0, pixel_values.shape[-2] // height, pixel_values.shape[-1] // width)


def patch_size(model: nn.Module) -> tuple[int, int]:
    """Return height and width of a patch, in pixels.

    Raises:
        ArgumentError: If the model's config does not say.
    """
    size = known_patch_size(model)
    if size is None:
        raise ArgumentError("`model` must have a `patch_size` in its config; it has none.")
    return size


def known_patch_size(model: nn.Module) -> tuple[int, int] | None:
    """Return height and width of a patch, in pixels; None if the model's config does not say."""
    return patch_size_in(settings(model))


def patch_size_in(config: Any) -> tuple[int, int] | None:
    """Return height and width of a patch, in pixels; None if the config does not say.

    Where patches overlap, as Hiera's do, they are as large as they stand apart.
    """
    strides = stage_strides(config)
    if strides:
        return pair(strides[0])
    size = entry(config, "patch_size")
    return None if size is None else pair(getattr(config, "patch_stride", None) or size)


def stage_strides(config: Any) -> tuple[int, ...]:
    """Return how far apart the tokens of each stage stand: in pixels, then in tokens of the stage before.

    Nothing of a config that has no such list.

    Example:
        >>> import transformers
        >>> stage_strides(transformers.SegformerConfig())
        (4, 2, 2, 2)
    """
    name = _STRIDES.get(getattr(config, "model_type", ""))
    return () if name is None else tuple(getattr(config, name))


def sum_over_patches(model: nn.Module, values: torch.Tensor) -> torch.Tensor:
    """Sum values of pixels (images, channels, height, width) over channels and patches, to (images, rows, cols).

    Pixels beyond the last whole patch are left out.
    """
    grid = patch_grid(model, values)
    height, width = patch_size(model)
    # Rows and columns of patches come apart from the pixels in them, which are summed.
    whole = values[..., : grid.rows * height, : grid.cols * width].float()
    return whole.unflatten(-1, (grid.cols, width)).unflatten(-3, (grid.rows, height)).sum(dim=(1, 3, 5))


def by_size(size: Any) -> str:
    """Spell a size out, such as "224 x 224"."""
    return " x ".join(map(str, pair(size)))
