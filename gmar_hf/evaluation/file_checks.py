"""What the files of an evaluation and of its checkpoints must hold; whatever else they say is left as it is."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gmar_hf.errors import ArgumentError
from gmar_hf.utils.plain_json import COUNT, FLAG, NUMBER, TEXT, check_json

_ROW = {
    "image": TEXT, "target": COUNT, "label": TEXT, "score": NUMBER, "labels_first": (FLAG, None), "index": COUNT,
}  # fmt: skip
_METRIC = {"key": TEXT, "function": TEXT, "baseline": (TEXT, None), "higher_is_better": (FLAG, None)}
_METHOD = {"name": TEXT, "forwards": (NUMBER, None), "baseline": (TEXT, None), "milliseconds": NUMBER}
_EVALUATION = {"settings": {}, "methods": [_METHOD], "metrics": [_METRIC], "rows": [_ROW]}
_CHECKPOINT = {
    "number": COUNT,
    "rows": [_ROW],
    "curve_rows": {},
    "seconds": [NUMBER],
    "num_maps": COUNT,
    "forwards": [(NUMBER, None)],
    "counts": {"num_images": COUNT, "num_unlabelled": COUNT, "num_unreadable": COUNT},
    "unreadable": [{"image": TEXT, "reason": TEXT}],
    "settings": {"methods": [TEXT], "metrics": [TEXT]},
}


def check_evaluation(content: Any, arrays: Mapping[str, np.ndarray]) -> None:
    """Refuse what is no evaluation's.

    Args:
        content (`Any`), arrays (`Mapping[str, np.ndarray]`): What its file holds.

    Raises:
        ArgumentError: If an entry is missing or of another kind, a name comes twice, or an array is of another shape
            or type, or has numbers that no figure is.
    """
    check_json("content", content, _EVALUATION)
    methods = [method["name"] for method in content["methods"]]
    keys = [metric["key"] for metric in content["metrics"]]
    for names in (methods, keys):
        if len(set(names)) < len(names):
            raise ArgumentError(f"`content` must name every map and figure once; got {', '.join(names):.80}.")
    shares = arrays.get("curves.shares")
    if shares is not None and (shares.ndim != 1 or shares.dtype != np.float64):
        raise ArgumentError(f"`shares` must be of shape (points,), float64; got {shares.shape}, {shares.dtype}.")
    curves = {name: curve for name, curve in arrays.items() if name != "curves.shares"}
    points = None if shares is None else len(shares)
    _check_arrays(curves, len(content["rows"]), methods, keys, points)


def check_checkpoint(content: Any, arrays: Mapping[str, np.ndarray]) -> None:
    """Refuse what is no checkpoint of an evaluation; its figures are of the first methods, or all, in its settings.

    Args:
        content (`Any`), arrays (`Mapping[str, np.ndarray]`): What its file holds.

    Raises:
        ArgumentError: As [`check_evaluation`] does.
    """
    check_json("content", content, _CHECKPOINT)
    rows, methods, metrics = content["rows"], content["settings"]["methods"], content["settings"]["metrics"]
    num_done = len(content["seconds"])
    if len(content["forwards"]) != num_done or not (0 < num_done <= len(methods) if rows else num_done == 0):
        raise ArgumentError(f"`content` must have seconds and forwards of the same maps; got {num_done} seconds.")
    if rows and not content["num_maps"]:
        raise ArgumentError("`content` must have maps of its rows; got none.")
    _check_arrays(arrays, len(rows), methods[:num_done] if rows else methods, metrics, None)
    check_json("content", content["curve_rows"], {key.removeprefix("curves."): COUNT for key in _curves(arrays)})


def _check_arrays(
    arrays: Mapping[str, np.ndarray], num_rows: int, methods: Sequence[str], metrics: Sequence[str], points: int | None
) -> None:
    expected = (num_rows, len(methods), len(metrics))
    values = arrays.get("values")
    if values is None or values.shape != expected or values.dtype != np.float64 or np.isinf(values).any():
        raise ArgumentError(f"`values` must be of shape {expected}, float64, without infinity; got others.")
    for name in _curves(arrays):
        curve = arrays[name]
        points = curve.shape[-1] if points is None and curve.ndim else points
        if curve.shape != (len(methods), points) or curve.dtype != np.float64 or not np.isfinite(curve).all():
            raise ArgumentError(
                f"`{name}` must be of shape ({len(methods)}, {points or 'points'}), float64 and finite; got others."
            )


def _curves(arrays: Mapping[str, np.ndarray]) -> list[str]:
    return [name for name in arrays if name.startswith("curves.")]
