"""How large a piece of an attention matrix is held at once, and which of its rows are needed at all."""

from collections.abc import Iterator
from typing import NamedTuple

import torch

BLOCK_ELEMENTS = 2**17  # numbers of one piece on a CPU: half a MB in float32, which a core's own cache holds
_ACCELERATOR_FACTOR = 256  # elsewhere few large pieces beat many small ones: 128 MB


class Piece(NamedTuple):
    """Which images, heads and rows a piece is of: the index of a tensor (batch, heads, rows, ...)."""

    images: slice
    heads: slice
    rows: slice


def pieces(query: torch.Tensor, key: torch.Tensor) -> Iterator[Piece]:
    """Cut a layer's attention matrices into pieces: of whole images, of whole heads, or of rows of one head.

    Args:
        query (`torch.Tensor` of shape (batch, heads, queries, head_dim)): What the rows belong to.
        key (`torch.Tensor` of shape (batch, heads, keys, head_dim)): What the columns belong to.

    Yields:
        [`Piece`]: It has at most `BLOCK_ELEMENTS` numbers, or one row.
    """
    batch, heads, num_queries, _ = query.shape
    num_keys = key.shape[2]
    limit = BLOCK_ELEMENTS * (1 if query.device.type == "cpu" else _ACCELERATOR_FACTOR)
    num_rows = max(1, min(num_queries, limit // num_keys))
    num_heads = max(1, min(heads, limit // (num_rows * num_keys)))
    num_images = max(1, limit // (num_heads * num_rows * num_keys))
    for image in range(0, batch, num_images):
        for head in range(0, heads, num_heads):
            for row in range(0, num_queries, num_rows):
                yield Piece(
                    slice(image, min(image + num_images, batch)),
                    slice(head, min(head + num_heads, heads)),
                    slice(row, min(row + num_rows, num_queries)),
                )


def reached_rows(tensor: torch.Tensor) -> torch.Tensor | None:
    """Find the rows that are not zero in all images and heads; None where they are most of them, or not on a CPU.

    In the last layer a head of the class token reads one row, and those of all other tokens need not be made.
    Elsewhere than on a CPU, looking for them would make the CPU wait for the device.

    Args:
        tensor (`torch.Tensor` of shape (batch, heads, rows, channels)): What the rows are multiplied by.

    Returns:
        `torch.Tensor` of shape (reached,), *optional*: Indices.
    """
    if tensor.device.type != "cpu":
        return None
    rows = tensor.any(dim=-1).flatten(0, 1).any(dim=0).nonzero()[:, 0]
    return rows if 2 * len(rows) <= tensor.shape[2] else None
