"""Means and spreads of head scores, and the rankings that follow from them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from gmar_hf.errors import ArgumentError
from gmar_hf.report.head_means import HeadMeans
from gmar_hf.report.moments import Moments
from gmar_hf.utils.checks import check_choice, check_whole
from gmar_hf.utils.correlation import spearman
from gmar_hf.utils.missing_heads import rank_heads

KEYS = ("l1", "l2", "l1_weight", "l2_weight", "contribution", "contribution_abs")
OUTCOMES = ("correct", "wrong", "unlabelled")
CENTRED = "contribution_centred"  # a score whose mean follows from the means of a whole data set
RANKED_BY = "contribution_abs"  # wherever heads are ranked without a score being named
MIN_CLASS_EXPLANATIONS = 10


@dataclass(frozen=True, eq=False)
class HeadStatistics:
    """What some explanations say of every head. All NaN where there are no explanations.

    Where layers have different numbers of heads, those that a layer lacks are NaN, behind those that it has.

    Args:
        num_explanations (`int`): The number of those explanations.
        mean (`dict[str, torch.Tensor]`): By score, of shape (layers, heads), float64. "l1" and "l2" are norms of the
            attention's gradient, in logits; "l1_weight" and "l2_weight" the same as shares of the layer;
            "contribution" and "contribution_abs" in logits. Of all explanations of a survey together also
            "contribution_centred", in logits: the contribution of outputs less their mean over the data set. It has
            no spread here: that mean is known when all images are past.
        std (`dict[str, torch.Tensor]`): By score, the population's standard deviation.
        standard_error (`dict[str, torch.Tensor]`): By score, the mean's standard error, std / sqrt(num_explanations);
            infinite for fewer than two explanations, which say nothing of a spread.
    """

    num_explanations: int
    mean: dict[str, torch.Tensor]
    std: dict[str, torch.Tensor]
    standard_error: dict[str, torch.Tensor]

    @property
    def num_heads(self) -> int:
        """How many heads there are in all layers together."""
        return num_heads(next(iter(self.mean.values())))

    def __repr__(self) -> str:
        layers, heads = next(iter(self.mean.values())).shape
        return f"HeadStatistics({self.num_explanations:,} explanations, {layers} layers of {heads} heads)"


def num_heads(values: torch.Tensor) -> int:
    """Return how many heads there are; without explanations, of whose means all are NaN, as many as there may be.

    Args:
        values (`torch.Tensor` of shape (layers, heads)): NaN of heads that a layer lacks.
    """
    return int((~values.isnan()).sum()) or values.numel()


def summarize(moments: Moments, groups: torch.Tensor | None = None, keys: Sequence[str] = KEYS) -> HeadStatistics:
    """Return the statistics of some groups together.

    Args:
        moments ([`Moments`] of shape (scores, layers, heads)): The moments of every score.
        groups (`torch.Tensor`, *optional*): Which groups, as [`Moments.pool`] takes them; all by default.
        keys (`Sequence[str]`, defaults to `KEYS`): The names of the scores, in their order.
    """
    pooled = moments.pool(torch.arange(moments.num_groups) if groups is None else groups)
    count = int(pooled.count)
    if count == 0:
        nothing = {key: torch.full(moments.shape[1:], torch.nan, dtype=torch.float64) for key in keys}
        return HeadStatistics(0, nothing, dict(nothing), dict(nothing))
    std = (pooled.squares[0] / count).sqrt()
    error = std / count**0.5 if count > 1 else torch.full_like(std, torch.inf)
    return HeadStatistics(count, *(dict(zip(keys, values, strict=True)) for values in (pooled.mean[0], std, error)))


def with_centred(statistics: HeadStatistics, means: HeadMeans | None) -> HeadStatistics:
    """Return statistics with the mean of "contribution_centred", if the heads' means are known.

    Args:
        statistics ([`HeadStatistics`]): Of all explanations.
        means ([`HeadMeans`], *optional*): Over the same explanations.
    """
    if means is None:
        return statistics
    return replace(statistics, mean=statistics.mean | {CENTRED: statistics.mean["contribution"] - means.habit})


def outcome_groups(num_groups: int, outcome: str) -> torch.Tensor:
    """Return the indices of all classes' groups of one outcome.

    Args:
        num_groups (`int`): The number of groups, one for each class and outcome.
        outcome (`str`): One of `OUTCOMES`.
    """
    return torch.arange(OUTCOMES.index(outcome), num_groups, len(OUTCOMES))


def class_groups(index: int) -> torch.Tensor:
    """Return the indices of one class's groups, one for each outcome."""
    return torch.arange(len(OUTCOMES)) + index * len(OUTCOMES)


