"""What figures are drawn from: numbers checked, their scale of colours, and text that is taken literally."""

from typing import TYPE_CHECKING

import numpy as np
import torch

from gmar_hf.errors import ArgumentError
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


def plain(text: str) -> str:
    """Return text that matplotlib does not take for mathematics, without control characters, which no font has."""
    return printable(text).replace("$", r"\$")
