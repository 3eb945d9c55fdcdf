"""A row vector through a layer's attention, which is made again piece by piece from queries and keys."""

from collections.abc import Iterator
from dataclasses import replace

import torch

from gmar_hf.explanation.blocks import Piece, pieces
from gmar_hf.models.recorders import AttentionCall
from gmar_hf.utils.tensors import at_least_float32, reached_rows


def attention_blocks(call: AttentionCall) -> Iterator[tuple[Piece, torch.Tensor]]:
    """Make a layer's post-softmax attention again, a piece at a time.

    Args:
        call ([`AttentionCall`]): The layer's queries, keys, bias and scaling.

    Yields:
        `tuple[Piece, torch.Tensor]`: Images, heads and rows, and their attention (images, heads, rows, tokens), at
            least float32, in [0, 1].
    """
    scaled, keys = at_least_float32(call.query) * call.scaling, at_least_float32(call.key).transpose(-2, -1)
    bias, idle = call.bias, call.idle_queries
    for piece in pieces(call.query, call.key):
        scores = scaled[piece] @ keys[piece.images, piece.heads]
        if bias is not None:
            scores += _part(bias, piece)
        attention = scores.softmax(dim=-1)
        yield piece, attention if idle is None else attention.masked_fill_(_part(idle, piece), 0)


def fuse(row: torch.Tensor, weights: torch.Tensor, call: AttentionCall) -> torch.Tensor:
    """Multiply a row vector by the head-weighted attention: `row @ sum_h w_h A_h`.

    Args:
        row (`torch.Tensor` of shape (batch, tokens)): The row vector.
        weights (`torch.Tensor` of shape (batch, heads)): The head weights `w`.
        call ([`AttentionCall`]): The layer whose attention `A` is meant.

    Returns:
        `torch.Tensor` of shape (batch, tokens): At least float32; it sums to `row`'s sum where the weights sum to one.
    """
    fused = torch.zeros_like(row)
    if (rows := reached_rows(row)) is not None:
        row, call = row[:, rows], of_queries(call, rows)
    for piece, attention in attention_blocks(call):
        by_head = weights[piece.images, piece.heads, None] * row[piece.images, None, piece.rows]
        fused[piece.images] += _through(by_head, attention)
    return fused


def fuse_gradient(row: torch.Tensor, output_grad: torch.Tensor, call: AttentionCall) -> torch.Tensor:
    """Multiply a row vector by `mean_h relu(G * A)` (Chefer, Gur, Wolf, ICCV 2021), `G = dO V^T`.

    Args:
        row (`torch.Tensor` of shape (batch, tokens)): The row vector.
        output_grad (`torch.Tensor` of shape (batch, heads, tokens, head_dim)): The gradient `dO` of the outputs.
        call ([`AttentionCall`]): The layer whose attention `A` and values `V` are meant.

    Returns:
        `torch.Tensor` of shape (batch, tokens): At least float32.
    """
    num_heads = call.query.shape[1]
    output_grad, values = at_least_float32(output_grad), at_least_float32(call.value).transpose(-2, -1)
    fused = torch.zeros_like(row)
    if (rows := reached_rows(row)) is not None:
        row, output_grad, call = row[:, rows], output_grad[:, :, rows], of_queries(call, rows)
    for piece, attention in attention_blocks(call):
        # A >= 0, so relu(G * A) = relu(G) * A
        attention *= (output_grad[piece] @ values[piece.images, piece.heads]).clamp_min_(0)
        by_head = row[piece.images, None, piece.rows].expand(attention.shape[:3])
        fused[piece.images] += _through(by_head, attention)
    return fused / num_heads


def attend_back(by_query: torch.Tensor, call: AttentionCall) -> torch.Tensor:
    """Multiply a vector over the queries by every head's attention: `A^T r`.

    Args:
        by_query (`torch.Tensor` of shape (batch, heads, queries)): The vectors `r`.
        call ([`AttentionCall`]): The layer whose attention `A` is meant.

    Returns:
        `torch.Tensor` of shape (batch, heads, keys): At least float32; each head's sum is that of `r`.
    """
    by_key = by_query.new_zeros(call.key.shape[:3])
    if (rows := reached_rows(by_query)) is not None:
        by_query, call = by_query[:, :, rows], of_queries(call, rows)
    for piece, attention in attention_blocks(call):
        by_key[piece.images, piece.heads] += (by_query[piece][:, :, None] @ attention)[:, :, 0]
    return by_key


def residual(fused: torch.Tensor, row: torch.Tensor, residual_weight: float) -> torch.Tensor:
    """Mix in the skip connection: `(row A~ + a row) / (1 + a)` (Abnar and Zuidema 2020, there with a = 1)."""
    attention_share = 1 / (1 + residual_weight)  # in Python's floats: `a` may be beyond what the tensors' dtype holds
    return fused * attention_share + row * (residual_weight * attention_share)


def _part(shared: torch.Tensor, piece: Piece) -> torch.Tensor:
    """Return a piece's part of a tensor that all images, all heads or all rows may share."""
    sizes = zip(piece, shared.shape[:3], strict=True)
    return shared[tuple(part if size > 1 else slice(None) for part, size in sizes)]


def _through(rows: torch.Tensor, attention: torch.Tensor) -> torch.Tensor:
    """Sum over heads and rows of `rows` (batch, heads, rows) times `attention` (batch, heads, rows, tokens)."""
    return (rows.flatten(1)[:, None] @ attention.flatten(1, 2))[:, 0]


def of_queries(call: AttentionCall, rows: torch.Tensor) -> AttentionCall:
    """Return a call of some queries alone, by their indices."""
    bias = call.bias
    if bias is not None and bias.shape[2] > 1:
        bias = bias[:, :, rows]
    return replace(call, query=call.query[:, :, rows], bias=bias)
