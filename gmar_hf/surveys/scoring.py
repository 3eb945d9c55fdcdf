"""All scores of all heads of a batch, by one forward and one backward for each target."""

from dataclasses import dataclass

import torch
from torch import nn

from gmar_hf.explanation.finiteness import check_encoder_gradients
from gmar_hf.explanation.head_scores import head_contribution, head_weights, l1_norm, l2_norm
from gmar_hf.explanation.trace import Trace, traced
from gmar_hf.models.freezing import full_precision
from gmar_hf.models.introspection import check_model
from gmar_hf.models.model_inputs import checked_pixels
from gmar_hf.models.targets import Target, choose_target
from gmar_hf.report.statistics import KEYS


@dataclass(frozen=True)
class HeadScores:
    """What a survey keeps of a batch.

    Args:
        logits (`torch.Tensor` of shape (batch, classes)): The model's output.
        target (`torch.LongTensor` of shape (batch,) or (batch, targets)): The classes explained.
        values (`torch.Tensor` of shape (batch, [targets,] 6, layers, heads)): float32, in the order of `KEYS`.
    """

    logits: torch.Tensor
    target: torch.Tensor
    values: torch.Tensor


def score_heads(model: nn.Module, pixel_values: torch.Tensor, target: Target = None) -> HeadScores:
    """Score every head for every target: norms of the attention's gradient, shares of their layer, contributions.

    Args:
        model (`nn.Module`): An image classifier of transformers.
        pixel_values (`torch.Tensor` of shape (batch, channels, height, width)): What the image processor made.
        target: The classes, (batch,) or (batch, targets) ints; None for the predicted ones.

    Raises:
        ArgumentError, ArgumentTypeError: If an argument cannot be used.
        NonFiniteError: If logits or gradients are NaN or infinite.
        UnsupportedModelError: If the model cannot be explained.
    """
    check_model(model)
    with traced(model, checked_pixels(model, pixel_values), "output", {}) as trace:
        choice = choose_target(target, trace.logits.clone())
        assert choice.target is not None
        with full_precision(trace.hidden.device):
            values = [
                _scored(trace, score, retain_graph=number < len(choice.scores))
                for number, score in enumerate(choice.scores, start=1)
            ]
    stacked = torch.stack(values, dim=1) if choice.has_axis else values[0]
    check_encoder_gradients(stacked)
    return HeadScores(trace.logits.detach(), choice.target, stacked)


def _scored(trace: Trace, score: torch.Tensor, *, retain_graph: bool) -> torch.Tensor:
    """The scores (batch, 6, layers, heads) of one explained logit (batch,)."""
    relative, size = trace.head_gradient(score)
    by_layer: dict[int, torch.Tensor] = {}

    def visit(index: int, output_grad: torch.Tensor, value_grad: torch.Tensor | None) -> None:
        value, factor = trace.layers[index].value.detach(), size.to(output_grad.device)
        l1, l2 = l1_norm(output_grad, value), l2_norm(output_grad, value)
        contribution = head_contribution(trace.outputs[index].detach(), output_grad) * factor
        by_key = {
            "l1": l1 * factor,
            "l2": l2 * factor,
            "l1_weight": head_weights(l1),
            "l2_weight": head_weights(l2),
            "contribution": contribution,
            "contribution_abs": contribution.abs(),
        }
        by_layer[index] = torch.stack([by_key[key] for key in KEYS], dim=1)

    trace.backward(relative, visit, retain_graph=retain_graph)
    device = by_layer[0].device
    return torch.stack([by_layer[index].to(device) for index in sorted(by_layer)], dim=2)
