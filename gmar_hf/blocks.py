"""How large a piece of an attention matrix is held at once."""

from collections.abc import Iterator

import torch

BLOCK_ELEMENTS = 2**20  # numbers in one block of attention rows, over all images and heads of a layer: 4 MB in float32


def row_slices(query: torch.Tensor) -> Iterator[slice]:
    """Cut the rows of an attention matrix into blocks of at most `BLOCK_ELEMENTS` numbers, or one row each.

    Args:
        query (`torch.Tensor` of shape (batch, heads, tokens, head_dim)): What the rows belong to.

    Yields:
        `slice`: Consecutive ranges that cover all tokens.
    """
    batch, heads, tokens, _ = query.shape
    step = max(1, BLOCK_ELEMENTS // (batch * heads * tokens))
    for start in range(0, tokens, step):
        yield slice(start, min(start + step, tokens))


def at_least_float32(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor in float32, or as it is where it is finer: reductions are never done in half precision."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
