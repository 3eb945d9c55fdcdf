"""Means and spreads of head scores, and the rankings that follow from them."""

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral

import torch

from gmar_hf.errors import ArgumentError
from gmar_hf.report.moments import Moments

KEYS = ("l1", "l2", "l1_weight", "l2_weight", "contribution", "contribution_abs")
OUTCOMES = ("correct", "wrong", "unlabelled")
RANKED_BY = "contribution_abs"  # wherever heads are ranked without a score being named
MIN_CLASS_EXPLANATIONS = 10


@dataclass(frozen=True, eq=False)
class HeadStatistics:
    """What some explanations say of every head. All NaN where there are no explanations.

    Args:
        num_explanations (`int`): How many explanations they are of.
        mean (`dict[str, torch.Tensor]`): By score, of shape (layers, heads), float64. "l1" and "l2" are norms of the
            attention's gradient, in logits; "l1_weight" and "l2_weight" the same as shares of the layer;
            "contribution" and "contribution_abs" in logits.
        std (`dict[str, torch.Tensor]`): Standard deviations, the population's.
        standard_error (`dict[str, torch.Tensor]`): Of the means: std / sqrt(num_explanations); infinite for less than
            two explanations, which say nothing of a spread.
    """

    num_explanations: int
    mean: dict[str, torch.Tensor]
    std: dict[str, torch.Tensor]
    standard_error: dict[str, torch.Tensor]

    def __repr__(self) -> str:
        layers, heads = self.mean[KEYS[0]].shape
        return f"HeadStatistics({self.num_explanations:,} explanations, {layers} layers of {heads} heads)"


def summarize(moments: Moments, groups: torch.Tensor | None = None) -> HeadStatistics:
    """The statistics of some groups together.

    Args:
        moments ([`Moments`] of shape (scores, layers, heads)): Of every score, in the order of `KEYS`.
        groups (`torch.Tensor`, *optional*): Which groups, as [`Moments.pool`] takes them; all by default.
    """
    pooled = moments.pool(torch.arange(moments.num_groups) if groups is None else groups)
    count = int(pooled.count)
    if count == 0:
        nothing = {key: torch.full(moments.shape[1:], torch.nan, dtype=torch.float64) for key in KEYS}
        return HeadStatistics(0, nothing, dict(nothing), dict(nothing))
    std = (pooled.squares[0] / count).sqrt()
    error = std / count**0.5 if count > 1 else torch.full_like(std, torch.inf)
    return HeadStatistics(count, *(dict(zip(KEYS, values, strict=True)) for values in (pooled.mean[0], std, error)))


def outcome_groups(num_groups: int, outcome: str) -> torch.Tensor:
    """The indices of all classes' groups of one outcome.

    Args:
        num_groups (`int`): Of all classes and outcomes.
        outcome (`str`): One of `OUTCOMES`.
    """
    return torch.arange(OUTCOMES.index(outcome), num_groups, len(OUTCOMES))


def class_groups(index: int) -> torch.Tensor:
    """The indices of one class's groups, one an outcome."""
    return torch.arange(len(OUTCOMES)) + index * len(OUTCOMES)


def class_counts(moments: Moments) -> torch.Tensor:
    """How many explanations each class has: (classes,), int64."""
    return moments.count.unflatten(0, (-1, len(OUTCOMES))).sum(1)


def strongest_heads(mean: Mapping[str, torch.Tensor], k: int, score: str) -> list[tuple[int, int, float]]:
    """The heads with the largest mean.

    Args:
        mean (`Mapping[str, torch.Tensor]`): Of [`HeadStatistics`].
        k (`int`): How many.
        score (`str`): One of `KEYS`.

    Returns:
        `list[tuple[int, int, float]]`: Layer, head and mean, the largest first.

    Raises:
        ArgumentError: If there are not so many heads, or no such score.
    """
    if score not in KEYS:
        raise ArgumentError(f"`score` must be one of {', '.join(map(repr, KEYS))}; got {score!r}.")
    values = mean[score]
    if not isinstance(k, Integral) or isinstance(k, bool) or not 0 <= k <= values.numel():
        raise ArgumentError(f"`k` must be a number of heads in [0, {values.numel()}]; got {k!r}.")
    order = values.flatten().argsort(descending=True, stable=True)[: int(k)]
    return [(*divmod(place, values.shape[1]), float(values.flatten()[place])) for place in order.tolist()]


def ranks(values: torch.Tensor) -> torch.Tensor:
    """Ranks of numbers, 1 for the largest; equal numbers share the mean of their ranks.

    Args:
        values (`torch.Tensor` of shape (numbers,)): Finite.

    Returns:
        `torch.Tensor` of shape (numbers,): float64.

    Example:
        >>> ranks(torch.tensor([0.5, 2.0, 0.5, -1.0])).tolist()
        [2.5, 1.0, 2.5, 4.0]
    """
    _, places, counts = values.unique(return_inverse=True, return_counts=True)
    not_smaller = counts.flip(0).cumsum(0).flip(0)
    return (not_smaller.double() - (counts.double() - 1) / 2)[places]


def rank_correlation(one: torch.Tensor, other: torch.Tensor) -> float:
    """Spearman's rank correlation of two scores over all heads.

    Args:
        one, other (`torch.Tensor` of shape (layers, heads)): Finite.

    Returns:
        `float`: In [-1, 1]; NaN where all numbers of one are equal.
    """
    first, second = (ranks(values.flatten()) for values in (one, other))
    first, second = first - first.mean(), second - second.mean()
    spread = float((first.square().sum() * second.square().sum()).sqrt())
    return max(-1.0, min(1.0, float(first @ second) / spread)) if spread else float("nan")
