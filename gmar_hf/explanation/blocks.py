"""How large a piece of an attention matrix is held at once."""

from collections.abc import Iterator

import torch

BLOCK_ELEMENTS = 2**19  # numbers of one piece on a CPU: 2 MB in float32, which caches hold
_ACCELERATOR_FACTOR = 64  # elsewhere few large pieces beat many small ones: 128 MB


def pieces(query: torch.Tensor) -> Iterator[tuple[slice, slice]]:
    """Cut a layer's attention matrices into pieces: whole images where some fit, otherwise rows of one image.

    Args:
        query (`torch.Tensor` of shape (batch, heads, tokens, head_dim)): What the rows belong to.

    Yields:
        `tuple[slice, slice]`: Images and rows; a piece has at most `BLOCK_ELEMENTS` numbers, or one row of every head.
    """
    batch, heads, tokens, _ = query.shape
    limit = BLOCK_ELEMENTS * (1 if query.device.type == "cpu" else _ACCELERATOR_FACTOR)
    num_images = max(1, limit // (heads * tokens * tokens))
    num_rows = min(tokens, max(1, limit // (heads * tokens)))
    for image in range(0, batch, num_images):
        for row in range(0, tokens, num_rows):
            yield slice(image, min(image + num_images, batch)), slice(row, min(row + num_rows, tokens))