def class_counts(moments: Moments) -> torch.Tensor:
    """Return how many explanations each class has, of shape (classes,), int64."""
    return moments.count.unflatten(0, (-1, len(OUTCOMES))).sum(1)


def strongest_heads(mean: Mapping[str, torch.Tensor], k: int, score: str) -> list[tuple[int, int, float]]:
    """Return the `k` heads with the largest mean of a score; see [`HeadImportanceReport.top_heads`].

    Args:
        mean (`Mapping[str, torch.Tensor]`): The means of [`HeadStatistics`].
        k (`int`): How many heads.
        score (`str`): One of the means' names.
    """
    check_choice("score", score, mean)
    values = mean[score]
    k = check_whole("k", k, maximum=num_heads(values))
    return [(*place, float(values[place])) for place in rank_heads(values)[:k]]


def weights_of_classes(
    moments: Moments, overall: HeadStatistics, classes: torch.Tensor, norm: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mean head weights of classes; see [`HeadImportanceReport.class_weights`].

    Args:
        moments ([`Moments`] of shape (scores, layers, heads)): The moments of every class and outcome.
        overall ([`HeadStatistics`]): The statistics of all explanations, for classes with few of them.
        classes (`torch.LongTensor` of any shape): Class indices.
        norm (`str`): Whose gradient norm the weights come from: "l1" or "l2".
    """
    check_choice("norm", norm, ("l1", "l2"))
    kind = classes.dtype
    if kind == torch.bool or kind.is_floating_point or kind.is_complex:
        raise ArgumentError(f"`classes` must hold class indices; got dtype {str(kind).removeprefix('torch.')}.")
    counts, key = class_counts(moments), f"{norm}_weight"
    classes = classes.detach().to("cpu", torch.int64)
    if ((classes < 0) | (classes >= len(counts))).any():
        raise ArgumentError(f"`classes` must be in [0, {len(counts) - 1}]; some are not.")
    # Each distinct class has the mean of all explanations at first; those with enough explanations get their mean.
    distinct, places = classes.unique(return_inverse=True)
    has_enough = counts[distinct] >= MIN_CLASS_EXPLANATIONS
    weights = overall.mean[key].repeat(len(distinct), 1, 1)
    groups = distinct[has_enough, None] * len(OUTCOMES) + torch.arange(len(OUTCOMES))
    count = moments.count[groups].double()
    share = count / count.sum(1, keepdim=True)
    weights[has_enough] = (moments.mean[groups, KEYS.index(key)] * share[..., None, None]).sum(1)
    weights = weights / weights.nan_to_num(0.0).sum(-1, keepdim=True)
    return weights.float()[places], has_enough[places]


def rank_correlation(first: torch.Tensor, second: torch.Tensor) -> float:
    """Return Spearman's rank correlation of two scores over all heads.

    Args:
        first, second (`torch.Tensor` of shape (layers, heads)): Finite numbers; heads that one lacks are left out.

    Returns:
        `float`: A number in [-1, 1]; NaN where one score is the same for all heads.
    """
    there = ~(first.isnan() | second.isnan())
    return float(spearman(first[there], second[there]))
