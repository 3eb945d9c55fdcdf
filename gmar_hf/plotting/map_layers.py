"""What is laid over an image: a map as colours, stripes, outlines and lines between patches."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from gmar_hf.errors import ArgumentError
from gmar_hf.images.placement import Box, check_box, finite_map, placed_map, strips
from gmar_hf.images.resizing import Size
from gmar_hf.plotting.crops import EDGES, Beyond, pixels_beyond
from gmar_hf.plotting.painting import ZERO, outlines, paint, palettes_of
from gmar_hf.plotting.values import Array, full_colour, has_sign
from gmar_hf.utils.checks import check_flags, check_number

_LINE = (128, 128, 128)  # between patches


def map_layer(
    heatmap: Image.Image | Array,
    image_size: Size,
    *,
    box: Box | None = None,
    style: str = "positive",
    alpha: float = 0.85,
    colormap: str | None = None,
    grid: bool = False,
    limit: float | None = None,
    has_sign: bool | None = None,
) -> Image.Image:
    """Draw what [`overlay`] lays over the image, and nothing else: for pages that set its opacity themselves.

    Args:
        heatmap (tensor or array (rows, cols), or PIL image of mode "L"): See [`overlay`].
        image_size (`tuple[int, int]`): Width and height of the image in pixels.
        box, style, alpha, colormap, grid, limit, has_sign: See [`overlay`].

    Returns:
        PIL image, RGBA, of `image_size`: transparent where the map is 0 and outside of `box`.

    Raises:
        ArgumentError: See [`overlay`].
    """
    colours = Colours(style=style, alpha=alpha, colormap=colormap, grid=grid, limit=limit, has_sign=has_sign)
    layer = layer_of(heatmap, image_size, box, colours)
    whole = np.empty((image_size[1], image_size[0], 4), np.uint8)
    for top, bottom in strips(image_size[1]):
        whole[top:bottom] = layer.painted(top, bottom)
    return Image.fromarray(whole)


@dataclass(frozen=True, kw_only=True)
class Colours:
    """How a map is coloured, as [`overlay`] is told."""

    style: str
    alpha: float
    colormap: str | None
    grid: bool
    limit: float | None
    has_sign: bool | None

    def signed(self, values: np.ndarray | None) -> bool:
        """Return whether there are two sides; of a picture, whose values are unknown (None), only what was said."""
        if self.has_sign is not None:
            return self.has_sign
        return values is not None and has_sign(values)

    def palettes(self, values: np.ndarray | None) -> np.ndarray:
        """Return the tables of colours, see [`palettes_of`]."""
        return palettes_of(self.style, self.alpha, self.colormap, self.signed(values))

    def full(self, values: np.ndarray) -> float:
        """Return the size from which on values have the full colour; 0 of a map that shows nothing."""
        return full_colour(values, self.style) if self.limit is None else self.limit


@dataclass(frozen=True, kw_only=True)
class Layer:
    """What lies over an image, to be painted strip by strip: photographs are large.

    Args:
        levels (`Callable`): From the first row that is wanted and the first that is not to the map's levels there, a
            uint8 array (rows, width).
        height (`int`): Of the image in pixels.
        palettes (array (2, 255, 4)): See [`palettes_of`].
        alpha (`float`): Share of the colour where the map is largest.
        period, outline (`int`): Pixels from stripe to stripe, and of an outline.
        is_outlined (`bool`): Whether what is strong gets lines.
        lines (`tuple` of bool arrays (height,) and (width,), *optional*): Rows and columns where patches meet.
        beyond ([`Beyond`], *optional*): How far rows and columns lie beyond what the model sees.
    """

    levels: Callable[[int, int], np.ndarray]
    height: int
    palettes: np.ndarray
    alpha: float
    period: int
    outline: int
    is_outlined: bool
    lines: tuple[np.ndarray, np.ndarray] | None
    beyond: Beyond | None

    def painted(self, top: int, bottom: int) -> np.ndarray:
        """Return RGBA (bottom - top, width, 4), uint8."""
        # An outline looks as many rows up and down as it is wide.
        above, below = max(0, top - self.outline), min(self.height, bottom + self.outline)
        levels, inner = self.levels(above, below), slice(top - above, bottom - above)
        is_hidden = None if self.beyond is None else self.beyond.between(above, below) > 0
        if is_hidden is not None:
            levels[is_hidden] = ZERO  # which closes outlines at the edge, too
        painted = paint(levels[inner], self.palettes, self.period, first_row=top)
        if self.lines is not None:
            painted[self.lines[0][top:bottom, None] | self.lines[1]] = (*_LINE, 90)
        # A dark line and a light one, of which either is seen on any image, around what is at least half as strong.
        for colour, is_outline in zip(EDGES, outlines(levels, self.outline), strict=True) if self.is_outlined else ():
            painted[is_outline[inner]] = (*colour, round(self.alpha * 200))
        if is_hidden is not None:
            painted[is_hidden[inner]] = 0
        return painted


def layer_of(heatmap: Image.Image | Array, image_size: Size, box: Box | None, colours: Colours) -> Layer:
    check_flags(grid=colours.grid)
    if colours.has_sign is not None:
        check_flags(has_sign=colours.has_sign)
    if colours.limit is not None:
        check_number("limit", colours.limit, above=0)
    if box is not None:
        check_box(box)
    lines = None
    if isinstance(heatmap, Image.Image):
        _check_picture(heatmap, image_size, colours)
        palettes, is_outlined = colours.palettes(None), colours.signed(None)

        def levels(top: int, bottom: int) -> np.ndarray:
            rows = np.asarray(heatmap.crop((0, top, heatmap.width, bottom)).convert("L"))
            return np.rint(rows.astype(np.float32) * (ZERO / 255) + ZERO).astype(np.uint8)

    else:
        values = finite_map(heatmap)
        palettes = colours.palettes(values)  # which refuses a style that there is not
        is_outlined = colours.signed(values)
        place = box or (0.0, 0.0, float(image_size[0]), float(image_size[1]))
        shown = values if colours.style == "signed" else values.clip(0)
        scaled = shown / (colours.full(values) or 1)
        lines = _lines(values.shape, place, image_size) if colours.grid else None

        def levels(top: int, bottom: int) -> np.ndarray:
            rows = placed_map(scaled, place, image_size, smooth=not colours.grid, between=(top, bottom))
            return np.rint(rows.clip(-1, 1) * ZERO + ZERO).astype(np.uint8)

    return Layer(
        levels=levels,
        height=image_size[1],
        palettes=palettes,
        alpha=colours.alpha,
        period=max(4, round(min(image_size) / 40)),
        outline=max(1, round(min(image_size) / 300)),
        is_outlined=is_outlined,
        lines=lines,
        beyond=pixels_beyond(box, image_size),
    )


def _check_picture(heatmap: Image.Image, image_size: Size, colours: Colours) -> None:
    if heatmap.size != tuple(image_size):
        raise ArgumentError(f"`heatmap` must be of the image's size {image_size}; got {heatmap.size}.")
    lacking = {
        'signs for style="signed"': colours.style == "signed",
        "patches for `grid`": colours.grid,
        "values for `limit`": colours.limit is not None,
    }
    for what, is_asked in lacking.items():
        if is_asked:
            raise ArgumentError(
                f'`heatmap` must be a map, such as result["attribution"]; got a picture, which has no {what}. '
                "Pass the map and its `box`."
            )


def _lines(grid: tuple[int, ...], box: Box, image_size: Size) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows and the columns of pixels where patches meet, bool (height,) and (width,)."""
    found = []
    for length, start, end, num_patches in zip(image_size[::-1], box[1::-1], box[:1:-1], grid, strict=True):
        edges = np.rint(np.linspace(start, end, num_patches + 1)[1:-1]).astype(int)
        is_line = np.zeros(length, bool)
        is_line[edges[(edges >= 0) & (edges < length)]] = True
        found.append(is_line)
    return found[0], found[1]
