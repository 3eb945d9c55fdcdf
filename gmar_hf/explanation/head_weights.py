"""Head weights that are given, by a shared report or by the user, instead of found by a backward."""

import os

import torch
from torch import nn

from gmar_hf.errors import ArgumentError, ArgumentTypeError
from gmar_hf.explanation.head_scores import head_weights as normalised
from gmar_hf.models.introspection import class_name, setting, unwrapped
from gmar_hf.models.weight_sample import same_weights, weight_sample
from gmar_hf.report.report import HeadImportanceReport

HeadWeights = HeadImportanceReport | str | os.PathLike[str] | torch.Tensor


def open_report(head_weights: HeadWeights) -> HeadImportanceReport:
    """The report itself.

    Args:
        head_weights ([`HeadImportanceReport`], `str` or `os.PathLike`): A report, its repo id or its folder.

    Raises:
        ArgumentTypeError: If it is something else.
        ArtifactError, HubError: If the report cannot be loaded.
    """
    if isinstance(head_weights, HeadImportanceReport):
        return head_weights
    if not isinstance(head_weights, str | os.PathLike):
        raise ArgumentTypeError(
            "`head_weights` must be a HeadImportanceReport, its repo id or its folder; got "
            f"{type(head_weights).__name__}. Make one with `gmar_hf.survey`."
        )
    return HeadImportanceReport.from_pretrained(os.fspath(head_weights))


def check_same_model(report: HeadImportanceReport, model: nn.Module) -> None:
    """Raise if the report is not of this model.

    Args:
        report ([`HeadImportanceReport`]): Whose head weights are wanted.
        model (`nn.Module`): What is explained.

    Raises:
        ArgumentError: If architecture, number of layers, heads or classes, or weights differ.
    """
    surveyed = report.settings["model"]
    known_as = f"{surveyed['class']} {surveyed['id']!r}"
    advice = "Survey this model with `gmar_hf.survey`, or leave `head_weights` out."
    if surveyed["class"] != class_name(model):
        raise ArgumentError(f"`head_weights` must be of a {class_name(model)}; got those of {known_as}. {advice}")
    config = getattr(unwrapped(model), "config", None)
    own_shape = tuple(setting(config, name) for name in ("num_hidden_layers", "num_attention_heads"))
    shape = tuple(report.mean["l1"].shape)
    if shape != own_shape:
        raise ArgumentError(
            f"`head_weights` must be of {own_shape[0]} layers of {own_shape[1]} heads; got those of {known_as}, "
            f"{shape[0]} of {shape[1]}. {advice}"
        )
    if not same_weights(report.weight_sample, weight_sample(model)):
        own_name = getattr(config, "_name_or_path", "") or "this one"
        raise ArgumentError(
            f"`head_weights` must be of the model that is explained, {own_name!r}; got those of {known_as}, "
            f"whose weights are others. {advice}"
        )


def check_weights(weights: torch.Tensor, model: nn.Module, batch: int) -> None:
    """Raise if these are no head weights for a batch of this model.

    Args:
        weights (`torch.Tensor`): As the user gave them.
        model (`nn.Module`): What is explained.
        batch (`int`): Number of images.

    Raises:
        ArgumentError: If the shape does not fit, or they are negative, not finite or all zero in a layer.
    """
    config = getattr(unwrapped(model), "config", None)
    layers, heads = (setting(config, name) for name in ("num_hidden_layers", "num_attention_heads"))
    if tuple(weights.shape) not in ((layers, heads), (batch, layers, heads)):
        raise ArgumentError(
            f"`head_weights` must be of shape ({layers}, {heads}), or ({batch}, {layers}, {heads}) for the images one "
            f"by one; got {tuple(weights.shape)}."
        )
    values = weights.detach().double()
    if not values.isfinite().all() or values.min() < 0 or not (values.sum(dim=-1) > 0).all():
        raise ArgumentError(
            "`head_weights` must be finite and not negative, with some head above 0 in every layer; got others. "
            "They are divided by their sum in each layer."
        )


def shared_weights(
    report: HeadImportanceReport | torch.Tensor, norm: str, classes: torch.Tensor | None, batch: int
) -> torch.Tensor:
    """Head weights (batch, layers, heads) for the explained classes.

    Args:
        report ([`HeadImportanceReport`] or `torch.Tensor`): Where they come from, or the weights (layers, heads) or
            (batch, layers, heads) themselves.
        norm (`str`): "l1" or "l2".
        classes (`torch.Tensor` of shape (batch,), *optional*): None for the weights of all images.
        batch (`int`): Number of images.

    Returns:
        `torch.Tensor`: float32, on the CPU; rows sum to one.
    """
    if isinstance(report, torch.Tensor):
        return normalised(report.detach().float().cpu()).expand(batch, *report.shape[-2:])
    if classes is None:
        weights = report.mean[f"{norm}_weight"].float()
        return weights.expand(batch, *weights.shape)
    return report.class_weights(classes.cpu(), norm)[0]
