"""A photograph and its maps as so little data that a page of them can be sent."""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from gmar_hf.errors import ArgumentError
from gmar_hf.plotting.values import full_colour
from gmar_hf.utils.missing_heads import are_finite
from gmar_hf.utils.tensors import float64_array

MOST_BYTES = 300_000
"""What one image may take on a page, with its maps and all."""

_SIDE = 640  # pixels of a photograph's longer side
_PHOTO_BYTES = 90_000
_QUALITIES = (85, 70, 55, 40)
_LEVELS = 127  # of a number's size in an int8


def photo_bytes(image: Image.Image) -> tuple[bytes, tuple[int, int]]:
    """Return a photograph as a JPEG of at most 640 pixels and 90 kB, without what its file said beside the pixels.

    Args:
        image (PIL image): Of any size.

    Returns:
        `tuple[bytes, tuple[int, int]]`: The file, and its width and height.
    """
    small = image.convert("RGB")
    small.thumbnail((_SIDE, _SIDE))
    small.info.clear()  # a comment would be written into the new file too
    while True:
        for quality in _QUALITIES:
            with io.BytesIO() as content:
                small.save(content, format="JPEG", quality=quality, optimize=True)
                if content.tell() <= _PHOTO_BYTES:
                    return content.getvalue(), small.size
        small = small.resize((max(small.width // 2, 1), max(small.height // 2, 1)))


def packed_map(values: Any, argument: str = "attribution") -> dict[str, Any]:
    """Return a map as rows, columns, a scale, and base64 of int8: 127 stands for the scale, or more than that.

    The scale is the size from which on values have the full colour in pictures, see [`full_colour`].

    Args:
        values (tensor or array (rows, cols)): The map.
        argument (`str`, defaults to "attribution"): What an error calls it.

    Raises:
        ArgumentError: If it is no finite map.

    Example:
        >>> packed = packed_map(np.array([[2.0, 1.0, -0.5] + 17 * [0.0]]))
        >>> packed["scale"], np.frombuffer(base64.b64decode(packed["values"]), np.int8).tolist()[:3]
        (2.0, [127, 64, -32])
    """
    grid = _finite(values, argument, "rows", "cols")
    levels, scales = _levels(grid[None])
    return {"rows": grid.shape[0], "cols": grid.shape[1], "scale": scales[0], "values": _base64(levels)}


def packed_heads(values: Any, contributions: Any, num_bytes: int) -> dict[str, Any] | None:
    """Return the maps of all heads as [`packed_map`] does, each with a scale of its own, in so many bytes or fewer.

    Maps that take more become coarser, by half and half again: means over two patches by two. None where even one
    number a head is too much.

    Args:
        values (tensor or array (layers, heads, rows, cols)): The maps; NaN of heads that a layer lacks.
        contributions (tensor or array (layers, heads), *optional*): What stands in the matrix of heads, likewise.
        num_bytes (`int`): What they may take in base64.
    """
    maps = _finite(values, "head_maps", "layers", "heads", "rows", "cols")
    layers, heads, *_ = maps.shape
    maps = np.nan_to_num(maps)  # nobody looks at those of heads that there are not
    shown = None if contributions is None else rounded(_finite(contributions, "head_contribution", "layers", "heads"))
    overhead = (1 if shown is None else 2) * 14 * layers * heads + 200  # numbers as text, at their longest
    coarseness = 1
    while overhead + 4 * -(-maps.size // 3) > num_bytes:
        if maps.shape[2:] == (1, 1):
            return None
        maps, coarseness = _halved(maps), 2 * coarseness
    levels, scales = _levels(maps.reshape(layers * heads, *maps.shape[2:]))
    return {
        "layers": layers,
        "heads": heads,
        "rows": maps.shape[2],
        "cols": maps.shape[3],
        "coarseness": coarseness,
        "scales": scales,
        "contributions": shown,
        "values": _base64(levels),
    }


def rounded(values: np.ndarray) -> list[float | None]:
    """Return numbers, flat, with four digits each: more would only be longer. None stands for NaN."""
    return [None if np.isnan(value) else float(f"{value:.3e}") for value in values.flatten().tolist()]


def shares_of(box: Sequence[float], size: tuple[int, int]) -> list[float]:
    """Return a box in pixels as shares of an image's width and height.

    Example:
        >>> shares_of((10, 0, 90, 50), (100, 50))
        [0.1, 0.0, 0.9, 1.0]
    """
    return [round(edge / size[place % 2], 5) for place, edge in enumerate(box)]


def check_result(result: object) -> None:
    """Refuse what is no result of the pipeline.

    Raises:
        ArgumentError: If an entry that is shown is missing.
    """
    wanted = ("label", "score", "method", "attribution", "box")
    if not isinstance(result, Mapping) or any(name not in result for name in wanted):
        got = f"a dict of {', '.join(map(repr, result))}" if isinstance(result, Mapping) else type(result).__name__
        raise ArgumentError(
            f"`explained` must hold the pipeline's results, with {', '.join(wanted)}; got {got:.80}. "
            'Pass what `pipeline("gmar-explanation")` returns for one image.'
        )


def _finite(values: Any, argument: str, *axes: str) -> np.ndarray:
    array = float64_array(argument, values, f"a tensor or array ({', '.join(axes)})")
    if array.ndim != len(axes) or not array.size or not are_finite(array, axes):
        raise ArgumentError(
            f"`{argument}` must be finite, of shape ({', '.join(axes)}); got shape {array.shape} with "
            f"{np.count_nonzero(~np.isfinite(array))} values that are not finite. Pass one image's results."
        )
    return array


def _levels(maps: np.ndarray) -> tuple[np.ndarray, list[float | None]]:
    """Return maps (maps, rows, cols) as int8, and each one's scale."""
    scales = np.array([full_colour(values) for values in maps])
    shares = (maps / np.where(scales > 0, scales, 1)[:, None, None]).clip(-1, 1)
    return np.rint(shares * _LEVELS).astype(np.int8), rounded(scales)


def _halved(maps: np.ndarray) -> np.ndarray:
    """Return means over blocks of two by two; where a number of rows or columns is odd, blocks overlap."""
    for axis in (2, 3):
        length = maps.shape[axis]
        starts = np.arange(-(-length // 2)) * length // -(-length // 2)
        ends = np.minimum(starts + 2, length)
        maps = (maps.take(starts, axis) + maps.take(ends - 1, axis)) / 2
    return maps


def _base64(levels: np.ndarray) -> str:
    return base64.b64encode(levels.tobytes()).decode()
