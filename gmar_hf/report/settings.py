"""What a head-importance report says of its making: which entries it must have, and how those of two surveys join.

The entries are a table rather than dataclasses: errors name the place of what is wrong (`model.labels[3]`), and
whatever else somebody keeps in config.json comes back as it was.
"""

import json
from collections.abc import Mapping
from typing import Any

import torch

from gmar_hf.errors import ArgumentError
from gmar_hf.report.head_means import HeadMeans
from gmar_hf.report.moments import Moments
from gmar_hf.report.statistics import KEYS, OUTCOMES
from gmar_hf.report.top_images import merge_top_images
from gmar_hf.report.traits import HeadTraits
from gmar_hf.utils.plain_json import COUNT, FLAG, NUMBER, TEXT, check_json

MAX_UNREADABLE = 1000  # as many are named

SURVEY_SETTINGS = ("batch_size", "limit", "shuffle_seed", "until_stable", "max_unreadable")

_COUNTS = ("num_images", "num_explanations", "num_correct", "num_wrong", "num_unlabelled", "num_unreadable")
_SCHEMA: dict[str, Any] = {
    "model": {
        "id": TEXT,
        "is_local": FLAG,
        "revision": (TEXT, None),
        "commit": (TEXT, None),
        "class": TEXT,
        "num_layers": COUNT,
        "num_heads": COUNT,
        "labels": [TEXT],
        "dtype": TEXT,
        "attention": TEXT,
    },
    "datasets": [
        {
            "id": TEXT,
            "is_local": FLAG,
            "revision": (TEXT, None),
            "split": (TEXT, None),
            "num_images": (COUNT, None),
            "fingerprint": TEXT,
        }
    ],
    "target": TEXT,
    "survey": dict.fromkeys(SURVEY_SETTINGS, (NUMBER, None)),
    "counts": dict.fromkeys(_COUNTS, COUNT),
    "unreadable": [{"image": TEXT, "reason": TEXT}],
    "stability": ({"tolerance": NUMBER, "reached": FLAG, "num_images": COUNT}, None),
    "license": (TEXT, None),
    "versions": {},
    "date": TEXT,
}

# Entries of surveys that looked for more, or were made before there were such entries; reports may lack them.
_OPTIONAL: dict[str, Any] = {
    "reading_of_labels": (TEXT, None),
    "traits": ({"keys": [TEXT], "undefined": (TEXT, None)}, None),
    "top_images": ({"k": COUNT, "heads": [[[{"image": TEXT, "class": COUNT, "contribution": NUMBER}]]]}, None),
}


