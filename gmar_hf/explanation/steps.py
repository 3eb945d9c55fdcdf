"""One layer's step of every method: from the row above the layer to the row below it."""

from dataclasses import dataclass

import torch

from gmar_hf.explanation.layer import LayerGradients
from gmar_hf.explanation.rollout import fuse, fuse_gradient, residual


@dataclass(frozen=True, kw_only=True)
class StepView:
    """What a method's step sees of one layer.

    Args:
        layer ([`LayerGradients`]): The layer's tensors and what is made of them.
        residual_weight (`float`): Weight of the skip connection beside the attention's 1.
        head_weights (`torch.Tensor` of shape (batch, heads), *optional*): Rows sum to one.
        value_reference (`float` or `str`, *optional*): What values are compared with, where the method adds
            contributions.
    """

    layer: LayerGradients
    residual_weight: float
    head_weights: torch.Tensor | None
    value_reference: float | str | None


def roll_out(row: torch.Tensor, step: StepView) -> torch.Tensor:
    """Take GMAR's step and, with uniform weights, attention rollout's (Abnar and Zuidema 2020)."""
    return residual(_fused(row, step), row, step.residual_weight)


def attend_in_last_layer(row: torch.Tensor, step: StepView) -> torch.Tensor:
    """Read what the readout attends to in the last layer, mean over heads, and pass all other layers."""
    return _fused(row, step) if step.layer.is_last else row


def roll_out_gradient(row: torch.Tensor, step: StepView) -> torch.Tensor:
    """Take the step of Chefer, Gur, Wolf, ICCV 2021: `R <- R + E R`, `E = mean_h relu(G * A)`, read from the left."""
    layer = step.layer
    assert layer.output_grad is not None
    return row + fuse_gradient(row, layer.output_grad, layer.call) * layer.gradient_size


def add_contribution(row: torch.Tensor, step: StepView) -> torch.Tensor:
    """Add the sum over heads of what attention to each token adds to the logit, by the method's value reference."""
    assert step.value_reference is not None
    by_token = step.layer.token_contribution(step.value_reference)
    assert by_token is not None
    return row + by_token.sum(dim=1)


def _fused(row: torch.Tensor, step: StepView) -> torch.Tensor:
    assert step.head_weights is not None
    return fuse(row, step.head_weights, step.layer.call)
