"""Where the patches stand among the tokens."""

from typing import Any, NamedTuple

import torch

from .errors import UnsupportedModelError


class Grid(NamedTuple):
    """Prefix tokens (class, distillation, registers), then `rows * cols` patch tokens in row-major order."""

    prefix: int
    rows: int
    cols: int


def pair(size: Any) -> tuple[int, int]:
    """A size of a config, which is an int or (height, width), as (height, width)."""
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
    """Patch tokens as a map.

    Args:
        per_token (`torch.Tensor` of shape (..., tokens)): One number a token.
        grid ([`Grid`]): Where the patches stand.

    Returns:
        `torch.Tensor` of shape (..., rows, cols).
    """
    return per_token[..., grid.prefix :].unflatten(-1, (grid.rows, grid.cols))
