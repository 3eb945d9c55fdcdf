"""How much each head of a classifier matters, over a data set."""

import math
import os
from functools import cached_property
from typing import Any

import torch

from gmar_hf.errors import ArgumentError, ArgumentTypeError
from gmar_hf.models.labels import find_label
from gmar_hf.report.card import TAGS
from gmar_hf.report.comparison import Comparison, compare_statistics
from gmar_hf.report.data_frame import to_pandas
from gmar_hf.report.figures import draw_figures
from gmar_hf.report.merging import merge_two
from gmar_hf.report.page import write_report_page
from gmar_hf.report.settings import heads_in_words
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
    weights_of_classes,
    with_centred,
)
from gmar_hf.utils.checks import check_share, check_whole
from gmar_hf.utils.text import printable, quantity

_NUM_LABELS = 5  # labels that notebooks show


class HeadImportanceReport(SharedReport, library_name="gmar_hf", tags=[*TAGS]):
    """Mean and spread of every head's scores over the images of a survey, for each class and outcome.

    Made by [`gmar_hf.survey`], shared by `push_to_hub`, and used wherever head weights are wanted. `mean`, `std` and
    `standard_error` are of all explanations, by score; see [`HeadStatistics`].

    Args:
        moments ([`Moments`] of shape (scores, layers, heads)): The scores in the order of `KEYS`, with a group for
            each class and outcome: class index * 3 + outcome index, in the order of `OUTCOMES`. Nothing may be added
            to them from now on.
        weight_sample (`torch.Tensor` of shape (values,)): Sampled weights, by which the model is known again; float32.
        settings (`Mapping[str, Any]`): What the model and the data are and how the survey was made, as plain JSON
            values.
        means ([`HeadMeans`], *optional*): Mean outputs of the heads and gradients by them, from which
            "contribution_centred" follows; reports of older versions have none.
        traits ([`HeadTraits`], *optional*): What the heads are like, of surveys that describe them; its `statistics`
            are [`HeadStatistics`] of "attention_distance", "attention_entropy", "prefix_attention" and
            "direct_effect", as [`HeadDescription`] defines them.

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
        with_state = f" with {printable(model['state'])}" if model.get("state") else ""
        return (
            f"HeadImportanceReport({printable(model['id'])}{with_state}: {model['num_layers']} layers of "
            f"{heads_in_words(model)} heads, {self.num_images:,} images, {self.num_explanations:,} explanations)"
        )

    def _repr_html_(self) -> str:
        """Show the heads as two small pictures in notebooks, with the labels and the strongest."""
        from gmar_hf.plotting.notebook import card, head_text, matrix_of_heads

        counts = f"{quantity(self.num_images, 'image')}, {quantity(self.num_explanations, 'explanation')}"
        labels = ", ".join(self.labels[:_NUM_LABELS]) + (", ..." if len(self.labels) > _NUM_LABELS else "")
        lines = [counts, f"{quantity(len(self.labels), 'label')}: {labels}"]
        # Sizes of contributions, by which heads are ranked, and beside them the signed ones.
        sizes, signed = self.mean[RANKED_BY], self.mean["contribution"]
        lines.append(f"means of contribution_abs and contribution; {head_text(sizes, is_signed=True)}")
        pictures = [matrix_of_heads(sizes, is_signed=False), matrix_of_heads(signed, is_signed=True)]
        return card(pictures, self.settings["model"]["id"], *lines)

    @property
    def num_images(self) -> int:
        """The number of explained images, each counted once."""
        return int(self.settings["counts"]["num_images"])

    @property
    def num_explanations(self) -> int:
        """The number of explanations, one for each image and class."""
        return int(self.settings["counts"]["num_explanations"])

    @property
    def labels(self) -> list[str]:
        """The model's labels, by class index."""
        return list(self.settings["model"]["labels"])

    @cached_property
    def overall(self) -> HeadStatistics:
        """The statistics of all explanations, "contribution_centred" among the means."""
        return with_centred(summarize(self.moments), self.means)

    @cached_property
    def correct(self) -> HeadStatistics:
        """The statistics of images whose prediction is one of their labels; NaN where there are none."""
        return summarize(self.moments, outcome_groups(self.moments.num_groups, "correct"))

    @cached_property
    def wrong(self) -> HeadStatistics:
        """The statistics of images whose prediction is none of their labels; NaN where there are none."""
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
        """Return the statistics of one class.

        Args:
            label (`str` or `int`): The class: its label, letter by letter, or its index.

        Raises:
            ArgumentError: If there is no such class, or the survey never explained it.
        """
        index = find_label(label, dict(enumerate(self.labels)), "label")
        statistics = summarize(self.moments, class_groups(index))
        if not statistics.num_explanations:
            seen = class_counts(self.moments).nonzero().flatten().tolist()
            raise ArgumentError(
                f"`label` must be of a class that the survey explained; got {self.labels[index]!r}, which it did not. "
                f"It did {len(seen)} of {len(self.labels)} classes, {self.labels[seen[0]]!r} among them."
            )
        return statistics

    def top_heads(self, k: int = 10, score: str = RANKED_BY) -> list[tuple[int, int, float]]:
        """Return the heads with the largest mean; of the signed contribution too, largest means most positive.

        Args:
            k (`int`, defaults to 10): How many heads.
            score (`str`, defaults to "contribution_abs"): Whose mean; one of `KEYS`, or "contribution_centred".

        Returns:
            `list[tuple[int, int, float]]`: Triples of layer, head and mean, the largest first.

        Raises:
            ArgumentError: If there are not so many heads, or no such score.
        """
        return strongest_heads(self.mean, k, score)

    def top_images(self, layer: int, head: int) -> list[dict[str, Any]]:
        """Return the images on which a head adds most, of a survey that was asked for them.

        Args:
            layer, head (`int`): Which head, from 0.

        Returns:
            `list[dict[str, Any]]`: `image` (its name in the data), `class` (the explained one, an index) and
                `contribution` (logits), the largest first.

        Raises:
            ArgumentError: If the survey kept no images, or there is no such head.
        """
        top = self.settings.get("top_images")
        if top is None:
            raise ArgumentError("`top_images` of a survey must be given for this; it was not. Survey with it.")
        check_whole("layer", layer, maximum=len(self.mean["l1"]) - 1)
        num_heads = int(self.mean["l1"][layer].isfinite().sum())  # NaN where the layer has none
        check_whole("head", head, maximum=num_heads - 1)
        return list(top["heads"][layer][head])

    def prunable_heads(self, ratio: float) -> list[tuple[int, int]]:
        """Return the heads with the smallest mean "contribution_abs": what to remove first. Each is judged alone.

        Args:
            ratio (`float`): The share of all heads to return, in [0, 1]; rounded down to whole heads.

        Returns:
            `list[tuple[int, int]]`: Pairs of layer and head, the smallest first, as `silence_heads` takes them.

        Raises:
            ArgumentError: If `ratio` is out of range.
        """
        ratio = check_share("ratio", ratio)
        values = self.mean[RANKED_BY]
        # 0.29 of 100 heads is 29, though 28.999... in floats. NaN, of heads that a layer lacks, comes last.
        count = math.floor(ratio * self.overall.num_heads + 1e-9)
        order = values.flatten().argsort(stable=True)[:count].tolist()
        return [divmod(place, values.shape[1]) for place in order]

    def class_weights(self, classes: torch.Tensor, norm: str = "l1") -> tuple[torch.Tensor, torch.Tensor]:
        """Return head weights for classes, in place of those that a backward pass would give.

        Args:
            classes (`torch.LongTensor` of any shape): Class indices.
            norm (`str`, defaults to "l1"): Whose gradient norm the weights come from: "l1" or "l2".

        Returns:
            `tuple[torch.Tensor, torch.Tensor]`: Weights of shape (..., layers, heads), float32, rows sum to one; and
            of shape (...) whether they are the class's own. A class with fewer than `MIN_CLASS_EXPLANATIONS`
            explanations gets the mean of all.

        Raises:
            ArgumentError: If there is no such class or norm.
        """
        return weights_of_classes(self.moments, self.overall, classes, norm)

    def merge(self, *others: "HeadImportanceReport") -> "HeadImportanceReport":
        """Return this survey and others of the same model on other images as one: `gmar-hf merge` in Python.

        Means, spreads and counts are those of one survey over all images, up to the rounding of float64; what some
        report lacks (descriptions of heads, images of heads, means of an older version), the whole lacks.

        A report does not name its images. Parts that `survey(..., part=(3, 8))` cut are known apart, and equal data
        are refused; of data that overlap in another way, nobody notices that images count twice.

        Args:
            *others ([`HeadImportanceReport`]): Reports with the same weights, labels, target and image processor. See
                to it that no image is in two.

        Raises:
            ArgumentTypeError: If one is no report.
            ArgumentError: If one is of another model, target, labels or image processor, or of the same data or part.
        """
        merged = self
        for other in others:
            _check_report(other)
            merged = merge_two(merged, other)
        return merged

    def compare(self, other: "HeadImportanceReport") -> Comparison:
        """Compare the ranking of heads with that of another report of the same architecture.

        Args:
            other ([`HeadImportanceReport`]): A report of any weights, data and labels.

        Raises:
            ArgumentTypeError: If `other` is no report.
            ArgumentError: If its numbers of layers or heads differ.
        """
        _check_report(other)
        return compare_statistics(self.overall, other.overall)

    def plot(self, figure: Any = None) -> Any:
        """Draw the mean sizes of contributions, signed contributions and L1 weights of all heads.

        Args:
            figure (`matplotlib.figure.Figure` or `SubFigure`, *optional*): Where to draw; by default a new one, which
                shows itself in Jupyter.

        Returns:
            The figure.
        """
        return draw_figures(self.overall, figure)

    def write_page(self, path: str | os.PathLike[str]) -> None:
        """Write the report as one page of HTML for people: tables and figures, with nothing loaded from elsewhere.

        Args:
            path (`str` or `os.PathLike`): The file; an old one is replaced at once when the new one is complete.

        Raises:
            ArgumentError: If the file cannot be written.
        """
        write_report_page(self, path)

    def to_pandas(self) -> Any:
        """Return a table with one row a head: of each score the mean, standard deviation and standard error.

        Returns:
            `pandas.DataFrame`: Columns `layer`, `head`, and for each of `KEYS` its name, with `_std` and with
            `_standard_error`; at the end `contribution_centred` and the means of the traits, where they are known.

        Raises:
            GMARError: If pandas is not installed.
        """
        return to_pandas(self.overall, None if self.traits is None else self.traits.statistics)


def _check_report(other: object) -> None:
    if not isinstance(other, HeadImportanceReport):
        raise ArgumentTypeError(
            f"`other` must be a HeadImportanceReport; got {type(other).__name__}. Load one with "
            "`HeadImportanceReport.from_pretrained`."
        )
