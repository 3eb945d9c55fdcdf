"""Contributions of layers in stages by full matrices of every window: what the engine's are held against.

In the formulas `A` (images * windows, heads, tokens, tokens) is a layer's attention, `G` of the same shape the
gradient of the score with respect to it, before outputs are scaled, and `g` that of its scaled output.
"""

from dataclasses import dataclass

import torch
from torch import nn

from gmar_hf.explanation.engine import explain
from gmar_hf.explanation.layer import OUTPUT
from gmar_hf.explanation.methods import METHODS
from gmar_hf.explanation.patch_layout import methods_of
from gmar_hf.explanation.path import path_points
from gmar_hf.models.attention import recording
from gmar_hf.models.freezing import frozen, gradients_on
from gmar_hf.models.model_check import checked_model
from gmar_hf.models.model_inputs import checked_pixels, forward
from gmar_hf.models.recorders import AttentionCall, Recorder
from gmar_hf.models.retention import retain_attention
from gmar_hf.models.window_layout import grid_of, on_patches
from gmar_hf.utils.missing_heads import stack_layers
from gmar_hf.utils.tensors import at_least_float32, relative_error


class _Keeper(Recorder):
    """Multiplies every layer's output, and keeps it with its call."""

    def __init__(self, scale: float) -> None:
        self._scale = scale
        self.calls: list[AttentionCall] = []
        self.outputs: list[torch.Tensor] = []

    def edit(self, call: AttentionCall, output: torch.Tensor) -> torch.Tensor:
        self.calls.append(call)
        self.outputs.append(output * self._scale)
        return self.outputs[-1]


@dataclass(frozen=True)
class _Layer:
    """One layer's call, with `A`, `G` and `g`."""

    call: AttentionCall
    attention: torch.Tensor
    gradient: torch.Tensor
    output_gradient: torch.Tensor

    def contribution(self, reference: float | str) -> torch.Tensor:
        """Return `sum_i A_ij (G_ij - <g_i, reference>)` (images * windows, heads, tokens)."""
        if reference == OUTPUT:
            against = (self.attention * self.gradient).sum(dim=-1, keepdim=True)
        else:
            # The mean value is that over the image's tokens, in whatever window they are.
            assert self.call.layout is not None
            value = at_least_float32(self.call.value.detach())
            mean = self.call.layout.by_window(self.call.by_image(value).mean(dim=2, keepdim=True))
            against = float(reference) * (self.output_gradient * mean).sum(dim=-1, keepdim=True)
        return (self.attention * (self.gradient - against)).sum(dim=-2)


@dataclass(frozen=True)
class ExplicitWindows:
    """What a forward with explicit attention left behind, and the gradients of one class an image.

    Args:
        logits (`torch.Tensor` of shape (batch, classes)): The model's output.
        layers (`list`): First layer first.
    """

    logits: torch.Tensor
    layers: list[_Layer]

    def by_token(self, reference: float | str) -> torch.Tensor:
        """Return contributions (batch, layers, heads, prefix + patches), the prefix of what is no patch."""
        grid = grid_of(layer.call.layout for layer in self.layers)
        return stack_layers(
            [on_patches(layer.contribution(reference), layer.call.layout, grid) for layer in self.layers]
        )


def explicit_windows(
    model: nn.Module, pixel_values: torch.Tensor, target: torch.Tensor, scale: float = 1.0
) -> ExplicitWindows:
    """Make a forward of a model whose layers stand in stages with explicit attention, and differentiate it.

    Args:
        model (`nn.Module`): The classifier.
        pixel_values (`torch.Tensor` of shape (batch, channels, height, width)): A small batch.
        target (`torch.LongTensor` of shape (batch,)): The class of each image.
        scale (`float`, defaults to 1.0): What every attention layer's output is multiplied by.
    """
    keeper = _Keeper(scale)
    with gradients_on(), frozen(model):
        pixels = checked_pixels(model, pixel_values)
        with recording(model, keeper), retain_attention(model) as attentions:
            logits = forward(model, pixels).logits
        matrices = list(attentions)
        score = logits.gather(1, target[:, None]).sum()
        gradients = torch.autograd.grad(score, [*matrices, *keeper.outputs])
    by_layer = zip(keeper.calls, matrices, gradients[: len(matrices)], gradients[len(matrices) :], strict=True)
    layers = [
        _Layer(call, *(at_least_float32(each.detach()) for each in (attention, gradient / scale, output_gradient)))
        for call, attention, gradient, output_gradient in by_layer
    ]
    return ExplicitWindows(logits.detach(), layers)


def window_map_errors(
    model: nn.Module, pixel_values: torch.Tensor, reference: nn.Module | None = None
) -> dict[str, float]:
    """Compare the maps of the methods that windows have with those of explicit attention, see [`map_errors`]."""
    methods = methods_of(model)
    explanations = dict(zip(methods, explain(model, pixel_values, method=methods), strict=True))
    explicit = checked_model(model if reference is None else reference)
    errors = {}
    for method, explanation in explanations.items():
        assert explanation.attribution is not None
        assert explanation.target is not None
        row, expected = METHODS[method], torch.zeros(())
        assert row.value_reference is not None
        for scale, weight in path_points(row, row.num_points):
            run = explicit_windows(explicit, pixel_values, explanation.target, scale)
            expected = expected + run.by_token(row.value_reference).nan_to_num(0.0).sum(dim=(1, 2)) * weight
        ours = explanation.attribution.flatten(1)
        errors[method] = relative_error(ours, expected[:, -ours.shape[1] :])
    return errors
