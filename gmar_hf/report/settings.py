"""What a head-importance report says of its making: which entries it must have.

The entries are a table rather than dataclasses: errors name the place of what is wrong (`model.labels[3]`), and
whatever else somebody keeps in config.json comes back as it was.
"""

from collections.abc import Mapping
from typing import Any

import torch

from gmar_hf.errors import ArgumentError
from gmar_hf.report.head_means import HeadMeans
from gmar_hf.report.moments import Moments
from gmar_hf.report.statistics import KEYS, OUTCOMES
from gmar_hf.report.traits import HeadTraits
from gmar_hf.utils.missing_heads import mask_of_heads
from gmar_hf.utils.plain_json import COUNT, FLAG, NUMBER, TEXT, check_json, plain_copy
from gmar_hf.utils.text import printable

MAX_UNREADABLE = 1000  # as many are named
_NAMED_PARTS = 20
_NUM_NAMED = 3  # unreadable images, where a line has to do

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
OPTIONAL_SETTINGS: dict[str, Any] = {
    "reading_of_labels": (TEXT, None),
    "image_processor": (TEXT, None),  # a digest
    "image_processing": ({}, None),  # the same, to be read: by the processor's names for its settings
    "traits": ({"keys": [TEXT], "undefined": (TEXT, None)}, None),
    "top_images": ({"k": COUNT, "heads": [[[{"image": TEXT, "class": COUNT, "contribution": NUMBER}]]]}, None),
}

# What is told of an image processor, and the flag without which it is not done.
_PROCESSING = {
    "size": "do_resize",
    "resample": "do_resize",
    "crop_size": "do_center_crop",
    "pad_size": "do_pad",
    "rescale_factor": "do_rescale",
    "image_mean": "do_normalize",
    "image_std": "do_normalize",
}

# Of a data set of which only parts were surveyed: which, from 1, and of what order of its images.
_PARTS = {"count": COUNT, "numbers": [COUNT], "limit": (COUNT, None), "shuffle_seed": (COUNT, None)}


def named_unreadable(settings: Mapping[str, Any]) -> str:
    """Name the first images of a report that could not be read, in brackets; nothing where none is named.

    Example:
        >>> named_unreadable({"unreadable": [{"image": "cup/7.jpg", "reason": "truncated"}]})
        ' (cup/7.jpg; reasons stand in the card)'
    """
    names = [printable(entry["image"]) for entry in settings["unreadable"][:_NUM_NAMED]]
    more = ", ..." if len(settings["unreadable"]) > _NUM_NAMED else ""
    return f" ({', '.join(names)}{more}; reasons stand in the card)" if names else ""


def plain_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of the settings, as it would come back from a file.

    Args:
        settings (`Mapping[str, Any]`): The settings of a report.

    Raises:
        ArgumentError: If they hold more than plain JSON values, or an entry is missing or of the wrong kind.
    """
    copied = plain_copy("settings", dict(settings) if isinstance(settings, Mapping) else settings)
    check_json("settings", copied, _SCHEMA)
    for key, kind in OPTIONAL_SETTINGS.items():
        check_json("settings", copied.get(key), kind, key)
    check_json("settings", copied["model"].get("hypothesis_template"), (TEXT, None), "model.hypothesis_template")
    check_json("settings", copied["model"].get("state"), (TEXT, None), "model.state")
    _check_heads_by_layer(copied["model"])
    _check_top_images(copied)
    for place, dataset in enumerate(copied["datasets"]):
        _check_parts(dataset.get("parts"), f"datasets[{place}].parts")
    if copied["target"] not in ("predicted", "label"):
        raise ArgumentError(
            f'`settings` must have "predicted" or "label" as \'target\'; got {copied["target"]!r:.80}.'
        )
    if not copied["datasets"]:
        raise ArgumentError("`settings` must name at least one data set in 'datasets'; got none.")
    for name, version in copied["versions"].items():
        check_json("settings", version, TEXT, f"versions.{name:.40}")
    return copied


def heads_in_words(model: Mapping[str, Any]) -> str:
    """Say how many heads each layer has: one number, or all of them where they differ.

    Args:
        model (`Mapping[str, Any]`): The entry `model` of a report's settings.

    Example:
        >>> heads_in_words({"num_heads": 12}), heads_in_words({"num_heads": 6, "heads_by_layer": [3, 6]})
        ('12', '3, 6')
    """
    return ", ".join(map(str, model.get("heads_by_layer") or [model["num_heads"]]))


def _check_heads_by_layer(model: Mapping[str, Any]) -> None:
    """Refuse numbers of heads that are not those of the model's layers; most models have as many in each."""
    check_json("settings", model.get("heads_by_layer"), ([COUNT], None), "model.heads_by_layer")
    by_layer = model.get("heads_by_layer")
    if by_layer is not None and (
        len(by_layer) != model["num_layers"]
        or not by_layer
        or max(by_layer) != model["num_heads"]
        or min(by_layer) < 1
    ):
        raise ArgumentError(
            f"`settings` must have the heads of {model['num_layers']} layers, {model['num_heads']} at most, as "
            f"'model.heads_by_layer'; got {by_layer!r:.80}."
        )


def _check_parts(parts: Any, where: str) -> None:
    """Refuse numbers that cannot be those of some of a data set's parts."""
    check_json("settings", parts, (_PARTS, None), where)
    if parts is None:
        return
    numbers = parts["numbers"]
    if not numbers or sorted(set(numbers)) != numbers or not 1 <= numbers[0] <= numbers[-1] <= parts["count"]:
        raise ArgumentError(f"`settings` must have ascending numbers in [1, {parts['count']}] as '{where}.numbers'.")


def parts_in_words(parts: Mapping[str, Any]) -> str:
    """Say which parts of a data set were surveyed; of many only how many.

    Args:
        parts (`Mapping[str, Any]`): The entry `parts` of a report's data set.

    Example:
        >>> parts_in_words({"numbers": [3], "count": 8}), parts_in_words({"numbers": [1, 2, 5], "count": 8})
        ('part 3 of 8', 'parts 1, 2, 5 of 8')
    """
    numbers, count = parts["numbers"], parts["count"]
    if len(numbers) > _NAMED_PARTS:
        return f"{len(numbers):,} of {count:,} parts"
    return f"part{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))} of {count:,}"


def processing_in_words(processing: Mapping[str, Any]) -> str:
    """Say what was done with images before the model saw them.

    Args:
        processing (`Mapping[str, Any]`): The entry `image_processing` of a report's settings.

    Example:
        >>> processing_in_words({"size": {"height": 64, "width": 32}, "image_std": [0.5, 0.5], "do_normalize": True})
        'size 64 x 32, image std 0.5 0.5'
    """
    used = [
        name for name, flag in _PROCESSING.items() if name in processing and processing.get(flag, True) is not False
    ]
    return ", ".join(f"{name.replace('_', ' ')} {_in_words(processing[name])}" for name in used)


def _in_words(value: Any) -> str:
    if isinstance(value, Mapping) and value.keys() == {"height", "width"}:
        return f"{value['height']} x {value['width']}"
    if isinstance(value, Mapping):
        return " ".join(f"{name.replace('_', ' ')} {entry}" for name, entry in value.items())
    if isinstance(value, list):
        return " ".join(map(_in_words, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


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
    there = mask_of_heads(model.get("heads_by_layer") or [model["num_heads"]] * model["num_layers"])
    numbers = torch.stack([moments.mean[members], moments.squares[members]])
    if not numbers[..., there].isfinite().all() or not numbers[..., ~there].isnan().all():
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
