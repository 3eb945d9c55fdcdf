"""What a head-importance report says of its making: which entries it must have, and how those of two surveys join."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from gmar_hf.errors import ArgumentError
from gmar_hf.report.moments import Moments
from gmar_hf.report.statistics import KEYS, OUTCOMES

MAX_UNREADABLE = 1000  # as many are named

SURVEY_SETTINGS = ("batch_size", "limit", "shuffle_seed", "until_stable", "max_unreadable")

_COUNTS = ("num_images", "num_explanations", "num_correct", "num_wrong", "num_unlabelled", "num_unreadable")
_TEXT, _COUNT, _NUMBER, _FLAG = "a string", "a whole number of 0 or more", "a finite number", "true or false"
_LIMIT = 2**64  # NaN, infinities and numbers that no tensor holds are not below it
_KINDS = {
    _TEXT: lambda value: isinstance(value, str),
    _COUNT: lambda value: isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _LIMIT,
    _NUMBER: lambda value: isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LIMIT,
    _FLAG: lambda value: isinstance(value, bool),
}


def _or_none(kind: Any) -> tuple[Any, None]:
    return (kind, None)


# A dict must have these entries (and may have more), a list holds entries of one kind, a pair may be null.
_SCHEMA: dict[str, Any] = {
    "model": {
        "id": _TEXT,
        "is_local": _FLAG,
        "revision": _or_none(_TEXT),
        "commit": _or_none(_TEXT),
        "class": _TEXT,
        "num_layers": _COUNT,
        "num_heads": _COUNT,
        "labels": [_TEXT],
        "dtype": _TEXT,
        "attention": _TEXT,
    },
    "datasets": [
        {
            "id": _TEXT,
            "is_local": _FLAG,
            "revision": _or_none(_TEXT),
            "split": _or_none(_TEXT),
            "num_images": _or_none(_COUNT),
            "fingerprint": _TEXT,
        }
    ],
    "target": _TEXT,
    "survey": dict.fromkeys(SURVEY_SETTINGS, _or_none(_NUMBER)),
    "counts": dict.fromkeys(_COUNTS, _COUNT),
    "unreadable": [{"image": _TEXT, "reason": _TEXT}],
    "stability": _or_none({"tolerance": _NUMBER, "reached": _FLAG, "num_images": _COUNT}),
    "license": _or_none(_TEXT),
    "versions": {},
    "date": _TEXT,
}


def plain_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of the settings, as it would come back from a file.

    Args:
        settings (`Mapping[str, Any]`): Plain JSON values.

    Raises:
        ArgumentError: If they are something else, an entry is missing or of the wrong kind.
    """
    try:
        copied = json.loads(json.dumps(dict(settings), allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise ArgumentError(f"`settings` must hold plain JSON values; got others ({error}).") from error
    _check(copied, _SCHEMA, "")
    if copied["target"] not in ("predicted", "label"):
        raise ArgumentError(
            f'`settings` must have "predicted" or "label" as \'target\'; got {copied["target"]!r:.80}.'
        )
    if not copied["datasets"]:
        raise ArgumentError("`settings` must name at least one data set in 'datasets'; got none.")
    for name, version in copied["versions"].items():
        _check(version, _TEXT, f"versions.{name:.40}")
    return copied


def check_moments(settings: Mapping[str, Any], moments: Moments) -> None:
    """Raise if the numbers cannot be those that the settings tell of.

    Args:
        settings (`Mapping[str, Any]`): Of [`plain_settings`].
        moments ([`Moments`]): Of every class and outcome.

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


def join_settings(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of two surveys of one model as those of one.

    Args:
        one, other (`Mapping[str, Any]`): Of [`plain_settings`].

    Returns:
        `dict[str, Any]`: Counts are summed and data sets listed one after the other; what differs otherwise becomes
        None, or both in words where it is text that must be there.
    """
    hosted = other["model"] if one["model"]["is_local"] else one["model"]  # an id that strangers can load
    model = {**hosted, **{key: _both(one["model"][key], other["model"][key]) for key in ("dtype", "attention")}}
    return {
        **one,
        "model": model,
        "datasets": one["datasets"] + other["datasets"],
        "survey": {key: value if other["survey"].get(key) == value else None for key, value in one["survey"].items()},
        "counts": {key: count + other["counts"].get(key, 0) for key, count in one["counts"].items()},
        "unreadable": (one["unreadable"] + other["unreadable"])[:MAX_UNREADABLE],
        "stability": None,  # each was about its own images
        "license": one["license"] if one["license"] == other["license"] else None,
        "versions": {
            name: _both(*(versions[name] for versions in (one["versions"], other["versions"]) if name in versions))
            for name in [*one["versions"], *(name for name in other["versions"] if name not in one["versions"])]
        },
        "date": max(one["date"], other["date"]),
    }


def _both(*texts: str) -> str:
    return " and ".join(dict.fromkeys(texts))


def _check(value: Any, wanted: Any, where: str) -> None:
    """Raise if `value`, which stands at `where`, is not as `wanted` says."""
    if isinstance(wanted, tuple):
        if value is not None:
            _check(value, wanted[0], where)
    elif isinstance(wanted, str):
        if not _KINDS[wanted](value):
            raise _wrong(wanted, where, value)
    elif isinstance(wanted, list):
        if not isinstance(value, list):
            raise _wrong("a list", where, value)
        for place, entry in enumerate(value):
            _check(entry, wanted[0], f"{where}[{place}]")
    else:
        if not isinstance(value, dict):
            raise _wrong("an object", where, value)
        for key, kind in wanted.items():
            path = f"{where}.{key}".removeprefix(".")
            if key not in value:
                raise ArgumentError(f"`settings` must have {path!r}; it is missing.")
            _check(value[key], kind, path)


def _wrong(kind: str, where: str, value: Any) -> ArgumentError:
    shown = f"{len(value)} entries" if isinstance(value, Sequence) and not isinstance(value, str) else f"{value!r:.80}"
    return ArgumentError(f"`settings` must have {kind} as {where!r}; got {shown}.")
