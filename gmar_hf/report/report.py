"""How much each head of a classifier matters, over a data set."""

import math
from functools import cached_property
from importlib import import_module
from numbers import Real
from typing import Any

import torch

from gmar_hf.errors import ArgumentError, ArgumentTypeError, GMARError
from gmar_hf.models.labels import find_label
from gmar_hf.models.weight_sample import same_weights
from gmar_hf.report.card import TAGS
from gmar_hf.report.comparison import Comparison, compare_statistics
from gmar_hf.report.figures import draw_figures
from gmar_hf.report.settings import join_settings
from gmar_hf.report.sharing import SharedReport
from gmar_hf.report.statistics import KEYS as KEYS
from gmar_hf.report.statistics import MIN_CLASS_EXPLANATIONS as MIN_CLASS_EXPLANATIONS
from gmar_hf.report.statistics import OUTCOMES as OUTCOMES
from gmar_hf.report.statistics import (
    RANKED_BY,
    HeadStatistics,
    class_counts,
    class_groups,
    outcome_groups,
    strongest_heads,
    summarize,
)
from gmar_hf.utils.text import printable


class HeadImportanceReport(SharedReport, library_name="gmar_hf", tags=[*TAGS]):
    """Mean and spread of every head's scores over the images of a survey, for each class and outcome.

    Made by [`gmar_hf.survey`], shared by `push_to_hub`, and used wherever head weights are wanted. `mean`, `std` and
    `standard_error` are of all explanations, by score; see [`HeadStatistics`].

    Args:
        moments ([`Moments`] of shape (scores, layers, heads)): Of group class index * 3 + outcome index, in the order
            of `KEYS` and `OUTCOMES`. Not to be added to from now on.
        weight_sample (`torch.Tensor` of shape (values,)): float32; sampled weights, by which the model is known again.
        settings (`Mapping[str, Any]`): Model, data and how the survey was made. Plain JSON values.

    Raises:
        ArgumentError: If a setting is missing or of the wrong kind, or numbers, counts and settings do not fit.

    Example:
        >>> import gmar_hf
        >>> report = gmar_hf.HeadImportanceReport.from_pretrained("me/vit-base-imagenet-heads")  # doctest: +SKIP
        >>> report.top_heads(3)  # doctest: +SKIP
        [(11, 3, 0.41), (10, 7, 0.38), (11, 0, 0.29)]
    """

    def __repr__(self) -> str:
        model = self.settings["model"]
        return (
            f"HeadImportanceReport({printable(model['id'])}: {model['num_layers']} layers of {model['num_heads']} "
            f"heads, {self.num_images:,} images, {self.num_explanations:,} explanations)"
        )

    @property
    def num_images(self) -> int:
        """Images explained, each counted once."""
        return self.settings["counts"]["num_images"]

    @property
    def num_explanations(self) -> int:
        """Pairs of an image and a class."""
        return self.settings["counts"]["num_explanations"]

    @property
    def labels(self) -> list[str]:
        """The model's labels, by class index."""
        return self.settings["model"]["labels"]

    @cached_property
    def overall(self) -> HeadStatistics:
        """Of all explanations."""
        return summarize(self.moments)

    @cached_property
    def correct(self) -> HeadStatistics:
        """Of images whose prediction is one of their labels; NaN where there are none."""
        return summarize(self.moments, outcome_groups(self.moments.num_groups, "correct"))

    @cached_property
    def wrong(self) -> HeadStatistics:
        """Of images whose prediction is none of their labels; NaN where there are none."""
        return summarize(self.moments, outcome_groups(self.moments.num_groups, "wrong"))

    @property
    def mean(self) -> dict[str, torch.Tensor]:
        return self.overall.mean

    @property
    def std(self) -> dict[str, torch.Tensor]:
        return self.overall.std

    @property
    def standard_error(self) -> dict[str, torch.Tensor]:
        return self.overall.standard_error

    def per_class(self, label: str | int) -> HeadStatistics:
        """Of the explanations of one class.

        Args:
            label (`str` or `int`): A label, letter by letter, or an index.

        Raises:
            ArgumentError: If there is no such class, or the survey never explained it.
        """
        index = find_label(label, dict(enumerate(self.labels)), "label")
        found = summarize(self.moments, class_groups(index))
        if not found.num_explanations:
            seen = class_counts(self.moments).nonzero().flatten().tolist()
            raise ArgumentError(
                f"`label` must be of a class that the survey explained; got {self.labels[index]!r}, which it did not. "
                f"It did {len(seen)} of {len(self.labels)} classes, {self.labels[seen[0]]!r} among them."
            )
        return found

    def top_heads(self, k: int = 10, score: str = RANKED_BY) -> list[tuple[int, int, float]]:
        """The heads with the largest mean; of the signed contribution too, largest means most positive.

        Args:
            k (`int`, defaults to 10): How many.
            score (`str`, defaults to "contribution_abs"): One of `KEYS`.

        Returns:
            `list[tuple[int, int, float]]`: Layer, head and mean, the largest first.

        Raises:
            ArgumentError: If there are not so many heads, or no such score.
        """
        return strongest_heads(self.mean, k, score)

    def prunable_heads(self, ratio: float) -> list[tuple[int, int]]:
        """The heads with the smallest mean "contribution_abs": what to remove first. Each is judged alone.

        Args:
            ratio (`float`): Which share of all heads, in [0, 1]; rounded down to whole heads.

        Returns:
            `list[tuple[int, int]]`: Layer and head, the smallest first.

        Raises:
            ArgumentError: If `ratio` is out of range.
        """
        if not isinstance(ratio, Real) or isinstance(ratio, bool) or not 0 <= ratio <= 1:
            raise ArgumentError(f"`ratio` must be a share of the heads in [0, 1]; got {ratio!r}.")
        values = self.mean[RANKED_BY]
        count = math.floor(float(ratio) * values.numel() + 1e-9)  # 0.29 of 100 heads is 29, though 28.999... in floats
        order = values.flatten().argsort(stable=True)[:count].tolist()
        return [divmod(place, values.shape[1]) for place in order]

    def class_weights(self, classes: torch.Tensor, norm: str = "l1") -> tuple[torch.Tensor, torch.Tensor]:
        """Head weights for classes, in place of those that a backward would give.

        Args:
            classes (`torch.LongTensor` of any shape): Class indices.
            norm (`str`, defaults to "l1"): Of which norm: "l1" or "l2".

        Returns:
            `tuple[torch.Tensor, torch.Tensor]`: Weights of shape (..., layers, heads), float32, rows sum to one; and
            of shape (...) whether they are the class's own. A class with fewer than `MIN_CLASS_EXPLANATIONS`
            explanations gets the mean of all.

        Raises:
            ArgumentError: If there is no such class or norm.
        """
        if norm not in ("l1", "l2"):
            raise ArgumentError(f"`norm` must be 'l1' or 'l2'; got {norm!r}.")
        kind = classes.dtype
        if kind == torch.bool or kind.is_floating_point or kind.is_complex:
            raise ArgumentError(f"`classes` must hold class indices; got dtype {str(kind).removeprefix('torch.')}.")
        classes = classes.detach().to("cpu", torch.int64)
        if ((classes < 0) | (classes >= len(self.labels))).any():
            raise ArgumentError(f"`classes` must be in [0, {len(self.labels) - 1}]; some are not.")
        key = f"{norm}_weight"
        distinct, places = classes.unique(return_inverse=True)
        own = class_counts(self.moments)[distinct] >= MIN_CLASS_EXPLANATIONS
        weights = self.mean[key].repeat(len(distinct), 1, 1)
        groups = distinct[own, None] * len(OUTCOMES) + torch.arange(len(OUTCOMES))
        count = self.moments.count[groups].double()
        share = count / count.sum(1, keepdim=True)
        weights[own] = (self.moments.mean[groups, KEYS.index(key)] * share[..., None, None]).sum(1)
        weights = weights / weights.sum(-1, keepdim=True)
        return weights.float()[places], own[places]

    def merge(self, other: "HeadImportanceReport") -> "HeadImportanceReport":
        """This survey and one of the same model on other images as one.

        A report does not name its images. So only equal data are refused; of data that overlap in part, nobody notices
        that images count twice.

        Args:
            other ([`HeadImportanceReport`]): With the same weights, labels and target. See to it that no image is in
                both.

        Raises:
            ArgumentTypeError: If `other` is no report.
            ArgumentError: If it is of another model, target or labels, or of the very same data.
        """
        _check_report(other)
        for what, key in (("class", "class"), ("number of layers", "num_layers"), ("number of heads", "num_heads")):
            own, others = (report.settings["model"][key] for report in (self, other))
            if own != others:
                raise ArgumentError(f"`other` must be of the same model; got another {what}, {others!r} for {own!r}.")
        if self.labels != other.labels:
            raise ArgumentError("`other` must be of the same model; got one with other labels.")
        if not same_weights(self.weight_sample, other.weight_sample):
            raise ArgumentError("`other` must be of the same model; got one with other weights.")
        if self.settings["target"] != other.settings["target"]:
            raise ArgumentError(
                f"`other` must have the target {self.settings['target']!r}; got {other.settings['target']!r}."
            )
        own = {(one["fingerprint"], one["split"]) for one in self.settings["datasets"]}
        for dataset in other.settings["datasets"]:
            if (dataset["fingerprint"], dataset["split"]) in own:
                raise ArgumentError(
                    f"`other` must be of other images; got {dataset['id']!r} (split {dataset['split']!r}) in both, "
                    "whose images would count twice. Survey what is missing."
                )
        settings = join_settings(self.settings, other.settings)
        return HeadImportanceReport(self.moments.merge(other.moments), self.weight_sample, settings)

    def compare(self, other: "HeadImportanceReport") -> Comparison:
        """How the ranking of heads differs from this report to another of the same architecture.

        Args:
            other ([`HeadImportanceReport`]): Of any model, data and labels.

        Raises:
            ArgumentTypeError: If `other` is no report.
            ArgumentError: If its numbers of layers or heads differ.
        """
        _check_report(other)
        return compare_statistics(self.overall, other.overall)

    def plot(self, figure: Any = None) -> Any:
        """Draw the mean sizes of contributions, signed contributions and L1 weights of all heads.

        Args:
            figure (`matplotlib.figure.Figure` or `SubFigure`, *optional*): Where to draw; a new one by default.

        Returns:
            The figure.
        """
        return draw_figures(self.overall, figure)

    def to_pandas(self) -> Any:
        """A table with one row a head: layer, head, and of each score the mean, standard deviation and standard error.

        Returns:
            `pandas.DataFrame`: Columns `layer`, `head`, and for each of `KEYS` its name, with `_std` and with
            `_standard_error`.

        Raises:
            GMARError: If pandas is not installed.
        """
        try:
            pandas = import_module("pandas")
        except ImportError as error:
            raise GMARError(
                "`to_pandas` must have pandas, which is not installed. Run `pip install pandas`."
            ) from error
        layers, heads = self.mean["l1"].shape
        columns = {"layer": torch.arange(layers).repeat_interleave(heads), "head": torch.arange(heads).repeat(layers)}
        for key in KEYS:
            columns |= {key: self.mean[key].flatten(), f"{key}_std": self.std[key].flatten()}
            columns[f"{key}_standard_error"] = self.standard_error[key].flatten()
        return pandas.DataFrame({name: column.numpy() for name, column in columns.items()})


def _check_report(other: object) -> None:
    if not isinstance(other, HeadImportanceReport):
        raise ArgumentTypeError(
            f"`other` must be a HeadImportanceReport; got {type(other).__name__}. Load one with "
            "`HeadImportanceReport.from_pretrained`."
        )
