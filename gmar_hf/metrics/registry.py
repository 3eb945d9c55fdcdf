"""The registry of metrics: all that is known of each one, in one row.

A new metric is a new row here. Nothing of torch is loaded before a row measures, since the command line lists the
rows.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from gmar_hf import metrics

if TYPE_CHECKING:
    import torch

    from gmar_hf.metrics.subject import Subject


@dataclass(frozen=True, kw_only=True)
class MetricEntry:
    """What is known of a metric that gives one number a map.

    Args:
        name (`str`): The name in tables and options.
        about (`str`): What the metric tells, in a few words for whoever reads a table.
        higher_is_better (`bool`, *optional*): The direction; None where neither end is better, or a map that knows
            nothing has the best figure.
        needs (`str`, *optional*): What `measure` gets besides subject and maps: "filling" (the argument `baseline` of
            metrics), "curves" (insertion's and deletion's [`Curve`] under one filling), "masks" (where the class's
            object is, bool (rows, height, width)), "class_masks" (the same, of the other class's object),
            "other_maps" (the maps for the other class, of the maps' shape), "cell" (of mosaics, where the class's
            photo is, of shape (rows,)) or "draw" (a function that draws the rows' maps anew, of pixel values of the
            images' shape). None gets None.
        is_default (`bool`, defaults to `False`): Whether `evaluate` measures it unless told otherwise.
        makes_curve (`bool`, defaults to `False`): Whether it is the area under one of the two curves.
        forwards (`Callable[[int, int], int]`, *optional*): How many forwards of the model one map takes, from the
            number of steps and that of patches; None if it asks the model nothing. Where `needs` is "curves" it is
            that of both curves, which are made once for all metrics of a filling.
        num_maps (`int`, defaults to 0): How many more maps are drawn for a map, where `needs` is "draw".
        measure (`Callable`): Takes a [`Subject`], its maps of shape (rows, grid rows, grid columns) and what the
            metric needs, and returns one number a row, of shape (rows,).
    """

    name: str
    about: str
    higher_is_better: bool | None
    needs: Literal["filling", "curves", "masks", "class_masks", "other_maps", "cell", "draw"] | None = None
    is_default: bool = False
    makes_curve: bool = False
    forwards: Callable[[int, int], int] | None = None
    num_maps: int = 0
    measure: Callable[["Subject", "torch.Tensor", Any], "torch.Tensor"]

    @property
    def hides_patches(self) -> bool:
        """Whether the metric is measured once for each baseline."""
        return self.needs in ("filling", "curves")

    @property
    def needs_masks(self) -> bool:
        """Whether the metric has no value where no object is known."""
        return self.needs in ("masks", "class_masks")


def _difference_of_areas(on: "Subject", maps: "torch.Tensor", filling: "torch.Tensor") -> "torch.Tensor":
    inserted, deleted = metrics.insertion_and_deletion(
        on.logit, on.pixel_values, maps, num_steps=on.num_steps, baseline=filling, **on.ways
    )
    return inserted.auc - deleted.auc


def _of_both_curves(num_steps: int, num_patches: int) -> int:
    """Count the forwards of insertion and deletion; the common ends, and equal pictures, are scored once."""
    return 2 * min(num_steps, num_patches)


# Functions are looked up in the lazy face when a row measures: torch is loaded no sooner.
_ENTRIES = (
    MetricEntry(
        name="insertion",
        about=(
            "area under the class's score while patches appear on a filled image, the most important first; it "
            "also tells how sure the model is"
        ),
        higher_is_better=True,
        needs="curves",
        is_default=True,
        makes_curve=True,
        forwards=_of_both_curves,
        measure=lambda on, maps, curves: curves[0].auc,
    ),
    MetricEntry(
        name="deletion",
        about="area under the class's score while patches are hidden, the most important first; it tells that, too",
        higher_is_better=False,
        needs="curves",
        is_default=True,
        makes_curve=True,
        forwards=_of_both_curves,
        measure=lambda on, maps, curves: curves[1].auc,
    ),
    MetricEntry(
        name="insertion_minus_deletion",
        about="the one area minus the other, SRG (Bluecher et al. 2024); about 0 for a map that says nothing",
        higher_is_better=True,
        needs="curves",
        is_default=True,
        forwards=_of_both_curves,
        measure=lambda on, maps, curves: curves[0].auc - curves[1].auc,
    ),
    MetricEntry(
        name="insertion_minus_deletion_logit",
        about="the same difference, SRG, of the class's logit, which does not saturate as its probability does",
        higher_is_better=True,
        needs="filling",
        forwards=_of_both_curves,
        measure=lambda on, maps, filling: _difference_of_areas(on, maps, filling),
    ),
    MetricEntry(
        name="positive_perturbation",
        about=(
            "how often the predicted class stands while 10 to 90 % of the patches are hidden, the most important first"
        ),
        higher_is_better=False,
        needs="filling",
        forwards=lambda steps, patches: 10,
        measure=lambda on, maps, filling: (
            metrics.positive_perturbation(on.predict, on.pixel_values, maps, baseline=filling, **on.ways).auc
        ),
    ),
    MetricEntry(
        name="negative_perturbation",
        about=(
            "how often the predicted class stands while 10 to 90 % of the patches are hidden, the least important "
            "first"
        ),
        higher_is_better=True,
        needs="filling",
        forwards=lambda steps, patches: 10,
        measure=lambda on, maps, filling: (
            metrics.negative_perturbation(on.predict, on.pixel_values, maps, baseline=filling, **on.ways).auc
        ),
    ),
    MetricEntry(
        name="saco",
        about="whether patches with more of the map, hidden by themselves, take more of the score, in [-1, 1]",
        higher_is_better=True,
        needs="filling",
        forwards=lambda steps, patches: 11,
        measure=lambda on, maps, filling: metrics.saco(on.score, on.pixel_values, maps, baseline=filling, **on.ways),
    ),
    MetricEntry(
        name="pointing_game",
        about="how often the map's maximum is on the object",
        higher_is_better=True,
        needs="masks",
        is_default=True,
        measure=lambda on, maps, masks: metrics.pointing_game(maps, masks),
    ),
    MetricEntry(
        name="energy_pointing_game",
        about="share of the map's positive mass that is on the object",
        higher_is_better=True,
        needs="masks",
        is_default=True,
        measure=lambda on, maps, masks: metrics.energy_pointing_game(maps, masks),
    ),
    MetricEntry(
        name="pixel_average_precision",
        about="average precision of the map as a detector of the object's pixels",
        higher_is_better=True,
        needs="masks",
        is_default=True,
        measure=lambda on, maps, masks: metrics.pixel_average_precision(maps, masks),
    ),
    MetricEntry(
        name="pixel_roc_auc",
        about="how often a pixel of the object has more of the map than one beside it: area under the ROC curve",
        higher_is_better=True,
        needs="masks",
        measure=lambda on, maps, masks: metrics.pixel_roc_auc(maps, masks),
    ),
    MetricEntry(
        name="rank_accuracy",
        about="the object's share of the map's top pixels, as many as the object has",
        higher_is_better=True,
        needs="masks",
        measure=lambda on, maps, masks: metrics.rank_accuracy(maps, masks),
    ),
    MetricEntry(
        name="top_k_intersection",
        about="the object's share of the top 2 % of the map's pixels",
        higher_is_better=True,
        needs="masks",
        measure=lambda on, maps, masks: metrics.top_k_intersection(maps, masks),
    ),
    MetricEntry(
        name="iou",
        about="overlap of the object with the patches above the map's mean: intersection over union",
        higher_is_better=True,
        needs="masks",
        is_default=True,
        measure=lambda on, maps, masks: metrics.iou(maps, masks),
    ),
    MetricEntry(
        name="energy_on_other",
        about="share of the map's positive mass that is on the other class's object",
        higher_is_better=False,
        needs="class_masks",
        is_default=True,
        measure=lambda on, maps, masks: metrics.energy_pointing_game(maps, masks),
    ),
    MetricEntry(
        name="grid_pointing_game",
        about="of mosaics: share of the map's positive mass in the cell of its class; chance is one over the cells",
        higher_is_better=True,
        needs="cell",
        measure=lambda on, maps, cell: metrics.grid_pointing_game(maps, cell, grid=on.grid),
    ),
    MetricEntry(
        name="right_quadrant",
        about="of mosaics: how often the cell of the class has the largest sum of the map, signs and all",
        higher_is_better=True,
        needs="cell",
        measure=lambda on, maps, cell: metrics.right_quadrant(maps, cell, grid=on.grid),
    ),
    MetricEntry(
        name="average_drop",
        about="share of the score that is lost when only what the map marks is left",
        higher_is_better=False,
        forwards=lambda steps, patches: 2,
        measure=lambda on, maps, _: metrics.average_drop(on.score, on.pixel_values, maps, **on.ways),
    ),
    MetricEntry(
        name="average_increase",
        about="how often the score is higher when only what the map marks is left",
        higher_is_better=True,
        forwards=lambda steps, patches: 2,
        measure=lambda on, maps, _: metrics.average_increase(on.score, on.pixel_values, maps, **on.ways),
    ),
    MetricEntry(
        name="average_gain",
        about="share of what the score lacked that is won when only what the map marks is left",
        higher_is_better=True,
        forwards=lambda steps, patches: 2,
        measure=lambda on, maps, _: metrics.average_gain(on.score, on.pixel_values, maps, **on.ways),
    ),
    MetricEntry(
        name="class_sensitivity",
        about=(
            "Pearson's correlation of the map with that for the image's best other label, or without labels the "
            "best other class. Near 1 the map is the same whatever is asked; a random map has about 0, so a low "
            "figure alone is no merit"
        ),
        higher_is_better=None,
        needs="other_maps",
        is_default=True,
        measure=lambda on, maps, other_maps: metrics.class_sensitivity(maps, other_maps).correlation,
    ),
    MetricEntry(
        name="max_sensitivity",
        about=(
            "largest change of the map, relative to it, under ten small noises; 0 if it never looks at the image, so "
            "that a low figure alone is no merit"
        ),
        higher_is_better=None,
        needs="draw",
        num_maps=10,
        measure=lambda on, maps, draw: metrics.max_sensitivity(draw, on.pixel_values, maps),
    ),
    MetricEntry(
        name="sparseness",
        about="Gini index: 0 where all patches are alike, near 1 where few have all; neither end is better",
        higher_is_better=None,
        is_default=True,
        measure=lambda on, maps, _: metrics.sparseness(maps),
    ),
)

METRICS: dict[str, MetricEntry] = {entry.name: entry for entry in _ENTRIES}
"""By name, in the order of the tables."""

MOSAIC_METRICS = ("grid_pointing_game", "right_quadrant", "class_sensitivity")
"""What is measured on mosaics, unless told otherwise."""

DEFAULT_BASELINES = ("blur", "zero", "other")
"""What hidden patches show in an evaluation, one after the other, unless told otherwise: these three disagree."""

KNOWN_BASELINES = (*DEFAULT_BASELINES, "mean", "black", "road", "removed")
"""All that can become of hidden patches in an evaluation."""

HIGHER_IS_BETTER: dict[str, bool | None] = {
    **{name: entry.higher_is_better for name, entry in METRICS.items()},
    "head_ablation": True,
    "randomization_check": False,
}
"""Whether higher is better, by metric; None where neither end is.

Of `class_sensitivity`, `head_ablation` (for scores of heads) and `randomization_check` the correlation is meant;
"energy_on_other" is the second part of `class_sensitivity`.
"""
