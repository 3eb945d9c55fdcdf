"""Reports over different images of one model, made by separate surveys, as one report."""

from collections.abc import Mapping
from typing import Any, TypeVar

from gmar_hf.errors import ArgumentError
from gmar_hf.models.model_state import WHOLE
from gmar_hf.models.weight_sample import same_weights
from gmar_hf.report.settings import MAX_UNREADABLE, OPTIONAL_SETTINGS, parts_in_words
from gmar_hf.report.sharing import SharedReport
from gmar_hf.report.top_images import merge_top_images

Report = TypeVar("Report", bound=SharedReport)


def merge_two(first: Report, second: Report, name: str = "`other`") -> Report:
    """Return the report that one survey over the images of both would have given.

    Counts, means and sums of squares are merged by the rule of Chan, Golub and LeVeque (1983), so that figures are
    those of one survey up to the rounding of float64. Neither report changes.

    Args:
        first, second ([`HeadImportanceReport`]): Of one model, and of different images.
        name (`str`, defaults to "`other`"): What errors call the second.

    Raises:
        ArgumentError: If they are of different models, targets, labels or image processors, or have images in common
            as far as the reports tell.
    """
    _check_mergeable(first.settings, second.settings, name)
    if not same_weights(first.weight_sample, second.weight_sample):
        raise ArgumentError(f"{name} must be of the same model; got one with other weights.")
    return type(first)(
        first.moments.merge(second.moments),
        first.weight_sample,
        _merged_settings(first.settings, second.settings),
        None if first.means is None or second.means is None else first.means.merge(second.means),
        None if first.traits is None or second.traits is None else first.traits.merge(second.traits),
    )


def _check_mergeable(settings: Mapping[str, Any], other: Mapping[str, Any], name: str) -> None:
    """Refuse a second report that is of another model, target or processor, or of images that the first has."""
    for what, key in (("class", "class"), ("number of layers", "num_layers"), ("number of heads", "num_heads")):
        wanted, given = settings["model"][key], other["model"][key]
        if wanted != given:
            raise ArgumentError(f"{name} must be of the same model; got another {what}, {given!r} for {wanted!r}.")
    if settings["model"]["labels"] != other["model"]["labels"]:
        raise ArgumentError(f"{name} must be of the same model; got one with other labels.")
    wanted, given = settings["model"].get("state"), other["model"].get("state")
    if wanted != given:
        raise ArgumentError(
            f"{name} must be of the model in the same state, with {wanted or WHOLE}; got one of {given or WHOLE}. "
            "Survey its images again."
        )
    if settings["target"] != other["target"]:
        raise ArgumentError(f"{name} must have the target {settings['target']!r}; got {other['target']!r}.")
    processors = {found for found in (settings.get("image_processor"), other.get("image_processor")) if found}
    if len(processors) > 1:
        raise ArgumentError(
            f"{name} must be of images processed alike; got another image processor. Survey it again with the same "
            "processor, in the same version of transformers."
        )
    for dataset in other["datasets"]:
        for known in settings["datasets"]:
            _check_other_images(known, dataset, name)


def _check_other_images(known: Mapping[str, Any], dataset: Mapping[str, Any], name: str) -> None:
    """Refuse the same data twice, but for different parts of them that were cut alike."""
    if _data_key(known) != _data_key(dataset):
        return
    data = f"{dataset['id']!r} (split {dataset['split']!r})"
    before, now = known.get("parts"), dataset.get("parts")
    if before is None or now is None:
        more = " Tell streams apart by `data_id`." if dataset["num_images"] is None else ""
        raise ArgumentError(
            f"{name} must be of other images; got {data} in both, whose images would count twice. Survey what is "
            f"missing.{more}"
        )
    if any(before[key] != now[key] for key in ("count", "limit", "shuffle_seed")):
        raise ArgumentError(
            f"{name} must be a part of {data} that was cut like the others; got one of another number of parts, "
            "`limit` or `shuffle_seed`, whose images may count twice. Survey the part again, with theirs."
        )
    if twice := sorted(set(before["numbers"]) & set(now["numbers"])):
        raise ArgumentError(
            f"{name} must be another part of {data}; got {parts_in_words({**now, 'numbers': twice})} in both, whose "
            "images would count twice. Give each part once."
        )


def _data_key(dataset: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what tells data apart; a stream's fingerprint knows none of its images, so that its name counts, too."""
    return dataset["fingerprint"], dataset["split"], dataset["id"] if dataset["num_images"] is None else None


def _merged_settings(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of two surveys as those of one.

    Counts are summed, parts of one data set joined and other data sets listed one after the other; what differs
    otherwise becomes None, or both in words where it is text that must be there.
    """
    hosted = second["model"] if first["model"]["is_local"] else first["model"]  # an id that strangers can load
    unreadable = sorted(first["unreadable"] + second["unreadable"], key=lambda entry: entry["image"])
    readings = [settings["reading_of_labels"] for settings in (first, second) if settings.get("reading_of_labels")]
    optional = {
        "top_images": merge_top_images([first.get("top_images"), second.get("top_images")]),
        "reading_of_labels": None if len(readings) < 2 else _both(*readings),
        **{  # which do not differ
            key: first.get(key) or second.get(key) for key in ("image_processor", "image_processing")
        },
    }
    return {
        **{key: value for key, value in first.items() if key not in OPTIONAL_SETTINGS},
        "model": {
            **hosted,
            **{key: _both(first["model"][key], second["model"][key]) for key in ("dtype", "attention")},
        },
        "datasets": _joined_datasets(first["datasets"], second["datasets"]),
        "survey": {
            key: value if second["survey"].get(key) == value else None for key, value in first["survey"].items()
        },
        "counts": {key: count + second["counts"].get(key, 0) for key, count in first["counts"].items()},
        "unreadable": unreadable[:MAX_UNREADABLE],
        "stability": None,  # each was about its own images
        "license": first["license"] if first["license"] == second["license"] else None,
        "versions": {
            name: _both(*(settings["versions"][name] for settings in (first, second) if name in settings["versions"]))
            for name in first["versions"] | second["versions"]
        },
        "date": max(first["date"], second["date"]),
        **{key: value for key, value in optional.items() if value is not None},
    }


def _joined_datasets(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """List the data sets of both, parts of one together; all parts are the whole, as one survey would name it."""
    joined = {_data_key(entry): entry for entry in first}
    for entry in second:
        known = joined.get(_data_key(entry))
        if known is None:
            joined[_data_key(entry)] = entry
            continue
        numbers = sorted(known["parts"]["numbers"] + entry["parts"]["numbers"])
        parts = {} if len(numbers) == known["parts"]["count"] else {"parts": {**known["parts"], "numbers": numbers}}
        joined[_data_key(entry)] = {key: value for key, value in known.items() if key != "parts"} | parts
    return list(joined.values())


def _both(*texts: str) -> str:
    return " and ".join(dict.fromkeys(texts))
