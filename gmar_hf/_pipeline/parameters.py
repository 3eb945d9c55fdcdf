"""What the pipeline can be told: parameters of the constructor and of a call, checked and sorted."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from transformers.pipelines.image_classification import ClassificationFunction

from gmar_hf.errors import ArgumentError, ArgumentTypeError
from gmar_hf.explanation.head_weights import open_report
from gmar_hf.explanation.request import Request, requests_of
from gmar_hf.models.labels import find_label
from gmar_hf.plotting.painting import OVERLAY_STYLES
from gmar_hf.utils.checks import check_choice, check_flags, check_number, check_whole
from gmar_hf.utils.text import did_you_mean

# A pipeline always makes the map and reads the logits, and its head weights are a report.
_NOT_OFFERED = ("return_maps", "return_logits", "has_head_weights")
_OF_REQUEST = [field.name for field in fields(Request) if field.name not in _NOT_OFFERED]
_OF_FORWARD = [*_OF_REQUEST, "head_weights", "interpolate_pos_encoding"]
_OF_PREPROCESS = ["timeout", "return_overlay"]
_OF_POSTPROCESS = [
    "return_overlay", "overlay_style", "overlay_grid", "overlay_caption", "return_heatmap", "return_explanation",
]  # fmt: skip
_FLAGS = [name for name in _OF_POSTPROCESS if name not in ("overlay_style", "function_to_apply")]
_KNOWN = [
    "top_k", "target", "versus", "candidate_labels", "hypothesis_template", *_OF_FORWARD, "function_to_apply",
    *_OF_POSTPROCESS, "timeout", "batch_size", "num_workers",
]  # fmt: skip


def sort_parameters(
    parameters: dict[str, Any], before: Mapping[str, Any], id2label: Mapping[int, str]
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Check the parameters that were given, and sort them by the step that takes them.

    Args:
        parameters (`dict[str, Any]`): Those of the constructor, or of a call.
        before (`Mapping[str, Any]`): The forward's parameters that hold already, which the given ones replace.
        id2label (`Mapping[int, str]`): The model's labels.

    Returns:
        Three dicts, of the parameters given only: for `preprocess`, `_forward` and `postprocess`.

    Raises:
        ArgumentError: If a value cannot be used, alone or beside the others.
        ArgumentTypeError: If there is no such parameter.
    """
    unknown = sorted(set(parameters) - set(_KNOWN))
    if unknown:
        hint = did_you_mean(unknown[0], _KNOWN)
        raise ArgumentTypeError(
            f"`{unknown[0]}` is not a parameter of this pipeline. There are: {', '.join(_KNOWN)}.{hint}"
        )
    given = dict(parameters)
    if given.get("head_weights") is not None:
        given["head_weights"] = open_report(given["head_weights"])  # once, and not for every batch
    # Making requests checks what belongs to them; an option may go with a method that the constructor was given.
    merged = {**before, **given}
    make_requests(merged)
    preprocess = {name: given[name] for name in _OF_PREPROCESS if name in given}
    forward = _choice(given, before, id2label)
    forward.update((name, given[name]) for name in _OF_FORWARD if name in given)
    postprocess = {name: given[name] for name in _OF_POSTPROCESS if name in given}
    check_flags(**{name: given[name] for name in _FLAGS if name in given})
    check_flags(**{name: given[name] for name in ["interpolate_pos_encoding"] if given.get(name) is not None})
    if given.get("timeout") is not None:
        check_number("timeout", given["timeout"], above=0, unit="seconds")
    if "overlay_style" in given:
        check_choice("overlay_style", given["overlay_style"], OVERLAY_STYLES)
    if "function_to_apply" in given:
        postprocess["function_to_apply"] = _function(given["function_to_apply"])
    return preprocess, forward, postprocess


def check_batching(parameters: Mapping[str, Any]) -> None:
    """Refuse numbers of images at once, and of workers, that are none; transformers takes these two for itself.

    Raises:
        ArgumentError: If one is wrong.
    """
    if parameters.get("batch_size") is not None:
        check_whole("batch_size", parameters["batch_size"], minimum=1)
    if parameters.get("num_workers") is not None:
        check_whole("num_workers", parameters["num_workers"])


def make_requests(parameters: Mapping[str, Any]) -> list[Request]:
    """Make the requests that the forward's parameters ask for, one a method.

    Args:
        parameters (`Mapping[str, Any]`): By name; those of other steps are passed over.

    Raises:
        ArgumentError: If a value cannot be used, alone or beside the others.
    """
    of_request = {name: parameters[name] for name in _OF_REQUEST if name in parameters}
    has_head_weights = parameters.get("head_weights") is not None
    return requests_of(of_request.pop("method", "gmar"), has_head_weights=has_head_weights, **of_request)


def _choice(given: dict[str, Any], before: Mapping[str, Any], labels: Mapping[int, str]) -> dict[str, Any]:
    """Turn `top_k`, `target` and `versus` into class indices; None takes back what the constructor was given."""
    top_k, target, versus = (_plain(given.get(name)) for name in ("top_k", "target", "versus"))
    if top_k is not None and target is not None:
        raise ArgumentError("`top_k` must not be given together with `target` (which says what to explain). Drop one.")
    choice: dict[str, Any] = {name: None for name in ("top_k", "target", "versus") if name in given}
    if top_k is not None:
        # Of more than there are classes all are explained: a call may name more than the constructor did.
        choice.update(top_k=check_whole("top_k", top_k, minimum=1), target=None, versus=None)
    if target is not None:
        choice.update(top_k=None, target=_indices(target, labels))
    if versus is not None:
        choice["versus"] = find_label(versus, labels, "versus")
    # `versus` may stand beside a target that the constructor was given, and the other way round.
    merged = {**before, **choice}
    against = merged.get("versus")
    if against is not None and merged.get("target") is None:
        raise ArgumentError("`versus` must come with `target`: why that label and not this one. Pass `target` too.")
    if against is not None and against in merged["target"]:
        raise ArgumentError(f"`versus` must be another class than `target`; got {labels[against]!r} for both.")
    return choice


def _plain(value: Any) -> Any:
    """Return numbers of an array or a tensor as Python's."""
    return value.tolist() if isinstance(value, torch.Tensor | np.ndarray | np.generic) else value


def _indices(target: Any, labels: Mapping[int, str]) -> list[int]:
    targets = target if isinstance(target, list | tuple) else [target]
    if not targets:
        raise ArgumentError("`target` must name at least one label or index; got an empty list.")
    indices = [find_label(_plain(name), labels) for name in targets]
    for place, index in enumerate(indices):
        if index in indices[:place]:
            raise ArgumentError(f"`target` must name each class once; got {labels[index]!r:.80} twice. Drop one.")
    return indices


def _function(name: Any) -> ClassificationFunction | None:
    if name is None or name == "default":
        return None
    name = name.lower() if isinstance(name, str) else name
    check_choice(
        "function_to_apply", name, [function.value for function in ClassificationFunction], otherwise="or None"
    )
    return ClassificationFunction(name)
