"""Which figures there are, and how a batch of maps gets them."""

from collections.abc import Callable, Mapping, Sequence

import torch

from gmar_hf import metrics
from gmar_hf.errors import ArgumentError
from gmar_hf.evaluation.rows_and_columns import Metric
from gmar_hf.metrics.fillings import Baseline
from gmar_hf.metrics.perturbation import Curve, insertion_and_deletion
from gmar_hf.metrics.registry import KNOWN_BASELINES, METRICS, MOSAIC_METRICS, MetricEntry
from gmar_hf.metrics.subject import Subject
from gmar_hf.utils.checks import check_names

CURVES = tuple(name for name, entry in METRICS.items() if entry.makes_curve)


def choose_metrics(
    names: Sequence[str] | None,
    baselines: Sequence[str],
    has_masks: bool,
    has_class_masks: bool,
    are_mosaics: bool = False,
) -> list[Metric]:
    """Choose the columns of a table.

    Args:
        names (`Sequence[str]`, *optional*): Names of metrics; by default the default ones that the data allow.
        baselines (`Sequence[str]`): Each metric that hides patches is measured under all of them.
        has_masks (`bool`): Whether it is known where objects are.
        has_class_masks (`bool`): Whether it is known of which class each object is.
        are_mosaics (`bool`, defaults to False): Whether the images are mosaics of photos.

    Returns:
        `list` of [`Metric`]: In the order of the names; under the first baseline a column has its metric's name.

    Raises:
        ArgumentError: If a name is unknown or given twice, or needs masks that there are not.
    """
    check_names("baselines", baselines, KNOWN_BASELINES)
    given = {"masks": has_masks, "class_masks": has_class_masks, "cell": are_mosaics}
    if names is None and are_mosaics:
        names = MOSAIC_METRICS
    elif names is None:
        names = [entry.name for entry in METRICS.values() if entry.is_default and given.get(str(entry.needs), True)]
    else:
        _check_metrics(names, given)
    columns = []
    for name in names:
        entry = METRICS[name]
        for number, baseline in enumerate(baselines if entry.hides_patches else [None]):
            key = f"{name}_{baseline}" if number else name
            columns.append(Metric(key, name, baseline, entry.higher_is_better))
    return columns


def measure(
    subject: Subject,
    maps: torch.Tensor,
    other_maps: torch.Tensor | None,
    columns: Sequence[Metric],
    draw: Callable[[torch.Tensor], torch.Tensor],
) -> tuple[torch.Tensor, dict[str, Curve]]:
    """Measure one method's maps.

    Args:
        subject ([`Subject`]): What they are of.
        maps (`torch.Tensor` of shape (rows, grid rows, grid columns)): For the rows' classes.
        other_maps (`torch.Tensor` of the same shape, *optional*): For another class of the same images; only metrics
            that compare need them.
        columns (`Sequence` of [`Metric`]): What is measured.
        draw (`Callable`): Draws such maps of pixel values of the images' shape, for the rows' classes.

    Returns:
        `torch.DoubleTensor` of shape (rows, columns) on the CPU, NaN where there is no figure; and the curves by
            metric key.

    Raises:
        ArgumentError, NonFiniteError: If a metric refuses the maps.
    """
    values = torch.full((len(maps), len(columns)), torch.nan, dtype=torch.double)
    curves: dict[str, Curve] = {}
    pairs: dict[str, tuple[Curve, Curve]] = {}  # insertion and deletion by baseline, each scored once
    for number, column in enumerate(columns):
        entry = METRICS[column.function]
        baseline = column.baseline or ""
        if entry.hides_patches and baseline not in subject.fillings:
            continue  # as "other" for an image that is alone in its batch
        if entry.needs == "curves" and baseline not in pairs:
            pairs[baseline] = _insertion_and_deletion(subject, maps, subject.fillings[baseline])
        if entry.makes_curve:
            curves[column.key] = pairs[baseline][CURVES.index(column.function)]
        if entry.needs_masks:
            figures = _measure_where_known(entry, subject, maps)
        else:
            extras = {
                "filling": subject.fillings.get(baseline),
                "curves": pairs.get(baseline),
                "other_maps": other_maps,
                "cell": subject.cell,
                "draw": draw,
            }
            figures = entry.measure(subject, maps, extras.get(str(entry.needs)))
        values[:, number] = figures.cpu().double()
    return values, curves


def _insertion_and_deletion(subject: Subject, maps: torch.Tensor, filling: Baseline) -> tuple[Curve, Curve]:
    return insertion_and_deletion(
        subject.score,
        subject.pixel_values,
        maps,
        num_steps=subject.num_steps,
        baseline=filling,
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


def _check_metrics(names: Sequence[str], given: Mapping[str, bool]) -> None:
    """Refuse anything but names of metrics for which the data have what they need."""
    for name in names:
        if name in metrics.__all__ and name not in METRICS:
            raise ArgumentError(
                f"`metrics` must name figures of a map; got {name!r}, which is none. Call `gmar_hf.metrics.{name}` by "
                "itself."
            )
    check_names("metrics", names, METRICS)
    for name in names:
        needs = str(METRICS[name].needs)
        if given.get(needs, True):
            continue
        if needs == "cell":
            raise ArgumentError(
                f"`metrics` must not name {name} for images that are no mosaics (it asks in which cell a map is). "
                "Leave it out, or pass `mosaics=2` (`--mosaics 2`)."
            )
        if needs == "class_masks":
            raise ArgumentError(
                f"`metrics` must not name {name} for data without masks by class (it asks where the other "
                "class's object is). Leave it out, or give items with `masks`, a dict from classes to masks."
            )
        raise ArgumentError(
            f"`metrics` must not name {name} for data without masks (it asks where the object is). "
            "Leave it out, or give masks."
        )