def plain_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of the settings, as it would come back from a file.

    Args:
        settings (`Mapping[str, Any]`): The settings of a report.

    Raises:
        ArgumentError: If they hold more than plain JSON values, or an entry is missing or of the wrong kind.
    """
    try:
        copied = json.loads(json.dumps(dict(settings), allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise ArgumentError(f"`settings` must hold plain JSON values; got others ({error}).") from error
    check_json("settings", copied, _SCHEMA)
    for key, kind in _OPTIONAL.items():
        check_json("settings", copied.get(key), kind, key)
    _check_top_images(copied)
    if copied["target"] not in ("predicted", "label"):
        raise ArgumentError(
            f'`settings` must have "predicted" or "label" as \'target\'; got {copied["target"]!r:.80}.'
        )
    if not copied["datasets"]:
        raise ArgumentError("`settings` must name at least one data set in 'datasets'; got none.")
    for name, version in copied["versions"].items():
        check_json("settings", version, TEXT, f"versions.{name:.40}")
    return copied


def _check_top_images(settings: Mapping[str, Any]) -> None:
    """Refuse images of other heads or classes than the model has."""
    top, model = settings.get("top_images"), settings["model"]
    if top is None:
        return
    shape = [len(layer) for layer in top["heads"]]
    classes = [entry["class"] for layer in top["heads"] for head in layer for entry in head]
    if shape != [model["num_heads"]] * model["num_layers"] or max(classes, default=-1) >= len(model["labels"]):
        raise ArgumentError("`settings` must have 'top_images' of the model's heads and classes; got others.")


def check_moments(settings: Mapping[str, Any], moments: Moments) -> None:
    """Refuse numbers that cannot be those that the settings tell of.

    Args:
        settings (`Mapping[str, Any]`): What [`plain_settings`] returns.
        moments ([`Moments`]): The moments of every class and outcome.

    Raises:
        ArgumentError: If shapes or counts do not fit, numbers are not finite, or there are none.
    """
    model, counts = settings["model"], settings["counts"]
    shape = (len(KEYS), model["num_layers"], model["num_heads"])
    groups = len(model["labels"]) * len(OUTCOMES)
    if (moments.num_groups, moments.shape) != (groups, shape) or 0 in shape:
        raise ArgumentError(
            f"`moments` must have {groups} groups (classes times outcomes) of shape {shape} (scores, layers, heads); "
            f"got {moments.num_groups} of {moments.shape}."
        )
    total = int(moments.count.sum())
    if total == 0 or total != counts["num_explanations"]:
        raise ArgumentError(
            f"`moments` must be of the {counts['num_explanations']} explanations that `settings` count, at least one; "
            f"got {total}."
        )
    outcomes = counts["num_correct"] + counts["num_wrong"]
    if settings["target"] == "predicted":  # an image without a label has no target "label", and is passed over
        outcomes += counts["num_unlabelled"]
    if not 1 <= counts["num_images"] == outcomes or counts["num_images"] > total:
        raise ArgumentError(
            "`settings` must count each explained image once by outcome, and at least one explanation of it; got "
            f"{counts}."
        )
    if len(settings["unreadable"]) > counts["num_unreadable"]:
        raise ArgumentError(
            f"`settings` must name at most the {counts['num_unreadable']} unreadable images they count; got "
            f"{len(settings['unreadable'])}."
        )
    members = moments.count.nonzero().flatten()
    if not (torch.isfinite(moments.mean[members]).all() and torch.isfinite(moments.squares[members]).all()):
        raise ArgumentError("`moments` must be finite; got NaN or infinity.")


def check_heads(settings: Mapping[str, Any], means: HeadMeans | None, traits: HeadTraits | None) -> None:
    """Refuse means or traits of other heads or explanations than the settings tell of.

    Args:
        settings (`Mapping[str, Any]`): What [`plain_settings`] returns.
        means ([`HeadMeans`], *optional*), traits ([`HeadTraits`], *optional*): None fits any settings.

    Raises:
        ArgumentError: If layers, heads or the number of explanations differ.
    """
    found = {}
    if means is not None:
        found["means"] = (*means.output.shape[:2], means.count)
    if traits is not None:
        found["traits"] = (*traits.moments.shape[1:], int(traits.moments.count))
    wanted = (settings["model"]["num_layers"], settings["model"]["num_heads"], settings["counts"]["num_explanations"])
    for name, given in found.items():
        if given != wanted:
            raise ArgumentError(
                f"`{name}` must be of {wanted[0]} layers of {wanted[1]} heads and {wanted[2]} explanations; got "
                f"{given[0]} of {given[1]} and {given[2]}."
            )


def check_joinable(settings: Mapping[str, Any], other: Mapping[str, Any]) -> None:
    """Refuse a second report, `other`, that is of another model, target or labels, or of the very same data.

    Args:
        settings, other (`Mapping[str, Any]`): The settings of both reports.

    Raises:
        ArgumentError: If the second report cannot be joined to the first.
    """
    for what, key in (("class", "class"), ("number of layers", "num_layers"), ("number of heads", "num_heads")):
        wanted, given = settings["model"][key], other["model"][key]
        if wanted != given:
            raise ArgumentError(f"`other` must be of the same model; got another {what}, {given!r} for {wanted!r}.")
    if settings["model"]["labels"] != other["model"]["labels"]:
        raise ArgumentError("`other` must be of the same model; got one with other labels.")
    if settings["target"] != other["target"]:
        raise ArgumentError(f"`other` must have the target {settings['target']!r}; got {other['target']!r}.")
    known = {(dataset["fingerprint"], dataset["split"]) for dataset in settings["datasets"]}
    for dataset in other["datasets"]:
        if (dataset["fingerprint"], dataset["split"]) in known:
            raise ArgumentError(
                f"`other` must be of other images; got {dataset['id']!r} (split {dataset['split']!r}) in both, "
                "whose images would count twice. Survey what is missing."
            )


def join_settings(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of two surveys of one model as those of one.

    Args:
        first, second (`Mapping[str, Any]`): The settings of both, which [`check_joinable`] accepts.

    Returns:
        `dict[str, Any]`: Counts are summed and data sets listed one after the other; what differs otherwise becomes
        None, or both in words where it is text that must be there.
    """
    hosted = second["model"] if first["model"]["is_local"] else first["model"]  # an id that strangers can load
    readings = [settings["reading_of_labels"] for settings in (first, second) if settings.get("reading_of_labels")]
    top_images = merge_top_images([first.get("top_images"), second.get("top_images")])
    return {
        **{key: value for key, value in first.items() if key not in _OPTIONAL},
        "model": {
            **hosted,
            **{key: _both(first["model"][key], second["model"][key]) for key in ("dtype", "attention")},
        },
        "datasets": first["datasets"] + second["datasets"],
        "survey": {
            key: value if second["survey"].get(key) == value else None for key, value in first["survey"].items()
        },
        "counts": {key: count + second["counts"].get(key, 0) for key, count in first["counts"].items()},
        "unreadable": (first["unreadable"] + second["unreadable"])[:MAX_UNREADABLE],
        "stability": None,  # each was about its own images
        "license": first["license"] if first["license"] == second["license"] else None,
        "versions": {
            name: _both(*(settings["versions"][name] for settings in (first, second) if name in settings["versions"]))
            for name in first["versions"] | second["versions"]
        },
        "date": max(first["date"], second["date"]),
        **({} if top_images is None else {"top_images": top_images}),
        **({} if len(readings) < 2 else {"reading_of_labels": _both(*readings)}),
    }


def _both(*texts: str) -> str:
    return " and ".join(dict.fromkeys(texts))
