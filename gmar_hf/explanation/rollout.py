"""A row vector through a layer's attention, whose rows are made again block by block from queries and keys."""

from collections.abc import Iterator

import torch

from gmar_hf.explanation.blocks import pieces
from gmar_hf.utils.tensors import at_least_float32


def attention_blocks(
    query: torch.Tensor, key: torch.Tensor, bias: torch.Tensor | None, scaling: float
) -> Iterator[tuple[slice, slice, torch.Tensor]]:
    """Make the post-softmax attention again, a block at a time.

    Args:
        query (`torch.Tensor` of shape (batch, heads, tokens, head_dim)): Queries.
        key (`torch.Tensor` of shape (batch, heads, tokens, head_dim)): Keys.
        bias (`torch.Tensor` broadcastable to (batch, heads, tokens, tokens), *optional*): Added before the softmax.
        scaling (`float`): Factor of the products of queries and keys.

    Yields:
        `tuple[slice, slice, torch.Tensor]`: Images, rows, and their attention (images, heads, rows, tokens), at least
            float32, in [0, 1].
    """
    scaled, keys = at_least_float32(query) * scaling, at_least_float32(key).transpose(-2, -1)
    for images, rows in pieces(query):
        scores = scaled[images, :, rows] @ keys[images]
        if bias is not None:
            of_images = bias[images] if bias.shape[0] > 1 else bias
            scores += of_images[:, :, rows] if bias.shape[2] > 1 else of_images
        yield images, rows, scores.softmax(dim=-1)


def fuse(
    row: torch.Tensor,
    weights: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    bias: torch.Tensor | None,
    scaling: float,
) -> torch.Tensor:
    """Multiply a row vector by the head-weighted attention: `row @ sum_h w_h A_h`.

    Args:
        row (`torch.Tensor` of shape (batch, tokens)): The row vector.
        weights (`torch.Tensor` of shape (batch, heads)): `w`.
        query, key, bias, scaling: As in [`attention_blocks`].

    Returns:
        `torch.Tensor` of shape (batch, tokens): At least float32; it sums to `row`'s sum where the weights sum to one.
    """
    fused = torch.zeros_like(row)
    for images, rows, attention in attention_blocks(query, key, bias, scaling):
        fused[images] += _through(weights[images, :, None] * row[images, None, rows], attention)
    return fused


def fuse_gradient(
    row: torch.Tensor,
    output_grad: torch.Tensor,
    value: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    bias: torch.Tensor | None,
    scaling: float,
) -> torch.Tensor:
    """Multiply a row vector by `mean_h relu(G * A)` (Chefer, Gur, Wolf, ICCV 2021), `G = dO V^T`.

    Args:
        row (`torch.Tensor` of shape (batch, tokens)): The row vector.
        output_grad (`torch.Tensor` of shape (batch, heads, tokens, head_dim)): `dO`.
        value (`torch.Tensor` of shape (batch, heads, tokens, head_dim)): `V`.
        query, key, bias, scaling: As in [`attention_blocks`].

    Returns:
        `torch.Tensor` of shape (batch, tokens): At least float32.
    """
    output_grad, values = at_least_float32(output_grad), at_least_float32(value).transpose(-2, -1)
    fused = torch.zeros_like(row)
    for images, rows, attention in attention_blocks(query, key, bias, scaling):
        # A >= 0, so relu(G * A) = relu(G) * A
        attention *= (output_grad[images, :, rows] @ values[images]).clamp_min_(0)
        fused[images] += _through(row[images, None, rows].expand(-1, query.shape[1], -1), attention)
    return fused / query.shape[1]


def residual(fused: torch.Tensor, row: torch.Tensor, residual_weight: float) -> torch.Tensor:
    """Mix in the skip connection: `(row A~ + a row) / (1 + a)` (Abnar and Zuidema 2020, there with a = 1)."""
    return (fused + residual_weight * row) / (1 + residual_weight)


def _through(rows: torch.Tensor, attention: torch.Tensor) -> torch.Tensor:
    """Sum over heads and rows of `rows` (batch, heads, rows) times `attention` (batch, heads, rows, tokens)."""
    return (rows.flatten(1)[:, None] @ attention.flatten(1, 2))[:, 0]
