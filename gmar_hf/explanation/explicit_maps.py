"""The maps of all methods by full matrices, as their formulas stand: what the engine's are held against.

In the formulas `A` (batch, layers, heads, tokens, tokens) is the attention, `G` of the same shape the gradient of the
score with respect to it, and `r` (batch, tokens) the readout. `G_ij = <dO_i, V_j>`, so that mean values and the heads'
own outputs are means of G over the keys, plain and by attention.
"""

from collections.abc import Callable

import torch
from torch import nn

from gmar_hf.explanation.engine import explain
from gmar_hf.explanation.explicit_windows import window_map_errors
from gmar_hf.explanation.methods import METHODS
from gmar_hf.explanation.path import path_points
from gmar_hf.explanation.request import Request
from gmar_hf.models.attention import recording
from gmar_hf.models.freezing import frozen, gradients_on
from gmar_hf.models.model_check import checked_model
from gmar_hf.models.model_inputs import checked_pixels, forward
from gmar_hf.models.recorders import AttentionCall, Recorder
from gmar_hf.models.retention import retain_attention
from gmar_hf.models.windows import has_stages
from gmar_hf.utils.tensors import relative_error

Formula = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def _roll_out(attention: torch.Tensor, weights: torch.Tensor, readout: torch.Tensor) -> torch.Tensor:
    fused = (attention * weights[..., None, None]).sum(dim=2)
    return _through(fused, readout, skip=Request().residual_weight, total=1 + Request().residual_weight)


def _through(matrices: torch.Tensor, row: torch.Tensor, *, skip: float, total: float) -> torch.Tensor:
    """Return `row` times (matrix + skip I) / total of every layer, the last one on the left."""
    identity = torch.eye(row.shape[-1], dtype=row.dtype, device=row.device)
    for layer in reversed(range(matrices.shape[1])):
        row = (row[:, None] @ ((matrices[:, layer] + skip * identity) / total))[:, 0]
    return row


def _gmar(attention: torch.Tensor, gradient: torch.Tensor, readout: torch.Tensor) -> torch.Tensor:
    scores = gradient.abs().sum(dim=(-2, -1))
    return _roll_out(attention, scores / scores.sum(dim=-1, keepdim=True), readout)


def _rollout(attention: torch.Tensor, gradient: torch.Tensor, readout: torch.Tensor) -> torch.Tensor:
    return _roll_out(attention, torch.full_like(attention[..., 0, 0], 1 / attention.shape[2]), readout)


def _gradient_rollout(attention: torch.Tensor, gradient: torch.Tensor, readout: torch.Tensor) -> torch.Tensor:
    return _through((attention * gradient).relu().mean(dim=2), readout, skip=1.0, total=1.0)


def _attention(attention: torch.Tensor, gradient: torch.Tensor, readout: torch.Tensor) -> torch.Tensor:
    return (readout[:, None] @ attention[:, -1].mean(dim=1))[:, 0]


def _contribution(attention: torch.Tensor, gradient: torch.Tensor, readout: torch.Tensor) -> torch.Tensor:
    return (attention * gradient).sum(dim=(1, 2, 3))


def _removal(attention: torch.Tensor, gradient: torch.Tensor, readout: torch.Tensor) -> torch.Tensor:
    own = (attention * gradient).sum(dim=-1, keepdim=True)
    return (attention * (gradient - own)).sum(dim=(1, 2, 3))


def _half_centred(attention: torch.Tensor, gradient: torch.Tensor, readout: torch.Tensor) -> torch.Tensor:
    return (attention * (gradient - gradient.mean(dim=-1, keepdim=True) / 2)).sum(dim=(1, 2, 3))


# By method; those on the path are averaged over its points.
FORMULAS: dict[str, Formula] = {
    "gmar": _gmar,
    "contribution": _contribution,
    "removal": _removal,
    "path": _contribution,
    "recommended": _half_centred,
    "rollout": _rollout,
    "gradient-rollout": _gradient_rollout,
    "attention": _attention,
}


class _Scaled(Recorder):
    """Multiplies every attention layer's output."""

    def __init__(self, scale: float) -> None:
        self._scale = scale

    def edit(self, call: AttentionCall, output: torch.Tensor) -> torch.Tensor:
        return output * self._scale


def map_errors(model: nn.Module, pixel_values: torch.Tensor, reference: nn.Module | None = None) -> dict[str, float]:
    """Compare the map of every method, of the predicted classes, with that of explicit attention and autograd.

    Args:
        model (`nn.Module`): An image classifier, best in float32.
        pixel_values (`torch.Tensor` of shape (batch, channels, height, width)): A small batch.
        reference (`nn.Module`, *optional*): A copy of the model in a finer dtype; the model itself by default.

    Returns:
        `dict[str, float]`: By method, `max|a - b| / max|b|`; of layers in stages for the methods that they have.
    """
    if has_stages(model):
        return window_map_errors(model, pixel_values, reference)
    explanations = dict(zip(METHODS, explain(model, pixel_values, method=[*METHODS]), strict=True))
    target, readout = explanations["gmar"].target, explanations["gmar"].readout
    assert target is not None
    assert readout is not None
    explicit = checked_model(model if reference is None else reference)
    passes = {scale: _explicit_pass(explicit, pixel_values, target, scale) for scale in _scales()}
    errors = {}
    for method, explanation in explanations.items():
        assert explanation.attribution is not None
        expected: torch.Tensor | int = 0
        for scale, weight in path_points(METHODS[method], METHODS[method].num_points):
            attention, gradient = passes[scale]
            expected = expected + FORMULAS[method](attention, gradient / scale, readout.to(attention)) * weight
        ours = explanation.attribution.flatten(1)
        assert isinstance(expected, torch.Tensor)
        errors[method] = relative_error(ours, expected[:, -ours.shape[1] :])
    return errors


def _scales() -> set[float]:
    """Return what outputs are multiplied by in the passes that the methods take."""
    return {scale for method in METHODS.values() for scale, _ in path_points(method, method.num_points)}


def _explicit_pass(
    model: nn.Module, pixel_values: torch.Tensor, target: torch.Tensor, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return A and G (batch, layers, heads, tokens, tokens) of the model with scaled attention."""
    with gradients_on(), frozen(model):
        pixels = checked_pixels(model, pixel_values)
        with recording(model, _Scaled(scale)), retain_attention(model) as attentions:
            logits = forward(model, pixels).logits
        gradients = torch.autograd.grad(logits.gather(1, target[:, None]).sum(), list(attentions))
    return torch.stack(list(attentions), dim=1).detach(), torch.stack(gradients, dim=1)
