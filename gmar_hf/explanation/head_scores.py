"""What one layer's heads are worth, from tensors that the backward brings along: nothing here is tokens x tokens.

Notation of Jo, Jang, Park, "GMAR: Gradient-Driven Multi-Head Attention Rollout", ICIP 2025 (arXiv 2504.19414): with
attention `A`, values `V` and head output `O = A V`, the gradient of the explained logit `y` with respect to the
attention is `G = dO V^T`, where `dO = dy/dO`.
"""

import torch

from gmar_hf.explanation.blocks import pieces
from gmar_hf.utils.tensors import at_least_float32


def l1_norm(output_grad: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Sum |G| over all query-key pairs of every head, piece by piece of `dO V^T`.

    Args:
        output_grad (`torch.Tensor` of shape (batch, heads, tokens, head_dim)): The gradient `dO` of the outputs.
        value (`torch.Tensor` of shape (batch, heads, tokens, head_dim)): The values `V`.

    Returns:
        `torch.Tensor` of shape (batch, heads): Not negative, at least float32, on the inputs' device.
    """
    output_grad, keys = at_least_float32(output_grad), at_least_float32(value).transpose(-2, -1)
    total = output_grad.new_zeros(output_grad.shape[:2])
    for piece in pieces(output_grad, value):
        total[piece[:2]] += (output_grad[piece] @ keys[piece[:2]]).abs_().sum(dim=(-2, -1))
    return total


def l2_norm(output_grad: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Take the root of the sum of G^2 of every head, exactly, as `<dO^T dO, V^T V>`: two head_dim x head_dim matrices.

    Args:
        output_grad (`torch.Tensor` of shape (batch, heads, tokens, head_dim)): The gradient `dO` of the outputs.
        value (`torch.Tensor` of shape (batch, heads, tokens, head_dim)): The values `V`.

    Returns:
        `torch.Tensor` of shape (batch, heads): Not negative, at least float32.
    """
    output_grad, value = at_least_float32(output_grad), at_least_float32(value)
    grams = (output_grad.transpose(-2, -1) @ output_grad) * (value.transpose(-2, -1) @ value)
    return grams.sum(dim=(-2, -1)).clamp_min(0).sqrt()  # rounding can bring a zero below zero


def head_contribution(output: torch.Tensor, output_grad: torch.Tensor) -> torch.Tensor:
    """Return `<O, dO>`: what removing each head takes from the logit, to first order (Michel et al. 2019).

    Args:
        output (`torch.Tensor` of shape (batch, heads, tokens, head_dim)): The heads' outputs `O`.
        output_grad (`torch.Tensor` of shape (batch, heads, tokens, head_dim)): The gradient `dO` of the outputs.

    Returns:
        `torch.Tensor` of shape (batch, heads): Signed, in logits.
    """
    return (at_least_float32(output) * at_least_float32(output_grad)).sum(dim=(-2, -1))


def mean_output_contribution(output: torch.Tensor, output_grad: torch.Tensor) -> torch.Tensor:
    """Return `<mean(O), dO>`, the mean over the tokens: what of each head's contribution is the same at all tokens.

    What is left of the contribution without it is what the head adds by telling the image's tokens apart.

    Args:
        output (`torch.Tensor` of shape (batch, heads, tokens, head_dim)): The heads' outputs `O`.
        output_grad (`torch.Tensor` of shape (batch, heads, tokens, head_dim)): The gradient `dO` of the outputs.

    Returns:
        `torch.Tensor` of shape (batch, heads): Signed, in logits.
    """
    mean, total = at_least_float32(output).mean(dim=2), at_least_float32(output_grad).sum(dim=2)
    return (mean * total).sum(dim=-1)


def token_contribution(value: torch.Tensor, value_grad: torch.Tensor) -> torch.Tensor:
    """Return `<V_j, dV_j>`: the part of a head's contribution that comes through each token it looks at.

    Args:
        value (`torch.Tensor` of shape (batch, heads, tokens, head_dim)): The values `V`.
        value_grad (`torch.Tensor` of shape (batch, heads, tokens, head_dim)): Their gradient `dV = A^T dO`.

    Returns:
        `torch.Tensor` of shape (batch, heads, tokens): Signed, in logits; over the tokens it sums to the head's
            contribution.
    """
    return (at_least_float32(value) * at_least_float32(value_grad)).sum(dim=-1)


def head_weights(scores: torch.Tensor) -> torch.Tensor:
    """Divide scores by their layer's sum; a layer without any score is shared equally.

    Args:
        scores (`torch.Tensor` of shape (..., heads)): Not negative.

    Returns:
        `torch.Tensor` of shape (..., heads): In [0, 1], each row sums to one.
    """
    total = scores.sum(dim=-1, keepdim=True)
    return torch.where(total > 0, scores / total, 1 / scores.shape[-1])
