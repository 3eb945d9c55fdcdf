"""A check on a user's own model: does the engine agree with explicit attention, and its gradient with the model?"""

from dataclasses import dataclass

import torch
from torch import nn

from gmar_hf.explanation.engine import explain
from gmar_hf.explanation.explicit_windows import explicit_windows
from gmar_hf.explanation.finite_differences import gradient_errors, tolerance_of
from gmar_hf.explanation.request import Request
from gmar_hf.explanation.result import Explanation
from gmar_hf.models.freezing import frozen, gradients_on
from gmar_hf.models.model_check import checked_model
from gmar_hf.models.model_inputs import checked_pixels, forward
from gmar_hf.models.retention import retain_attention
from gmar_hf.models.windows import has_stages
from gmar_hf.utils.tensors import at_least_float32, relative_error

TOLERANCE = 1e-4  # of a tensor's largest magnitude, in float32; agreement is about 1e-6


@dataclass(frozen=True)
class Parity:
    """How a model was found.

    Args:
        explanation ([`Explanation`]): What the engine says of the batch, with head maps.
        errors (`dict[str, float]`): For each tensor `max|a - b| / max|b|` against explicit attention and autograd.
        gradient_errors (`dict[int, float]`): For the first, the middle and the last layer, how far the gradient of the
            logits is from their finite differences, as a share of them.
        gradient_tolerance (`float`): What a gradient error may be in the model's precision: 0.005 in float32.
        noise (`float`): How far the logits of two forwards of the model as it is are apart, in eval mode.
        mixing (`float`): How far the logits of the first image by itself are from those that it has in the batch.
        logits_error (`float`): How far the explained logits are from those of the model as it is.
    """

    explanation: Explanation
    errors: dict[str, float]
    gradient_errors: dict[int, float]
    gradient_tolerance: float
    noise: float
    mixing: float
    logits_error: float

    @property
    def is_steady(self) -> bool:
        """Whether two forwards give the same logits; else an explanation is of one draw of what is random in them."""
        return self.noise <= TOLERANCE

    @property
    def images_are_separate(self) -> bool:
        """Whether an image has the same logits by itself as in a batch, as far as the model's precision tells."""
        return self.mixing <= self.gradient_tolerance

    @property
    def engine_agrees(self) -> bool:
        """Whether tensors are those of explicit attention, in the same graph, and logits those of the model itself."""
        return all(error <= TOLERANCE for error in (*self.errors.values(), self.logits_error))

    @property
    def gradient_agrees(self) -> bool:
        """Whether the gradient is that of the logits themselves: nothing in the model cuts it."""
        return all(error <= self.gradient_tolerance for error in self.gradient_errors.values())

    @property
    def agrees(self) -> bool:
        """Whether both do, and the model always computes the same, for each image by itself."""
        return self.engine_agrees and self.gradient_agrees and self.is_steady and self.images_are_separate


def check_parity(model: nn.Module, pixel_values: torch.Tensor, reference: nn.Module | None = None) -> Parity:
    """Explain a small batch twice: by the engine, and by explicit attention matrices and their gradients.

    Both would follow a gradient that is cut inside the model, so it is held against finite differences of the logits:
    the values of three layers are moved along random directions, a little to either side.

    Args:
        model (`nn.Module`): An image classifier, best in float32.
        pixel_values (`torch.Tensor` of shape (batch, channels, height, width)): A small batch: memory grows with
            tokens squared.
        reference (`nn.Module`, *optional*): A copy of the model in a finer dtype for the explicit side, such as
            `copy.deepcopy(model).double()`; the model itself by default.

    Returns:
        [`Parity`]: Errors of logits, both norms, contributions and the GMAR map, and of the gradient. Of layers
            in stages, which have no GMAR, errors of logits, contributions and their map.
    """
    model = checked_model(model)
    explicit = model if reference is None else checked_model(reference)
    compare = _compare_windows if has_stages(model) else _compare_matrices
    explanation, expected = compare(model, explicit, pixel_values)
    errors = {}
    for name, (ours, theirs) in expected.items():
        assert ours is not None
        errors[name] = relative_error(ours.nan_to_num(0.0), theirs.nan_to_num(0.0))  # NaN of heads that a layer lacks
    assert explanation.target is not None
    pixels = checked_pixels(model, pixel_values)
    # By itself, without anybody listening, the model must give the logits that are explained, each time.
    with torch.no_grad(), frozen(model):
        first, second = (at_least_float32(forward(model, pixels).logits) for _ in range(2))
        alone = at_least_float32(forward(model, pixels[:1]).logits)
    assert explanation.logits is not None
    return Parity(
        noise=relative_error(first, second),
        mixing=relative_error(first[:1], alone),
        logits_error=relative_error(explanation.logits, first.to(explanation.logits)),
        explanation=explanation,
        errors=errors,
        gradient_errors=gradient_errors(model, pixels, explanation.target),
        gradient_tolerance=tolerance_of(pixels.dtype, model),
    )


