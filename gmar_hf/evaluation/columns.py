"""Which figures there are, and how a batch of maps gets them."""

from collections.abc import Sequence

import torch

import gmar_hf.metrics
from gmar_hf.errors import ArgumentError
from gmar_hf.evaluation.results import Metric
from gmar_hf.metrics.perturbation import Curve, insertion_and_deletion
from gmar_hf.metrics.registry import KNOWN_BASELINES, METRICS, MetricEntry
from gmar_hf.metrics.subject import Subject
from gmar_hf.utils.text import did_you_mean

CURVES = tuple(name for name, entry in METRICS.items() if entry.makes_curve)


def choose_metrics(
    names: Sequence[str] | None, baselines: Sequence[str], has_masks: bool, has_class_masks: bool
) -> list[Metric]:
    """Choose the columns of a table.

    Args:
        names (`Sequence[str]`, *optional*): Names of metrics; by default the default ones that the data allow.
        baselines (`Sequence[str]`): Each metric that hides patches is measured under all of them.
        has_masks, has_class_masks (`bool`): Whether it is known where objects are, and of which class each is.

    Raises:
        ArgumentError: If a name is unknown or given twice, or needs masks that there are not.
    """
    _check_names("baselines", baselines, KNOWN_BASELINES)
    lacking = {*(() if has_masks else ("masks",)), *(() if has_class_masks else ("class_masks",))}
    if names is not None:
        _check_names("metrics", names, tuple(METRICS))
        needy = [name for name in names if METRICS[name].needs in lacking]
        if needy and METRICS[needy[0]].needs == "class_masks":
            raise ArgumentError(
                f"`metrics` must not name {needy[0]} for data without masks by class (it asks where the other "
                "class's object is). Leave it out, or give items with `masks`, a dict from classes to masks."
            )
        if needy:
            raise ArgumentError(
                f"`metrics` must not name {needy[0]} for data without masks (it asks where the object is). "
                "Leave it out, or give masks."
            )
    columns = []
    for name in names or [entry.name for entry in METRICS.values() if entry.is_default and entry.needs not in lacking]:
        entry = METRICS[name]
        if not entry.hides_patches:
            columns.append(Metric(name, name, None, entry.higher_is_better))
            continue
        for number, baseline in enumerate(baselines):
            key = f"{name}_{baseline}" if number else name
            columns.append(Metric(key, name, baseline, entry.higher_is_better))
    return columns


def measure(
    subject: Subject, maps: torch.Tensor, other_maps: torch.Tensor, columns: Sequence[Metric]
) -> tuple[torch.Tensor, dict[str, Curve]]:
    """Measure one method's maps.

    Args:
        subject ([`Subject`]): What they are of.
        maps (`torch.Tensor` of shape (rows, grid rows, grid columns)): For the rows' classes.
        other_maps (`torch.Tensor` of the same shape): For another class of the same images.
        columns (`Sequence` of [`Metric`]): What is measured.

    Returns:
        `torch.DoubleTensor` of shape (rows, columns) on the CPU, NaN where there is no figure; and the curves by
            metric key.

    Raises:
        ArgumentError, NonFiniteError: If a metric refuses the maps.
    """
    values = torch.full((len(maps), len(columns)), torch.nan, dtype=torch.double)
    pairs: dict[str, tuple[Curve, Curve]] = {}  # insertion and deletion by baseline, each scored once
    curves: dict[str, Curve] = {}
    for number, column in enumerate(columns):
        entry = METRICS[column.function]
        if entry.needs_masks:
            values[:, number] = _measure_where_known(entry, subject, maps).double().cpu()
            continue
        # Without a filling under this baseline there is no figure.
        baseline = column.baseline or ""
        if entry.hides_patches and baseline not in subject.fillings:
            continue
        extra: object = None
        if entry.needs == "filling":
            extra = subject.fillings[baseline]
        elif entry.needs == "other_maps":
            extra = other_maps
        elif entry.needs == "curves":
            if baseline not in pairs:
                pairs[baseline] = _insertion_and_deletion(subject, maps, baseline)
                suffix = column.key.removeprefix(column.function)
                curves |= {name + suffix: curve for name, curve in zip(CURVES, pairs[baseline], strict=True)}
            extra = pairs[baseline]
        values[:, number] = entry.measure(subject, maps, extra).double().cpu()
    keys = [column.key for column in columns]
    return values, {key: curve for key, curve in curves.items() if key in keys}


def _insertion_and_deletion(subject: Subject, maps: torch.Tensor, baseline: str) -> tuple[Curve, Curve]:
    return insertion_and_deletion(
        subject.score,
        subject.pixel_values,
        maps,
        num_steps=subject.num_steps,
        baseline=subject.fillings[baseline],
        **subject.ways,
    )


def _measure_where_known(entry: MetricEntry, subject: Subject, maps: torch.Tensor) -> torch.Tensor:
    """Measure the rows whose object is known; the others are NaN."""
    masks = subject.masks if entry.needs == "masks" else subject.other_masks
    if subject.patch_size is not None:  # beyond the last whole patch a map says nothing
        masks = masks[:, : maps.shape[1] * subject.patch_size[0], : maps.shape[2] * subject.patch_size[1]]
    known = masks.flatten(1).any(dim=1)
    values = torch.full((len(maps),), torch.nan, device=maps.device)
    if known.any():
        values[known] = entry.measure(subject, maps[known], masks[known]).to(values)
    return values


def _check_names(argument: str, names: Sequence[str], known: Sequence[str]) -> None:
    if isinstance(names, str) or not names:
        raise ArgumentError(f"`{argument}` must be a list of names; got {names!r}. There are: {', '.join(known)}.")
    for number, name in enumerate(names):
        if name not in known:
            hint = did_you_mean(str(name), known)
            if argument == "metrics" and str(name) in gmar_hf.metrics.__all__:
                hint = f" It is no figure of a map: call `gmar_hf.metrics.{name}` by itself."
            raise ArgumentError(f"`{argument}` must be among {', '.join(known)}; got {name!r}.{hint}")
        if name in names[:number]:
            raise ArgumentError(f"`{argument}` must name each one once; got {name!r} twice. Drop one.")
