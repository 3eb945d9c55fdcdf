"""How far a report's ranking of heads is to be trusted, in sentences for its page, its card and the terminal."""

import math

from gmar_hf.report.statistics import RANKED_BY, HeadStatistics, strongest_heads
from gmar_hf.utils.text import listed, quantity

FEW_IMAGES = 30
"""A standard error of n values is itself uncertain by about 1 / sqrt(2 n - 2): by 13 % of 30, by 27 % of 8."""
_SHOWN_HEADS = 10


def remarks(overall: HeadStatistics, num_images: int) -> list[str]:
    """Say whether there are few images, and which ranks the standard errors leave open.

    Args:
        overall ([`HeadStatistics`]): Of all explanations.
        num_images (`int`): Of how many images they are.

    Returns:
        `list[str]`: Plain sentences; none where there are many images and the first heads are far apart.

    Example:
        >>> import torch
        >>> mean, error = torch.tensor([[9.0, 5.0, 4.9, 1.0]]), torch.tensor([[0.1, 0.2, 0.2, 0.1]])
        >>> statistics = HeadStatistics(40, {"contribution_abs": mean}, {}, {"contribution_abs": error})
        >>> print(*remarks(statistics, 40))
        Ranks 2 to 3 lie within their neighbours' standard errors: other images like these could order them otherwise.
    """
    told = []
    if num_images < FEW_IMAGES:
        told.append(
            f"This is of {quantity(num_images, 'image')} only: the ranking is a first look, and its standard errors "
            f"are themselves uncertain. Take {FEW_IMAGES} images at least."
        )
    ranks = [f"{first} to {last}" for first, last in open_ranks(overall)]
    if ranks:
        told.append(
            f"Ranks {listed(ranks)} lie within their neighbours' standard errors: other images like these could order "
            "them otherwise."
        )
    return told


def shown_heads(overall: HeadStatistics) -> list[tuple[int, int, float]]:
    """Return layer, head and mean of the ten heads with the largest contributions, which tables list.

    Args:
        overall ([`HeadStatistics`]): Of all explanations.
    """
    return strongest_heads(overall.mean, min(_SHOWN_HEADS, overall.num_heads), RANKED_BY)


def open_ranks(overall: HeadStatistics) -> list[tuple[int, int]]:
    """Return the first and last rank, from 1, of neighbours among the ten strongest heads that cannot be told apart.

    A head belongs to the group before it where it is within the errors of one of its heads: where their means differ
    by no more than both errors together, the root of the sum of their squares. So a group ends where all of its heads
    stand apart from the next. Where errors are unknown nothing is said.

    Args:
        overall ([`HeadStatistics`]): Of all explanations.
    """
    heads = shown_heads(overall)
    errors = [float(overall.standard_error[RANKED_BY][layer, head]) for layer, head, _ in heads]
    if not all(map(math.isfinite, errors)):
        return []

    def is_apart(upper: int, lower: int) -> bool:
        return heads[upper][2] - heads[lower][2] > math.hypot(errors[upper], errors[lower])

    groups, first = [], 0
    for place in range(1, len(heads) + 1):
        if place == len(heads) or all(is_apart(upper, place) for upper in range(first, place)):
            if place - first > 1:
                groups.append((first + 1, place))
            first = place
    return groups