_Compared = tuple[Explanation, dict[str, tuple[torch.Tensor | None, torch.Tensor]]]  # ours beside theirs, by name


def _compare_windows(model: nn.Module, explicit: nn.Module, pixel_values: torch.Tensor) -> _Compared:
    """Explain by contributions, and return what the engine says of windows beside what their matrices say."""
    explanation = explain(model, pixel_values, method="contribution", return_head_maps=True)
    assert explanation.target is not None
    run = explicit_windows(explicit, pixel_values, explanation.target)
    by_token = run.by_token(0.0)
    prefix = explanation.settings["grid"]["prefix"]
    theirs = by_token[..., prefix:].nan_to_num(0.0).sum(dim=(1, 2))
    return explanation, {
        "logits": (explanation.logits, run.logits),
        "head_contribution": (explanation.head_contribution, by_token.sum(dim=-1)),
        "head_maps": (_by_token(explanation), by_token),
        "attribution": (None if explanation.attribution is None else explanation.attribution.flatten(1), theirs),
    }


def _compare_matrices(model: nn.Module, explicit: nn.Module, pixel_values: torch.Tensor) -> _Compared:
    """Explain by GMAR, and return what the engine says beside what the layers' matrices say."""
    explanation = explain(model, pixel_values, norm="l1", return_head_maps=True)
    by_l2 = explain(model, pixel_values, norm="l2", return_maps=False)
    assert explanation.target is not None
    # The explicit side: every attention matrix, its gradient by autograd, and the formulas as they stand.
    with gradients_on(), frozen(explicit):
        pixels = checked_pixels(explicit, pixel_values)
        with retain_attention(explicit) as attentions:
            logits = explicit(pixel_values=pixels).logits
        score = logits.gather(1, explanation.target[:, None]).sum()
        gradients = torch.autograd.grad(score, list(attentions))
    attention = at_least_float32(torch.stack(list(attentions), dim=1).detach())
    gradient = at_least_float32(torch.stack(gradients, dim=1))
    edges = attention * gradient
    l1 = gradient.abs().sum(dim=(-2, -1))
    weights = l1 / l1.sum(dim=-1, keepdim=True)
    # What the engine says beside what the matrices say, tensor by tensor.
    return explanation, {
        "logits": (explanation.logits, logits.detach()),
        "head_score (L1)": (explanation.head_score, l1),
        "head_score (L2)": (by_l2.head_score, gradient.square().sum(dim=(-2, -1)).sqrt()),
        "head_contribution": (explanation.head_contribution, edges.sum(dim=(-2, -1))),
        "head_maps": (_by_token(explanation), edges.sum(dim=-2)),
        "attribution": (explanation.attribution, _rollout(attention, weights, explanation)),
    }


def _rollout(attention: torch.Tensor, weights: torch.Tensor, explanation: Explanation) -> torch.Tensor:
    """Make the map by full matrices, as the formula stands, read by the engine's readout."""
    identity = torch.eye(attention.shape[-1], dtype=attention.dtype, device=attention.device)
    product = identity.expand(attention.shape[0], -1, -1)
    for layer in range(attention.shape[1]):
        fused = (attention[:, layer] * weights[:, layer, :, None, None]).sum(dim=1)
        product = (fused + identity) / (1 + Request().residual_weight) @ product
    assert explanation.readout is not None
    assert explanation.attribution is not None
    row = (explanation.readout.to(product)[:, None] @ product)[:, 0]
    rows, cols = explanation.attribution.shape[-2:]
    return row[:, row.shape[1] - rows * cols :].unflatten(-1, (rows, cols))


def _by_token(explanation: Explanation) -> torch.Tensor:
    assert explanation.head_maps is not None
    assert explanation.prefix_contribution is not None
    return torch.cat([explanation.prefix_contribution, explanation.head_maps.flatten(-2)], dim=-1)
