"""Is the gradient that explanations are made of that of the model? Finite differences of the logits tell."""

from typing import Any

import torch
from torch import nn

from gmar_hf.explanation.trace import traced
from gmar_hf.models.attention import recording
from gmar_hf.models.freezing import frozen
from gmar_hf.models.recorders import AttentionCall, Recorder
from gmar_hf.models.targets import class_scores
from gmar_hf.utils.tensors import at_least_float32

NUM_DIRECTIONS = 3  # for every image
# Of the values' own size. Float32 agrees best at the first; half precision needs longer steps, sharp bends shorter.
STEPS = (2.0**-6, 2.0**-4, 2.0**-2, 2.0**-1, 2.0**-8, 2.0**-10)
# Over fifteen families the largest errors are 4e-4, 0.06 and 0.26 (tests/helpers/measure_gradients.py).
_TOLERANCE = {torch.float16: 0.15, torch.bfloat16: 0.4}
_BY_LAYER = {
    # LLM.int8 of bitsandbytes rounds activations to 8 bits, over whose steps its gradient goes as over a slope: over
    # the same families the largest error is 0.25.
    "Linear8bitLt": 0.4,
    # Where another token becomes the largest of those that Hiera merges, logits have bends: in float32 right gradients
    # are up to 0.055 off on models of few tokens, and those of MLPs that are cut by a fifth 0.16 and more.
    "HieraLayer": 0.1,
}


def tolerance_of(dtype: torch.dtype, model: nn.Module | None = None) -> float:
    """Return the error up to which finite differences in this precision agree with a gradient.

    Args:
        dtype (`torch.dtype`): Of the pixels, and so of the activations.
        model (`nn.Module`, *optional*): Whose layers may round more coarsely than that, or bend the logits.

    Example:
        >>> tolerance_of(torch.float32)
        0.005
    """
    layers = set() if model is None else {type(module).__name__ for module in model.modules()}
    return max(_TOLERANCE.get(dtype, 0.005), *(_BY_LAYER.get(layer, 0.0) for layer in layers), 0.0)


class _Nudger(Recorder):
    """Adds something to the values of one layer.

    Args:
        layer (`int`): Which, from 0, in the order of the calls.
        nudge (`torch.Tensor` of the shape of the values): What is added.
    """

    def __init__(self, layer: int, nudge: torch.Tensor) -> None:
        self._layer = layer
        self._nudge = nudge
        self._num_calls = 0

    def prepare(self, call: AttentionCall) -> None:
        if self._num_calls == self._layer:
            call.value = call.value + self._nudge.to(call.value)
        self._num_calls += 1


def gradient_errors(model: nn.Module, pixels: torch.Tensor, target: torch.Tensor) -> dict[int, float]:
    """Compare the derivatives of logits along random directions with central finite differences.

    The directions are those of the values V of the first, the middle and the last layer. A gradient that is cut
    anywhere behind the values is found, and so is one that is followed along some of its paths only. The model
    computes in its own precision. Rounding makes short steps useless, and curvature long ones: of several lengths the
    first counts that agrees within [`tolerance_of`] the precision, or else the one that agrees best.

    Args:
        model (`nn.Module`): The classifier.
        pixels (`torch.Tensor` of shape (batch, channels, height, width)): From `checked_pixels`.
        target (`torch.LongTensor` of shape (batch,)): The class of each image.

    Returns:
        `dict[int, float]`: By layer `|D - Q| / |Q|`, Euclidean norms over directions and images, where `D` is
        `<dV, direction>` and `Q` is `(y(V + e direction) - y(V - e direction)) / 2e`.
    """
    generator = torch.Generator().manual_seed(0)
    directions: dict[int, torch.Tensor] = {}
    derivatives: dict[int, torch.Tensor] = {}
    with traced(model, pixels, "value", {}) as trace:
        num_layers = len(trace.layers)
        layers = sorted({0, num_layers // 2, num_layers - 1})
        (score,) = class_scores(trace.logits, target.to(trace.logits.device))
        head_gradient = trace.head_gradient(score)
        for layer in layers:
            value = at_least_float32(trace.layers[layer].value.detach())
            noise = torch.randn(NUM_DIRECTIONS, *value.shape, generator=generator, device="cpu")
            directions[layer] = noise.to(value) * value.square().mean().sqrt()

        def visit(index: int, output_grad: torch.Tensor, value_grad: torch.Tensor | None) -> None:
            if index in directions:
                assert value_grad is not None
                by_row = (directions[index] * value_grad).sum(dim=(-3, -2, -1))
                along = by_row.unflatten(1, (len(pixels), -1)).sum(dim=2)  # an image may be cut into windows
                derivatives[index] = along * head_gradient.size[:, 0].to(along)

        trace.backward(head_gradient, visit, retain_graph=False)
    errors, tolerance = {}, tolerance_of(pixels.dtype, model)
    for layer in layers:
        quotients = (_difference_quotient(model, pixels, target, layer, directions[layer], step) for step in STEPS)
        tried: list[float] = []
        while not tried or (tried[-1] > tolerance and len(tried) < len(STEPS)):
            tried.append(_error(derivatives[layer], next(quotients)))
        errors[layer] = min(tried)
    return errors


def _difference_quotient(
    model: Any, pixels: torch.Tensor, target: torch.Tensor, layer: int, directions: torch.Tensor, step: float
) -> torch.Tensor:
    """Return how much each image's logit grows along each direction, (directions, batch), per direction."""
    # All directions and both signs are rows of one batch.
    nudges = torch.cat([directions, -directions]).flatten(0, 1) * step
    repeats = 2 * len(directions)
    with torch.no_grad(), frozen(model), recording(model, _Nudger(layer, nudges)):
        logits = model(pixel_values=pixels.repeat(repeats, 1, 1, 1)).logits
    (scores,) = class_scores(at_least_float32(logits), target.to(logits.device).repeat(repeats))
    forwards, backwards = scores.reshape(2, len(directions), len(pixels))
    return (forwards - backwards) / (2 * step)


def _error(derivative: torch.Tensor, quotient: torch.Tensor) -> float:
    difference, quotient = (derivative - quotient).double(), quotient.double()
    return (difference.norm() / quotient.norm().clamp_min(torch.finfo(torch.float32).tiny)).item()
