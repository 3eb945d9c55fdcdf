"""All scores of all heads of a batch, by one forward and one backward for each target."""

from dataclasses import dataclass

import torch
from torch import nn

from gmar_hf.explanation.backward import go_back
from gmar_hf.explanation.finiteness import check_encoder_gradients
from gmar_hf.explanation.head_description import describe_heads
from gmar_hf.explanation.head_scores import head_weights
from gmar_hf.explanation.layer import LayerGradients
from gmar_hf.explanation.trace import Trace, traced
from gmar_hf.models.freezing import full_precision
from gmar_hf.models.labels import check_label_names
from gmar_hf.models.model_check import checked_model
from gmar_hf.models.model_inputs import checked_pixels
from gmar_hf.models.patches import find_grid, patch_size, tokens_of
from gmar_hf.models.recorders import AttentionCall
from gmar_hf.models.targets import Target, choose_target
from gmar_hf.report.head_means import HeadMeans, by_position
from gmar_hf.report.moments import Moments
from gmar_hf.report.statistics import KEYS
from gmar_hf.report.traits import TRAITS, HeadTraits
from gmar_hf.utils.missing_heads import stack_layers
from gmar_hf.utils.tensors import at_least_float32


@dataclass(frozen=True)
class HeadScores:
    """What a survey keeps of a batch.

    Args:
        logits (`torch.Tensor` of shape (batch, classes)): The model's output.
        target (`torch.LongTensor` of shape (batch,) or (batch, targets)): The classes explained.
        values (`torch.Tensor` of shape (batch, [targets,] 6, layers, heads)): float32, in the order of `KEYS`.
        means ([`HeadMeans`]): Mean outputs of the heads and gradients by them, over the batch's explanations.
    """

    logits: torch.Tensor
    target: torch.Tensor
    values: torch.Tensor
    means: HeadMeans


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
    model = checked_model(model)
    pixels = checked_pixels(model, pixel_values)
    with traced(model, pixels, "output", {}) as trace:
        check_label_names(model, trace.logits.shape[1])
        choice = choose_target(target, trace.logits.clone())
        assert choice.target is not None
        height, width = pixels.shape[-2:]
        if trace.grid is None:
            prefix = find_grid((height, width), patch_size(model), tokens_of(trace.hidden).shape[1]).prefix
        else:  # in stages all tokens of a layer's map are patches, of which later layers have fewer
            prefix = max(_num_prefix(call, 0) for call in trace.layers)
        with full_precision(trace.hidden.device):
            scored = [
                _scored(trace, score, prefix, retain_graph=number < len(choice.scores))
                for number, score in enumerate(choice.scores, start=1)
            ]
    values, gradients = ([one[place] for one in scored] for place in range(2))
    stacked = torch.stack(values, dim=1) if choice.has_axis else values[0]
    # All targets of an image share its outputs.
    outputs = [
        _by_position(call, at_least_float32(output.detach()), prefix, is_mean=True)
        for call, output in zip(trace.layers, trace.outputs, strict=True)
    ]
    means = HeadMeans(
        count=len(pixels) * len(scored),
        output=_stacked([output.mean(dim=0) for output in outputs]).cpu().double(),
        gradient=torch.stack(gradients).cpu().double().mean(dim=0) / len(pixels),
    )
    return HeadScores(trace.logits.detach(), choice.target, stacked, means)


