"""What figures are drawn from: numbers checked, their scale of colours, and text that is taken literally."""

from typing import TYPE_CHECKING

import numpy as np
import torch

from gmar_hf.errors import ArgumentError
from gmar_hf.utils.tensors import float64_array
from gmar_hf.utils.text import printable

if TYPE_CHECKING:
    from matplotlib.colors import Normalize

Array = torch.Tensor | np.ndarray


def finite_array(values: Array, name: str, *axes: str) -> np.ndarray:
    array = float64_array(name, values, f"a tensor or array ({', '.join(axes)})")
    if array.ndim != len(axes) or not array.size:
        raise ArgumentError(
            f"`{name}` must have shape ({', '.join(axes)}); got {array.shape}. Pass what belongs to one image."
        )
    if not np.isfinite(array).all():
        raise ArgumentError(f"`{name}` must be finite; got NaN or infinity.")
    return array


def color_scale(values: np.ndarray) -> "tuple[Normalize, str]":
    """Return a scale and its colours: from zero for numbers that are not negative, around zero for signed ones."""
    from matplotlib.colors import Normalize, TwoSlopeNorm

    limit = float(np.abs(values).max()) or 1.0
    if values.min() >= 0:
        return Normalize(0, limit), "inferno"
    return TwoSlopeNorm(0, -limit, limit), "RdBu_r"


def plain(text: str) -> str:
    """Return text that matplotlib does not take for mathematics, without control characters, which no font has."""
    return printable(text).replace("$", r"\$")
