"""Contributions of heads less those of their mean outputs over other images."""

import os
from typing import Any

import torch
from torch import nn

from gmar_hf.errors import ArgumentError
from gmar_hf.explanation.backward import go_back
from gmar_hf.explanation.finiteness import check_encoder_gradients
from gmar_hf.explanation.head_scores import head_contribution
from gmar_hf.explanation.head_weights import check_report, open_report
from gmar_hf.explanation.layer import LayerGradients
from gmar_hf.explanation.trace import Trace, traced
from gmar_hf.models.freezing import full_precision
from gmar_hf.models.model_check import checked_model
from gmar_hf.models.model_inputs import check_known_kwargs, checked_pixels, usable_kwargs
from gmar_hf.models.refusals import unsupported
from gmar_hf.models.targets import Target, choose_target
from gmar_hf.models.windows import has_stages
from gmar_hf.models.wrappers import class_name
from gmar_hf.report.head_importance_report import HeadImportanceReport
from gmar_hf.report.head_means import HeadMeans
from gmar_hf.utils.blame import blaming
from gmar_hf.utils.tensors import at_least_float32


def centred_head_contribution(
    model: nn.Module,
    pixel_values: torch.Tensor,
    target: Target = None,
    *,
    reference: HeadImportanceReport | HeadMeans | str | os.PathLike[str] | torch.Tensor,
    **model_kwargs: Any,
) -> torch.Tensor:
    """Return what replacing each head's output by its mean over other images takes from the logit, to first order.

    With `O` the head's output, `g` the logit's gradient by it and `mu` the mean of `O` over the reference, it is
    `<O - mu, g>`: what the head adds beyond its habit. `head_contribution_centred` of an [`Explanation`] takes the
    image's own tokens for the reference; `metrics.head_ablation(ablation="mean")` measures what this foretells.

    Args:
        model (`nn.Module`): An image classifier of transformers, or one wrapped by PEFT; it is left as it was.
        pixel_values (`torch.Tensor` of shape (batch, channels, height, width)): What the image processor makes.
        target: Which logit is explained, as [`explain`] takes it; None for the predicted class.
        reference ([`HeadImportanceReport`], its repo id or folder, its `means`, or `torch.Tensor`): Where the mean
            outputs come from: a report of this model, which keeps one for every prefix token and one for all patches
            together; or pixel values (images, channels, height, width) of reference images of the same size, whose
            mean is taken for every token by itself. It may be `pixel_values` again, if those are several images.
        **model_kwargs: Handed to the model, such as `interpolate_pos_encoding=True`.

    Returns:
        `torch.Tensor` of shape (batch, [targets,] layers, heads): Signed, in logits; float32, on the device of
            `pixel_values`.

    Raises:
        ArgumentError, ArgumentTypeError, NonFiniteError: If something cannot be used.
        ArtifactError, HubError: If the report cannot be loaded.
        UnsupportedModelError: If the model cannot be explained.

    Example:
        >>> import gmar_hf, gmar_hf.demo
        >>> model, image_processor = gmar_hf.demo.load("vit")
        >>> scenes = [scene["image"] for scene in gmar_hf.demo.scenes(4)]
        >>> pixel_values = image_processor(scenes, return_tensors="pt")["pixel_values"]
        >>> gmar_hf.centred_head_contribution(model, pixel_values, reference=pixel_values).shape
        torch.Size([4, 6, 8])
    """
    model = checked_model(model)
    if has_stages(model):
        raise unsupported(model, "its layers stand in stages, each on a map of its own")
    check_known_kwargs(model, model_kwargs)
    pixels, kwargs = checked_pixels(model, pixel_values), usable_kwargs(model_kwargs)
    if isinstance(reference, torch.Tensor):
        means: torch.Tensor | HeadMeans = _mean_outputs(model, reference, pixels, kwargs)
    else:
        means = reference if isinstance(reference, HeadMeans) else _stored_means(reference, model)
    with traced(model, pixels, "output", kwargs) as trace:
        num_tokens = trace.outputs[0].shape[2]
        mu = means.at_tokens(num_tokens).float() if isinstance(means, HeadMeans) else means
        if mu.shape[2] != num_tokens:
            raise ArgumentError(
                f"`reference` must hold images of the same size as `pixel_values`; got {mu.shape[2]} tokens for "
                f"{num_tokens}."
            )
        choice = choose_target(target, trace.logits.clone())
        with full_precision(trace.hidden.device):
            by_score = [
                _centred(trace, score, mu, retain_graph=number < len(choice.scores))
                for number, score in enumerate(choice.scores, start=1)
            ]
    contributions = torch.stack(by_score, dim=1) if choice.has_axis else by_score[0]
    check_encoder_gradients(contributions)
    return contributions.to(pixel_values.device, torch.float32)


def _mean_outputs(
    model: nn.Module, reference: torch.Tensor, explained: torch.Tensor, kwargs: dict[str, Any]
) -> torch.Tensor:
    """The heads' outputs (layers, heads, tokens, head_dim), mean over the reference images."""

    def means_of(pixels: torch.Tensor) -> torch.Tensor:
        with traced(model, pixels, "head", kwargs) as trace, torch.no_grad():
            return torch.stack([at_least_float32(call.compute_output()).mean(dim=0).cpu() for call in trace.layers])

    pixels = checked_pixels(model, reference, "reference")
    if len(pixels) < 2:
        raise ArgumentError(
            "`reference` must hold several images (the mean of one is its own output); got one. "
            "Pass more, or a report."
        )
    with blaming(
        lambda: (
            f"`reference` must hold images that {class_name(model)} can compute with, as `pixel_values` are; got "
            f"shape {tuple(pixels.shape)} with values up to {pixels.abs().max():.3g}. "
            "Make them with the image processor."
        ),
        without=lambda: means_of(explained),
    ):
        return means_of(pixels)


def _stored_means(reference: HeadImportanceReport | str | os.PathLike[str], model: nn.Module) -> HeadMeans:
    report = open_report(reference, "reference")
    check_report("reference", report, model)
    if report.means is None:
        raise ArgumentError(
            "`reference` must be a report that holds the heads' mean outputs; got one of an older version, which does "
            "not. Make it again with `gmar_hf.survey`, or pass pixel values."
        )
    return report.means


def _centred(trace: Trace, score: torch.Tensor, means: torch.Tensor, *, retain_graph: bool) -> torch.Tensor:
    """The centred contributions (batch, layers, heads) for one explained logit (batch,)."""
    head_gradient = trace.head_gradient(score)
    by_layer: dict[int, torch.Tensor] = {}

    def visit(layer: LayerGradients) -> None:
        assert layer.output is not None
        assert layer.output_grad is not None
        output = at_least_float32(layer.output)
        beyond_habit = output - means[layer.index].to(output)
        by_layer[layer.index] = head_contribution(beyond_habit, layer.output_grad) * layer.gradient_size

    go_back(trace, head_gradient, [visit], retain_graph=retain_graph)
    device = by_layer[0].device
    return torch.stack([by_layer[index].to(device) for index in sorted(by_layer)], dim=1)
