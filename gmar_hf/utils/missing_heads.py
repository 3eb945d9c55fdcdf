"""Heads that some layers lack: NaN behind those that they have, where layers have different numbers of heads."""

from collections.abc import Sequence

import numpy as np
import torch


def heads_there(values: np.ndarray) -> np.ndarray | None:
    """Tell which heads there are; None where numbers are not finite for another reason.

    Args:
        values (`np.ndarray` of shape (layers, heads, ...)): Numbers of heads; NaN of heads that a layer lacks, which
            stand behind those that it has. Every layer has the first head, and some layer the last one.

    Returns:
        `np.ndarray` of shape (layers, heads), bool.

    Example:
        >>> heads_there(np.array([[1.0, np.nan], [2.0, 3.0]])).tolist()
        [[True, False], [True, True]]
        >>> heads_there(np.array([[np.nan, 1.0], [2.0, 3.0]])) is None
        True
    """
    there = ~np.isnan(values).reshape(*values.shape[:2], -1).all(axis=2)
    is_behind = not (~there[:, :-1] & there[:, 1:]).any() and there[:, 0].all() and there[:, -1].any()
    return there if is_behind and np.isfinite(values[there]).all() else None


def are_finite(values: np.ndarray, axes: Sequence[str]) -> bool:
    """Tell whether numbers are finite, but for NaN of heads that a layer lacks.

    Args:
        values (`np.ndarray`): The numbers.
        axes (`Sequence[str]`): What its axes are; heads can be missing where these begin with "layers", "heads".
    """
    if tuple(axes[:2]) == ("layers", "heads"):
        return heads_there(values) is not None
    return bool(np.isfinite(values).all())


def mask_of_heads(num_heads: Sequence[int]) -> torch.Tensor:
    """Return which heads there are, bool (layers, heads), of layers with so many heads.

    Example:
        >>> mask_of_heads([1, 2]).tolist()
        [[True, False], [True, True]]
    """
    return torch.arange(max(num_heads)) < torch.tensor(num_heads)[:, None]


def rank_heads(values: torch.Tensor) -> list[tuple[int, int]]:
    """Return layer and head of all places, the largest number first, equal ones layer by layer, NaN last.

    Args:
        values (`torch.Tensor` of shape (layers, heads)): Numbers of heads.

    Example:
        >>> rank_heads(torch.tensor([[1.0, torch.nan], [2.0, 3.0]]))
        [(1, 1), (1, 0), (0, 0), (0, 1)]
    """
    order = torch.where(values.isnan(), -torch.inf, values).flatten().argsort(descending=True, stable=True)
    return [divmod(place, values.shape[1]) for place in order.tolist()]


def is_nan_of_missing_heads(values: torch.Tensor) -> bool:
    """Tell whether numbers are NaN nowhere but for heads that a layer lacks, the same in all of them.

    Args:
        values (`torch.Tensor` of shape (..., layers, heads)): Numbers of heads; of fewer than three axes none may be
            NaN.

    Example:
        >>> is_nan_of_missing_heads(torch.tensor([[[1.0, torch.nan], [2.0, 3.0]]]))
        True
        >>> is_nan_of_missing_heads(torch.tensor([[[1.0, 2.0], [2.0, 3.0]], [[1.0, torch.nan], [2.0, 3.0]]]))
        False
    """
    is_nan = values.isnan()
    if not is_nan.any():
        return True
    if values.ndim < 3:
        return False
    by_row = is_nan.flatten(0, -3)
    lacks = by_row[0]
    is_behind = not (lacks[:, :-1] & ~lacks[:, 1:]).any() and not lacks[:, 0].any() and not lacks[:, -1].all()
    return is_behind and bool((by_row == lacks).all())


def are_finite_of_heads(values: torch.Tensor) -> bool:
    """Tell whether numbers (..., layers, heads) are finite, but for [`is_nan_of_missing_heads`]."""
    return is_nan_of_missing_heads(values) and not bool(values.isinf().any())


def stack_layers(by_layer: Sequence[torch.Tensor]) -> torch.Tensor:
    """Stack tensors (batch, heads, ...) of layers to (batch, layers, heads, ...), with NaN for heads that one lacks.

    Example:
        >>> stack_layers([torch.ones(1, 1), torch.zeros(1, 2)])
        tensor([[[1., nan],
                 [0., 0.]]])
    """
    num_heads = max(tensor.shape[1] for tensor in by_layer)
    return torch.stack([_filled(tensor, num_heads) for tensor in by_layer], dim=1)


def _filled(tensor: torch.Tensor, num_heads: int) -> torch.Tensor:
    num_missing = num_heads - tensor.shape[1]
    if not num_missing:
        return tensor
    missing = tensor.new_full((tensor.shape[0], num_missing, *tensor.shape[2:]), torch.nan)
    return torch.cat([tensor, missing], dim=1)
