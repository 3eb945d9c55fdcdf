"""One layer's step of every method: from the row above the layer to the row below it."""

from dataclasses import dataclass

import torch

from gmar_hf.explanation.rollout import fuse, fuse_gradient, residual
from gmar_hf.models.attention import AttentionCall


@dataclass(frozen=True, kw_only=True)
class LayerView:
    """What a step sees of one layer.

    Args:
        call ([`AttentionCall`]): Queries, keys, values, bias and scaling.
        is_last (`bool`): Whether this is the encoder's last layer, the first that a step sees.
        residual_weight (`float`): Weight of the skip connection beside the attention's 1.
        head_weights (`torch.Tensor` of shape (batch, heads), *optional*): Rows sum to one.
        output_grad (`torch.Tensor` of shape (batch, heads, tokens, head_dim), *optional*): Gradient of the heads'
            outputs, divided by `gradient_size`.
        gradient_size (`torch.Tensor` of shape (batch, 1)): A power of two for every image.
        token_contribution (`torch.Tensor` of shape (batch, heads, tokens), *optional*): In logits.
    """

    call: AttentionCall
    is_last: bool
    residual_weight: float
    head_weights: torch.Tensor | None
    output_grad: torch.Tensor | None
    gradient_size: torch.Tensor
    token_contribution: torch.Tensor | None


def roll_out(row: torch.Tensor, layer: LayerView) -> torch.Tensor:
    """Take GMAR's step and, with uniform weights, attention rollout's (Abnar and Zuidema 2020)."""
    return residual(_fused(row, layer), row, layer.residual_weight)


def attend_in_last_layer(row: torch.Tensor, layer: LayerView) -> torch.Tensor:
    """Read what the readout attends to in the last layer, mean over heads, and pass all other layers."""
    return _fused(row, layer) if layer.is_last else row


def roll_out_gradient(row: torch.Tensor, layer: LayerView) -> torch.Tensor:
    """Take the step of Chefer, Gur, Wolf, ICCV 2021: `R <- R + E R`, `E = mean_h relu(G * A)`, read from the left."""
    assert layer.output_grad is not None
    return row + fuse_gradient(row, layer.output_grad, layer.call) * layer.gradient_size


def add_contribution(row: torch.Tensor, layer: LayerView) -> torch.Tensor:
    """Add the sum over heads of `<V_j, dV_j>`, the first-order effect on the logit of attention to each token."""
    assert layer.token_contribution is not None
    return row + layer.token_contribution.sum(dim=1)


def _fused(row: torch.Tensor, layer: LayerView) -> torch.Tensor:
    assert layer.head_weights is not None
    return fuse(row, layer.head_weights, layer.call)
