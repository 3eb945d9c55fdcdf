"""How large a piece of an attention matrix is held at once."""

from collections.abc import Iterator
from typing import NamedTuple

import torch

BLOCK_ELEMENTS = 2**17  # numbers of a piece for each thread of a CPU: half a MB, which a core's own cache holds
_MOST_THREADS = 8  # that pieces grow with: nothing of tokens squared is held on a machine of many cores either
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
        [`Piece`]: It has at most `BLOCK_ELEMENTS` numbers for each of up to eight threads, or one row.
    """
    batch, heads, num_queries, _ = query.shape
    num_keys = key.shape[2]
    is_cpu = query.device.type == "cpu"
    limit = BLOCK_ELEMENTS * (min(torch.get_num_threads(), _MOST_THREADS) if is_cpu else _ACCELERATOR_FACTOR)
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
