"""Correlations of many rows at once. Where one side of a row is constant there is none: NaN."""

import torch


def pearson(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Return Pearson's correlation along the last axis.

    Args:
        first, second (`torch.Tensor` of shape (..., numbers)): The finite numbers to compare, row by row.

    Returns:
        `torch.Tensor` of shape (...): In [-1, 1], NaN where a row of either is constant; float64 on the CPU.

    Example:
        >>> pearson(torch.tensor([[1.0, 2.0, 4.0]]), torch.tensor([[-1.0, -2.0, -4.0]])).tolist()
        [-1.0]
    """
    first, second = _centred(first), _centred(second)
    spread = (first.square().sum(dim=-1) * second.square().sum(dim=-1)).sqrt()
    product = (first * second).sum(dim=-1)
    return (product / spread).clamp(-1, 1).where(spread > 0, torch.nan)


def spearman(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Return Spearman's rank correlation along the last axis; equal numbers share the mean of their ranks.

    Args:
        first, second (`torch.Tensor` of shape (..., numbers)): The finite numbers to compare, row by row.

    Returns:
        `torch.Tensor` of shape (...): In [-1, 1], NaN where a row of either is constant; float64 on the CPU.

    Example:
        >>> spearman(torch.tensor([[1.0, 2.0, 4.0]]), torch.tensor([[0.1, 10.0, 1e9]])).tolist()
        [1.0]
    """
    return pearson(average_ranks(first), average_ranks(second))


def average_ranks(values: torch.Tensor) -> torch.Tensor:
    """Return ranks along the last axis, 1 for the smallest; equal numbers share the mean of their ranks.

    Args:
        values (`torch.Tensor` of shape (..., numbers)): Finite numbers.

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
    """Return values less their mean; exactly zeros where they are constant, however the mean is rounded."""
    values = _exact(values)
    values = values - values[..., :1]
    return values - values.mean(dim=-1, keepdim=True)


def _exact(values: torch.Tensor) -> torch.Tensor:
    return values.detach().cpu().double()  # there is no double on every device
