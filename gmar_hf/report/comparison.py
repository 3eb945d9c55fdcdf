"""Two head statistics side by side."""

from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import torch

from gmar_hf.errors import ArgumentError
from gmar_hf.report.certainty import FEW_IMAGES
from gmar_hf.report.statistics import RANKED_BY, HeadStatistics, rank_correlation
from gmar_hf.utils.correlation import average_ranks

_MOVED = 10
_CHANCE = 0.05  # that any head at all is taken to have changed


@dataclass(frozen=True)
class Comparison:
    """How two reports differ. Plain numbers, so `dataclasses.asdict` of it can be written down.

    Args:
        rank_correlation (`dict[str, float]`): By score, Spearman's correlation over all heads, in [-1, 1]; NaN where
            a report has the same number for every head.
        num_heads (`int`): How many heads there are.
        bound (`float`, *optional*): The standard errors that a head's mean must differ by for chance not to explain
            it: were there no difference, any of all heads would show so much in 5 % of cases (Bonferroni's bound for
            normal errors, 3.6 for 144 heads). None where a report has fewer than 30 explanations: errors of so few
            are uncertain themselves, and chance would go beyond the bound much more often.
        num_changed (`int`, *optional*): Of how many heads the mean of "contribution_abs" differs by more; None without
            a bound.
        moved (`list[dict[str, Any]]`): The heads whose mean differs most in its standard errors, at most ten, and none
            whose mean is the same, each with `layer`, `head`, `score`, `rank_before`, `rank_after` (1 is the largest;
            equal means share a rank), `mean_before`, `mean_after` and `z`, see [`difference_in_errors`].
    """

    rank_correlation: dict[str, float]
    num_heads: int
    bound: float | None
    num_changed: int | None
    moved: list[dict[str, Any]]


def compare_statistics(before: HeadStatistics, after: HeadStatistics) -> Comparison:
    """Compare what two sets of explanations say of the heads.

    Args:
        before, after ([`HeadStatistics`]): Statistics of one explanation or more each.

    Raises:
        ArgumentError: If the numbers of layers or heads differ.
    """
    mean_before, mean_after = (statistics.mean[RANKED_BY] for statistics in (before, after))
    (layers, heads), shape = mean_before.shape, tuple(mean_after.shape)
    if shape != (layers, heads):
        raise ArgumentError(
            f"`other` must be of {layers} layers of {heads} heads; got {shape[0]} of {shape[1]}. "
            "Compare reports of one architecture."
        )
    there = ~mean_before.isnan()
    if not torch.equal(there, ~mean_after.isnan()):
        raise ArgumentError(
            "`other` must have as many heads in every layer; got others in some. Compare reports of one architecture."
        )
    # Average ranks count from the smallest number; here 1 is the largest.
    places = there.flatten().nonzero()[:, 0].tolist()
    rank_before, rank_after = (average_ranks(-mean[there]) for mean in (mean_before, mean_after))
    distance = difference_in_errors(before, after, RANKED_BY)
    sizes = distance[there].abs()
    by_rank = (rank_after - rank_before).abs().argsort(descending=True, stable=True)
    order = by_rank[sizes[by_rank].argsort(descending=True, stable=True)]
    is_same = (mean_before == mean_after)[there]
    are_few = min(before.num_explanations, after.num_explanations) < FEW_IMAGES
    bound = None if are_few else NormalDist().inv_cdf(1 - _CHANCE / 2 / len(places))
    num_changed = None if bound is None else int((sizes > bound).sum())
    moved = []
    for place in [place for place in order.tolist() if not is_same[place]][:_MOVED]:
        layer, head = divmod(places[place], heads)
        moved.append(
            {
                "layer": layer,
                "head": head,
                "score": RANKED_BY,
                "rank_before": float(rank_before[place]),
                "rank_after": float(rank_after[place]),
                "mean_before": float(mean_before[layer, head]),
                "mean_after": float(mean_after[layer, head]),
                "z": float(distance[layer, head]),
            }
        )
    shared = [key for key in before.mean if key in after.mean]  # reports of older versions have fewer scores
    correlations = {key: rank_correlation(before.mean[key], after.mean[key]) for key in shared}
    return Comparison(correlations, len(places), bound, num_changed, moved)


def difference_in_errors(before: HeadStatistics, after: HeadStatistics, score: str) -> torch.Tensor:
    """Return the means' change in its standard errors, taking both sets of images as independent draws.

    Args:
        before, after ([`HeadStatistics`]): Statistics of models with the same numbers of layers and heads.
        score (`str`): One of `KEYS`.

    Returns:
        `torch.Tensor` of shape (layers, heads): float64; zero where nothing differs or an error is infinite, infinite
        where means without any error differ.
    """
    difference = after.mean[score] - before.mean[score]
    error = torch.hypot(before.standard_error[score], after.standard_error[score])
    return torch.where(difference == 0, torch.zeros_like(difference), difference / error)
