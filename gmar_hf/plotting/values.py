"""What figures are drawn from: numbers checked, their scale of colours, and text that is taken literally."""

from typing import TYPE_CHECKING

import numpy as np
import torch

from gmar_hf.errors import ArgumentError
from gmar_hf.plotting.saturation import SATURATED
from gmar_hf.utils.missing_heads import are_finite
from gmar_hf.utils.tensors import float64_array
from gmar_hf.utils.text import printable

if TYPE_CHECKING:
    from matplotlib.colors import Normalize

Array = torch.Tensor | np.ndarray


def finite_array(values: Array, name: str, *axes: str) -> np.ndarray:
    """Return numbers as float64; of layers and heads, those that a layer lacks may be NaN, see [`heads_there`].

    Args:
        values (tensor or array): What was given.
        name (`str`): What errors call it.
        *axes (`str`): What its axes are.

    Raises:
        ArgumentError: If it has other axes, or is not finite.
        ArgumentTypeError: If it holds no numbers.
    """
    array = float64_array(name, values, f"a tensor or array ({', '.join(axes)})")
    if array.ndim != len(axes) or not array.size:
        raise ArgumentError(
            f"`{name}` must have shape ({', '.join(axes)}); got {array.shape}. Pass what belongs to one image."
        )
    if not are_finite(array, axes):
        raise ArgumentError(f"`{name}` must be finite; got NaN or infinity.")
    return array


def color_scale(values: np.ndarray) -> "tuple[Normalize, str]":
    """Return a scale and its colours: from zero for numbers that are not negative, around zero for signed ones."""
    from matplotlib.colors import Normalize, TwoSlopeNorm

    limit = float(np.nanmax(np.abs(values))) or 1.0
    if np.nanmin(values) >= 0:
        return Normalize(0, limit), "inferno"
    return TwoSlopeNorm(0, -limit, limit), "RdBu_r"


def has_sign(values: Array, unit: str = "") -> bool:
    """Tell whether a map says what speaks for a label and what against it, or only where a model looks.

    Every picture, figure and page asks here. What is counted in logits has a sign, even where all of it is above zero;
    of other maps, those that have something below zero.

    Args:
        values (tensor or array): The map.
        unit (`str`, defaults to ""): What it counts, a result's `unit`.

    Example:
        >>> has_sign(np.array([0.5, -0.25])), has_sign(np.array([0.5])), has_sign(np.array([0.5]), "logits")
        (True, False, True)
    """
    return unit == "logits" or bool(values.min() < 0)


def full_colour(values: np.ndarray, style: str = "signed", saturated: float = SATURATED) -> float:
    """Return the size from which on a map's values have the full colour: that which a share of its patches reach.

    Args:
        values (array (rows, cols)): The map.
        style (`str`, defaults to "signed"): See [`overlay`].
        saturated (`float`, defaults to 0.05): The share. Where that is less than one patch, or fewer patches are drawn
            at all, the strongest alone has the full colour.

    Example:
        >>> full_colour(np.arange(101.0)), full_colour(np.arange(101.0), saturated=0)
        (95.0, 100.0)
    """
    sizes = np.abs(values) if style == "signed" else values.clip(0)
    return float(np.quantile(sizes, 1 - saturated, method="higher")) or float(sizes.max())


def scale_of(values: np.ndarray, style: str, unit: str = "", limit: float | None = None) -> str:
    """Say which numbers a map's colours stand for.

    Args:
        values (array (rows, cols)): The map.
        style (`str`): See [`overlay`].
        unit (`str`, defaults to ""): What they count, such as "logits".
        limit (`float`, *optional*): The size from which on values have the full colour; see [`full_colour`].

    Example:
        >>> scale_of(np.array([[0.5, -0.25]]), "signed", "logits", 0.5), scale_of(np.array([[0.5]]), "signed")
        ('±0.5 logits', '0 to 0.5')
        >>> scale_of(np.array([[0.5, -0.25]]), "signed", "logits", limit=0.25)
        'full colour from ±0.25 logits'
    """
    is_both = style == "signed" and bool(values.min() < 0)
    largest = np.abs(values).max() if is_both else max(values.max(), 0)
    limit = full_colour(values, style) if limit is None else limit
    if limit < largest:
        return f"full colour from {'±' if is_both else ''}{limit:.2g} {unit}".rstrip()
    return f"{'±' if is_both else '0 to '}{largest:.2g} {unit}".rstrip()


def plain(text: str) -> str:
    """Return text that matplotlib does not take for mathematics, without control characters, which no font has."""
    return printable(text).replace("$", r"\$")
