"""Head weights that are given, by a shared report or by the user, instead of found by a backward."""

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from gmar_hf.errors import ArgumentError, ArgumentTypeError
from gmar_hf.explanation.head_scores import head_weights as shares_of_layer
from gmar_hf.models.introspection import encoder_shape
from gmar_hf.models.model_state import WHOLE, describe_state
from gmar_hf.models.weight_sample import same_weights, weight_sample
from gmar_hf.models.wrappers import class_name, config_of
from gmar_hf.utils.tensors import check_plain, described

if TYPE_CHECKING:
    from gmar_hf.report.head_importance_report import HeadImportanceReport

    HeadWeights = HeadImportanceReport | str | os.PathLike[str] | torch.Tensor


@dataclass(frozen=True)
class GivenWeights:
    """Head weights for the classes of a batch that are explained.

    Args:
        by_target (`torch.Tensor` of shape (targets, batch, layers, heads)): float32, on the CPU; rows sum to one.
        origin (`dict[str, Any]`): Where they come from, as plain JSON values: the entry `head_weights` of an
            explanation's settings.
    """

    by_target: torch.Tensor
    origin: dict[str, Any]


def open_report(
    report: "HeadImportanceReport | str | os.PathLike[str]", argument: str = "head_weights"
) -> "HeadImportanceReport":
    """Return a report, which may be given by its repo id or its folder.

    Args:
        report ([`HeadImportanceReport`], `str` or `os.PathLike`): What was given.
        argument (`str`, defaults to "head_weights"): What errors call it.

    Raises:
        ArgumentTypeError: If it is something else.
        ArtifactError, HubError: If the report cannot be loaded.
    """
    from gmar_hf.report.head_importance_report import HeadImportanceReport

    if isinstance(report, HeadImportanceReport):
        return report
    if not isinstance(report, str | os.PathLike):
        raise ArgumentTypeError(
            f"`{argument}` must be a HeadImportanceReport, its repo id or its folder; got "
            f"{type(report).__name__}. Make one with `gmar_hf.survey`."
        )
    return HeadImportanceReport.from_pretrained(os.fspath(report))


def check_head_weights(source: "HeadImportanceReport | torch.Tensor", model: nn.Module, batch: int) -> None:
    """Refuse head weights that are not of this model.

    Args:
        source ([`HeadImportanceReport`] or `torch.Tensor`): What was given, a report opened.
        model (`nn.Module`): What is explained.
        batch (`int`): Number of images.

    Raises:
        ArgumentError: If a report's architecture, number of layers, heads or classes, weights, silenced heads or
            adapters differ from the model's; if a tensor's shape does not fit, or its numbers are negative, not finite
            or all zero in a layer.
        ArgumentTypeError: If a tensor is not of real numbers, or not dense.
    """
    if isinstance(source, torch.Tensor):
        _check_tensor(source, model, batch)
    else:
        check_report("head_weights", source, model)


def weights_of_targets(
    source: "HeadImportanceReport | torch.Tensor", norm: str, targets: list[torch.Tensor] | list[None], batch: int
) -> GivenWeights:
    """Look up the head weights for the classes that are explained.

    Args:
        source ([`HeadImportanceReport`] or `torch.Tensor`): A report, or weights (layers, heads) or (batch, layers,
            heads).
        norm (`str`): "l1" or "l2", the norm whose weights a report is asked for.
        targets (`list`): The classes (batch,) of each target; None for one that is no class, which gets the weights
            of all images.
        batch (`int`): Number of images.
    """
    if isinstance(source, torch.Tensor):
        shares = shares_of_layer(_relative(source)).float().expand(batch, *source.shape[-2:])
        return GivenWeights(torch.stack([shares] * len(targets)), {"tensor": described(source)})
    # A class that the report saw too few images of falls back to the weights of all images.
    weights_of_all = source.mean[f"{norm}_weight"].float()
    by_target, fallback = [], set()
    for classes in targets:
        if classes is None:
            by_target.append(weights_of_all.expand(batch, *weights_of_all.shape))
            continue
        weights, is_own = source.class_weights(classes.cpu(), norm)
        by_target.append(weights)
        fallback.update(classes.cpu()[~is_own].tolist())
    origin = {
        "model": source.settings["model"]["id"],
        "datasets": [
            [dataset["id"], dataset["split"], dataset["fingerprint"]] for dataset in source.settings["datasets"]
        ],
        "num_images": source.num_images,
        "all_images_for": None if targets[0] is None else sorted(fallback),
    }
    return GivenWeights(torch.stack(by_target), origin)


def check_report(argument: str, report: "HeadImportanceReport", model: nn.Module) -> None:
    """Refuse a report that is not of this model.

    Args:
        argument (`str`): What errors call it.
        report ([`HeadImportanceReport`]): What was given, opened.
        model (`nn.Module`): What is explained.

    Raises:
        ArgumentError: If architecture, number of layers, heads or classes, weights, silenced heads or adapters differ.
    """
    surveyed = report.settings["model"]
    known_as = f"{surveyed['class']} {surveyed['id']!r}"
    advice = "Survey this model with `gmar_hf.survey`" + (
        ", or leave `head_weights` out." if argument == "head_weights" else "."
    )
    if surveyed["class"] != class_name(model):
        raise ArgumentError(f"`{argument}` must be of a {class_name(model)}; got those of {known_as}. {advice}")
    # The class fits; now heads, and then the weights themselves.
    expected, shape = encoder_shape(model), tuple(report.mean["l1"].shape)
    if shape != expected:
        raise ArgumentError(
            f"`{argument}` must be of {expected[0]} layers of {expected[1]} heads; got those of {known_as}, "
            f"{shape[0]} of {shape[1]}. {advice}"
        )
    surveyed_state, state = surveyed.get("state"), describe_state(model)
    if surveyed_state != state:
        raise ArgumentError(
            f"`{argument}` must be of the model as it is now, with {state or WHOLE}; got those of {known_as} with "
            f"{surveyed_state or WHOLE}. {advice.replace('this model', 'the model in this state')}"
        )
    if not same_weights(report.weight_sample, weight_sample(model)):
        name = getattr(config_of(model), "_name_or_path", "") or "this one"
        raise ArgumentError(
            f"`{argument}` must be of the model that is explained, {name!r}; got those of {known_as}, "
            f"whose weights are others. {advice}"
        )


def _relative(weights: torch.Tensor) -> torch.Tensor:
    """Divide weights (..., heads) by the largest of their layer, in float64: no sum of them is beyond any float."""
    weights = weights.detach().cpu().double()
    return weights / weights.amax(dim=-1, keepdim=True)


def _check_tensor(weights: torch.Tensor, model: nn.Module, batch: int) -> None:
    check_plain("head_weights", weights)
    layers, heads = encoder_shape(model)
    if tuple(weights.shape) not in ((layers, heads), (batch, layers, heads)):
        raise ArgumentError(
            f"`head_weights` must be of shape ({layers}, {heads}), or ({batch}, {layers}, {heads}) for the images one "
            f"by one; got {tuple(weights.shape)}."
        )
    values = weights.detach().cpu().double()
    if not values.isfinite().all() or values.min() < 0 or not (values.amax(dim=-1) > 0).all():
        raise ArgumentError(
            "`head_weights` must be finite and not negative, with some head above 0 in every layer; got others. "
            "They are divided by their sum in each layer."
        )
