"""Two head statistics side by side."""

from dataclasses import dataclass
from typing import Any

import torch

from gmar_hf.errors import ArgumentError
from gmar_hf.report.statistics import KEYS, RANKED_BY, HeadStatistics, rank_correlation, ranks

_MOVED = 10


@dataclass(frozen=True)
class Comparison:
    """How two reports differ. Plain numbers, so `dataclasses.asdict` of it can be written down.

    Args:
        rank_correlation (`dict[str, float]`): By score, Spearman's over all heads, in [-1, 1]; NaN where a report has
            the same number for every head.
        moved (`list[dict[str, Any]]`): The heads whose rank by the mean of "contribution_abs" differs most, at most
            ten, each with `layer`, `head`, `score`, `rank_before`, `rank_after` (1 is the largest; equal means share
            a rank), `mean_before`, `mean_after` and `z`, see [`difference_in_errors`].
    """

    rank_correlation: dict[str, float]
    moved: list[dict[str, Any]]


def compare_statistics(before: HeadStatistics, after: HeadStatistics) -> Comparison:
    """Compare what two sets of explanations say of the heads.

    Args:
        before, after ([`HeadStatistics`]): Each of one explanation or more.

    Raises:
        ArgumentError: If the numbers of layers or heads differ.
    """
    shapes = [tuple(one.mean[RANKED_BY].shape) for one in (before, after)]
    if shapes[0] != shapes[1]:
        layers, heads = shapes[0]
        raise ArgumentError(
            f"`other` must be of {layers} layers of {heads} heads; got {shapes[1][0]} of {shapes[1][1]}. "
            "Compare reports of one architecture."
        )
    places = [ranks(one.mean[RANKED_BY].flatten()) for one in (before, after)]
    change = (places[1] - places[0]).abs()
    distance = difference_in_errors(before, after, RANKED_BY).flatten()
    moved = []
    for place in change.argsort(descending=True, stable=True)[:_MOVED].tolist():
        if change[place] == 0:
            break
        layer, head = divmod(place, shapes[0][1])
        moved.append(
            {
                "layer": layer,
                "head": head,
                "score": RANKED_BY,
                "rank_before": float(places[0][place]),
                "rank_after": float(places[1][place]),
                "mean_before": float(before.mean[RANKED_BY][layer, head]),
                "mean_after": float(after.mean[RANKED_BY][layer, head]),
                "z": float(distance[place]),
            }
        )
    return Comparison({key: rank_correlation(before.mean[key], after.mean[key]) for key in KEYS}, moved)


def difference_in_errors(before: HeadStatistics, after: HeadStatistics, score: str) -> torch.Tensor:
    """The change of the means by its standard error, taking both sets of images as independent draws.

    Args:
        before, after ([`HeadStatistics`]): Of the same architecture.
        score (`str`): One of `KEYS`.

    Returns:
        `torch.Tensor` of shape (layers, heads): float64; zero where nothing differs or an error is infinite, infinite
        where means without any error differ.
    """
    difference = after.mean[score] - before.mean[score]
    error = torch.hypot(before.standard_error[score], after.standard_error[score])
    return torch.where(difference == 0, torch.zeros_like(difference), difference / error)