def traits_of(model: nn.Module, pixel_values: torch.Tensor, target: torch.Tensor) -> HeadTraits:
    """Describe the heads over a batch, as means over its explanations.

    Args:
        model (`nn.Module`): An image classifier of transformers.
        pixel_values (`torch.Tensor` of shape (batch, channels, height, width)): What the image processor made.
        target (`torch.LongTensor` of shape (batch,) or (batch, targets)): The classes explained.

    Raises:
        ArgumentError, NonFiniteError, UnsupportedModelError: As [`describe_heads`] does.
    """
    description = describe_heads(model, pixel_values, target)
    columns = target.reshape(len(target), -1).shape[1]
    by_key = {key: getattr(description, key) for key in TRAITS}
    values = {
        # One row an explanation: all targets of an image share what does not depend on them.
        key: value.flatten(0, 1)
        if key == "direct_effect" and target.ndim == 2
        else value.repeat_interleave(columns, 0)
        for key, value in by_key.items()
        if value is not None
    }
    stacked = torch.stack(list(values.values()), dim=1)
    moments = Moments.empty(1, tuple(stacked.shape[1:]))
    moments.add(stacked, torch.zeros(len(stacked), dtype=torch.int64))
    return HeadTraits(keys=tuple(values), moments=moments, undefined=description.undefined)


def _scored(
    trace: Trace, score: torch.Tensor, prefix: int, *, retain_graph: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Score the heads for one explained logit (batch,).

    Returns:
        The scores (batch, 6, layers, heads), NaN of heads that a layer lacks, and the sums over the batch of the
        gradients by the heads' outputs (layers, heads, positions, head_dim), zero of these.

    Raises:
        NonFiniteError: If a gradient was NaN or infinite.
    """
    head_gradient = trace.head_gradient(score)
    by_layer: dict[int, torch.Tensor] = {}
    gradients: dict[int, torch.Tensor] = {}

    def visit(layer: LayerGradients) -> None:
        l1, l2 = layer.gradient_norm("l1"), layer.gradient_norm("l2")
        assert layer.output_grad is not None
        assert layer.head_contribution is not None
        by_key = {
            "l1": l1 * layer.gradient_size,
            "l2": l2 * layer.gradient_size,
            "l1_weight": head_weights(l1),
            "l2_weight": head_weights(l2),
            "contribution": layer.head_contribution,
            "contribution_abs": layer.head_contribution.abs(),
        }
        by_layer[layer.index] = torch.stack([by_key[key] for key in KEYS], dim=1)
        by_head = _by_position(layer.call, layer.output_grad, prefix, is_mean=False)
        by_head = by_head * layer.gradient_size[:, :, None, None]
        gradients[layer.index] = by_head.sum(dim=0)

    go_back(trace, head_gradient, [visit], retain_graph=retain_graph)
    check_encoder_gradients(*by_layer.values())
    check_encoder_gradients(*gradients.values(), of_batch=False)
    order = sorted(by_layer)
    by_head = [by_layer[index].to(by_layer[0].device).transpose(1, 2) for index in order]  # (batch, heads, 6)
    return stack_layers(by_head).permute(0, 3, 1, 2), _stacked([gradients[index] for index in order])


def _num_prefix(call: AttentionCall, of_others: int) -> int:
    """Return how many tokens stand before the patches, of a layer in a stage; of others what is given."""
    return of_others if call.layout is None else call.layout.of_outputs.num_prefix


def _by_position(call: AttentionCall, by_token: torch.Tensor, prefix: int, *, is_mean: bool) -> torch.Tensor:
    """Gather outputs of a layer at the model's positions, see [`by_position`]: zeros at class tokens that it lacks."""
    own = _num_prefix(call, prefix)
    gathered = by_position(call.outputs_by_image(by_token), own, is_mean=is_mean)
    return nn.functional.pad(gathered, (0, 0, prefix - own, 0))


def _stacked(by_layer: list[torch.Tensor]) -> torch.Tensor:
    """Stack tensors (heads, positions, head_dim) of layers, with zeros for heads and numbers that one lacks.

    With a device map they live apart.
    """
    heads, _, size = (max(tensor.shape[axis] for tensor in by_layer) for axis in range(3))
    return torch.stack(
        [
            nn.functional.pad(tensor, (0, size - tensor.shape[2], 0, 0, 0, heads - tensor.shape[0]))
            for tensor in (tensor.to(by_layer[0].device) for tensor in by_layer)
        ]
    )
