"""The maps: each method is a name and a function from one layer to the next, last layer first.

This is one reading of GMAR (Jo, Jang, Park, ICIP 2025, arXiv 2504.19414), of which the abstract and reviews are
public: head weights per layer and image, half-and-half residual, last layer on the left. Public re-readings differ on
all three.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

from gmar_hf.errors import ArgumentError
from gmar_hf.explanation.rollout import fuse, fuse_gradient, residual
from gmar_hf.models.attention import AttentionCall


@dataclass(frozen=True)
class LayerView:
    """What a method sees of one layer.

    Args:
        call ([`AttentionCall`]): Queries, keys, values, bias and scaling.
        is_last (`bool`): Whether this is the encoder's last layer, the first that a method sees.
        residual_weight (`float`): Share of the skip connection beside the attention's 1.
        head_weights (`torch.Tensor` of shape (batch, heads), *optional*): Rows sum to one.
        output_grad (`torch.Tensor` of shape (batch, heads, tokens, head_dim), *optional*): Gradient of the heads'
            outputs, divided by `gradient_size`.
        gradient_size (`torch.Tensor` of shape (batch, 1)): A power of two for every image.
        token_contribution (`torch.Tensor` of shape (batch, heads, tokens), *optional*): Logits.
    """

    call: AttentionCall
    is_last: bool
    residual_weight: float
    head_weights: torch.Tensor | None
    output_grad: torch.Tensor | None
    gradient_size: torch.Tensor
    token_contribution: torch.Tensor | None


Step = Callable[[torch.Tensor, LayerView], torch.Tensor]


@dataclass(frozen=True)
class Method:
    """How a map is made.

    Args:
        step (`Callable`): From the row vector (batch, tokens) above a layer, and the layer, to the row vector below
            it.
        weights: "gradient" (GMAR's), "uniform" or None: which head weights the steps see and `head_importance` shows.
        needs: What of the backward a step reads: "output_grad", "token_contribution", or None for one forward.
        from_readout (`bool`): Whether the row starts as the readout; else it starts at zero.
    """

    step: Step
    weights: Literal["gradient", "uniform"] | None
    needs: Literal["output_grad", "token_contribution"] | None
    from_readout: bool = True


def _rollout(row: torch.Tensor, layer: LayerView) -> torch.Tensor:
    """GMAR's step, and with uniform weights attention rollout's (Abnar and Zuidema 2020)."""
    return residual(_fused(row, layer), row, layer.residual_weight)


def _last_attention(row: torch.Tensor, layer: LayerView) -> torch.Tensor:
    """Raw attention: what the readout attends to in the last layer, mean over heads."""
    return _fused(row, layer) if layer.is_last else row


def _gradient_rollout(row: torch.Tensor, layer: LayerView) -> torch.Tensor:
    """Chefer, Gur, Wolf, ICCV 2021: `R <- R + E R` with `E = mean_h relu(G * A)`, read from the left."""
    assert layer.output_grad is not None
    call = layer.call
    fused = fuse_gradient(row, layer.output_grad, call.value, call.query, call.key, call.bias, call.scaling)
    return row + fused * layer.gradient_size


def _contribution(row: torch.Tensor, layer: LayerView) -> torch.Tensor:
    """Sum over heads of `<V_j, dV_j>`: the first-order effect on the logit of attention to each token."""
    assert layer.token_contribution is not None
    return row + layer.token_contribution.sum(dim=1)


def _fused(row: torch.Tensor, layer: LayerView) -> torch.Tensor:
    assert layer.head_weights is not None
    call = layer.call
    return fuse(row, layer.head_weights, call.query, call.key, call.bias, call.scaling)


METHODS: dict[str, Method] = {
    "gmar": Method(_rollout, weights="gradient", needs="output_grad"),
    "contribution": Method(_contribution, weights=None, needs="token_contribution", from_readout=False),
    "rollout": Method(_rollout, weights="uniform", needs=None),
    "gradient-rollout": Method(_gradient_rollout, weights=None, needs="output_grad"),
    "attention": Method(_last_attention, weights="uniform", needs=None),
}


def get_method(name: str) -> Method:
    """Look a method up.

    Raises:
        ArgumentError: If there is none of that name; the message lists the names there are.
    """
    if not isinstance(name, str) or name not in METHODS:
        names = ", ".join(f'"{known}"' for known in METHODS)
        raise ArgumentError(f"`method` must be one of {names}; got {name!r}.")
    return METHODS[name]
