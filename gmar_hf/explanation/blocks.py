"""How large a piece of an attention matrix is held at once."""

from collections.abc import Iterator

import torch

BLOCK_ELEMENTS = 2**19  # numbers of one piece on a CPU: 2 MB in float32, which caches hold
_ACCELERATOR_FACTOR = 64  # elsewhere few large pieces beat many small ones: 128 MB


def pieces(query: torch.Tensor, key: torch.Tensor) -> Iterator[tuple[slice, slice]]:
    """Cut a layer's attention matrices into pieces: whole images where some fit, otherwise rows of one image.

    Args:
        query (`torch.Tensor` of shape (batch, heads, queries, head_dim)): What the rows belong to.
        key (`torch.Tensor` of shape (batch, heads, keys, head_dim)): What the columns belong to.

    Yields:
        `tuple[slice, slice]`: Images and rows; a piece has at most `BLOCK_ELEMENTS` numbers, or one row of every head.
    """
    batch, heads, num_queries, _ = query.shape
    num_keys = key.shape[2]
    limit = BLOCK_ELEMENTS * (1 if query.device.type == "cpu" else _ACCELERATOR_FACTOR)
    num_images = max(1, limit // (heads * num_queries * num_keys))
    num_rows = min(num_queries, max(1, limit // (heads * num_keys)))
    for image in range(0, batch, num_images):
        for row in range(0, num_queries, num_rows):
            yield slice(image, min(image + num_images, batch)), slice(row, min(row + num_rows, num_queries))
