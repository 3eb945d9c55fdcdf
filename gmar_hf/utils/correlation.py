"""Correlations of many rows at once. Where one side of a row is constant there is none: NaN."""

import torch


def pearson(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Pearson's correlation along the last axis.

    Args:
        one, other (`torch.Tensor` of shape (..., numbers)): Finite.

    Returns:
        `torch.Tensor` of shape (...): In [-1, 1], NaN where a row of one or the other is constant; float64 on the CPU.

    Example:
        >>> pearson(torch.tensor([[1.0, 2.0, 4.0]]), torch.tensor([[-1.0, -2.0, -4.0]])).tolist()
        [-1.0]
    """
    first, second = _centred(one), _centred(other)
    spread = (first.square().sum(dim=-1) * second.square().sum(dim=-1)).sqrt()
    product = (first * second).sum(dim=-1)
    return (product / spread).clamp(-1, 1).where(spread > 0, torch.nan)


def spearman(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Spearman's rank correlation along the last axis; equal numbers share the mean of their ranks.

    Args:
        one, other (`torch.Tensor` of shape (..., numbers)): Finite.

    Returns:
        `torch.Tensor` of shape (...): As [`pearson`] of the ranks.

    Example:
        >>> spearman(torch.tensor([[1.0, 2.0, 4.0]]), torch.tensor([[0.1, 10.0, 1e9]])).tolist()
        [1.0]
    """
    return pearson(average_ranks(one), average_ranks(other))


def average_ranks(values: torch.Tensor) -> torch.Tensor:
    """Ranks along the last axis, 1 for the smallest; equal numbers share the mean of their ranks.

    Args:
        values (`torch.Tensor` of shape (..., numbers)): Finite.

    Returns:
        `torch.Tensor` of shape (..., numbers): float64 on the CPU.

    Example:
        >>> average_ranks(torch.tensor([0.5, 2.0, 0.5, -1.0])).tolist()
        [2.5, 4.0, 2.5, 1.0]
    """
    values = _exact(values).contiguous()
    ordered = values.sort(dim=-1).values
    smaller = torch.searchsorted(ordered, values)
    not_larger = torch.searchsorted(ordered, values, right=True)
    return (smaller + not_larger + 1).double() / 2


def _centred(values: torch.Tensor) -> torch.Tensor:
    """Minus their mean; exactly zeros where they are constant, however the mean is rounded."""
    values = _exact(values)
    values = values - values[..., :1]
    return values - values.mean(dim=-1, keepdim=True)


def _exact(values: torch.Tensor) -> torch.Tensor:
    return values.detach().cpu().double()  # there is no double on every device
