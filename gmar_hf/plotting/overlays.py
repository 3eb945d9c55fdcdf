"""A map over its image: one hue for what speaks for the label, another for what speaks against it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from gmar_hf.errors import ArgumentError, ArgumentTypeError
from gmar_hf.images.placement import Box, check_box, finite_map, placed_map, scale_box, strips
from gmar_hf.images.reading import read_image
from gmar_hf.images.resizing import Size
from gmar_hf.plotting.captions import put_below
from gmar_hf.plotting.crops import EDGES, Beyond, mark_hidden, pixels_beyond
from gmar_hf.plotting.painting import ZERO, colour_words, outlines, paint, palettes_of
from gmar_hf.plotting.values import Array, full_colour, has_sign
from gmar_hf.utils.checks import check_flags, check_number, check_whole

_LINE = (128, 128, 128)  # between patches
_MUTED = 0.8  # share of grey in the image below a map


def overlay(
    image: Image.Image,
    heatmap: Image.Image | Array,
    *,
    box: Box | None = None,
    style: str = "positive",
    alpha: float = 0.85,
    colormap: str | None = None,
    grid: bool = False,
    limit: float | None = None,
    has_sign: bool | None = None,
    caption: str = "",
    sides: tuple[str, str] = ("for", "against"),
    has_numbers: bool = True,
    least_side: int = 1,
) -> Image.Image:
    """Lay a map over its image: the larger a value, the more of its colour covers the image; 0 covers nothing.

    What speaks for the label is orange to red; in the signed style, what speaks against it is blue with fine stripes,
    on the same scale, and lines surround what has at least half of the full colour. A map without a sign, which says
    where the model looks and no more, is magenta, and has no lines: the model looks a little everywhere. The image
    below is muted, so that the map's colours are not mistaken for its own, and greyed beyond a line where a crop hides
    it from the model.

    Args:
        image (PIL image): The image, which is read as the pipeline reads it: upright, its transparency dropped.
        heatmap (tensor or array (rows, cols), or PIL image of mode "L"): The map, a result's `attribution`; or a
            picture of the image's size, a result's `heatmap`, which knows neither signs nor patches.
        box (`tuple[float, float, float, float]`, *optional*): Left, top, right and bottom of what the map covers, in
            pixels of the image, a result's `box`; all of the image by default.
        style (`str`, defaults to "positive"): "positive" shows the values above 0, "signed" both signs.
        alpha (`float`, defaults to 0.85): Share of the colour where the map is largest, in [0, 1].
        colormap (`str`, *optional*): A colour map of matplotlib in place of these colours and stripes; in the signed
            style its middle stands for 0, as of "PuOr_r".
        grid (`bool`, defaults to `False`): Draw each patch in one colour between thin lines, since a map knows no more
            than that; by default colours run smoothly between the patches' centres.
        limit (`float`, *optional*): The size from which on values have the full colour; by default that which 5 % of
            the patches reach, so that a few strong ones do not leave all others pale. A picture has none.
        has_sign (`bool`, *optional*): Whether the map says what speaks for and against a label, and not only where
            the model looks; by default whether any of its values is below 0. A picture has no sign unless you say so.
        caption (`str`, defaults to ""): Text for a strip below the picture, in up to four lines, with the scale of
            the map's colours, what they mean, and from which value on there are lines, if there are. Say there what
            values count.
        sides (`tuple[str, str]`, defaults to ("for", "against")): What that legend calls what speaks for the label
            and what speaks against it.
        has_numbers (`bool`, defaults to `True`): Whether that scale bears numbers; False where amounts cannot be read.
        least_side (`int`, defaults to 1): Enlarge a smaller image, a whole number of times, until its longer side has
            so many pixels or more, before anything is drawn: lines on small photos are then smooth.

    Returns:
        PIL image, RGB, of the image's size, or so many times as large; with a caption as wide, and higher.

    Raises:
        ArgumentError: If sizes differ, `alpha` is out of range, the map is not finite, or a picture where the map
            itself is needed; or there is no such style or colour map, `limit` is not above 0, or `box` is no
            rectangle.
        ArgumentTypeError: If `caption` is no text, or `sides` not two of them.
    """
    if not isinstance(caption, str):
        raise ArgumentTypeError(f"`caption` must be a text; got {type(caption).__name__}. Convert it by `str`.")
    if not (isinstance(sides, tuple) and len(sides) == 2 and all(isinstance(side, str) for side in sides)):
        raise ArgumentTypeError(f"`sides` must be a pair of texts; got {sides!r}. Pass ('for', 'against').")
    check_flags(has_numbers=has_numbers)
    if box is not None:
        check_box(box)
    picture, heatmap, box = _enlarged(
        read_image(image), heatmap, box, check_whole("least_side", least_side, minimum=1)
    )
    colours = _Colours(style=style, alpha=alpha, colormap=colormap, grid=grid, limit=limit, has_sign=has_sign)
    layer = _layer(heatmap, picture.size, box, colours)
    for top, bottom in strips(picture.height):
        place = (0, top, picture.width, bottom)
        colour = picture.crop(place)
        base = Image.blend(colour, colour.convert("L").convert("RGB"), _MUTED)
        if layer.beyond is not None:
            base = Image.fromarray(mark_hidden(np.asarray(base), layer.beyond.between(top, bottom), layer.outline))
        painted = Image.fromarray(layer.painted(top, bottom))
        base.paste(painted, mask=painted)
        picture.paste(base, place)
    if not caption:
        return picture
    if isinstance(heatmap, Image.Image):  # of which it is not known how large its values were
        return put_below(picture, caption, None, ("", ""), "")
    values = finite_map(heatmap)
    largest, full = _largest(values, style), colours.full(values)
    is_both, is_cut = style == "signed" and bool(values.min() < 0), full < largest
    levels = np.linspace(0 if is_both else ZERO, 2 * ZERO, 256).round().astype(np.uint8)
    bar = Image.fromarray(paint(np.tile(levels, (16, 1)), colours.palettes(values), period=6))
    ends = (f"{'≤ ' if is_cut else ''}-{full:.2g}" if is_both else "0", f"{'≥ ' if is_cut else ''}{full:.2g}")
    words = [] if colormap else [colour_words(style, colours.signed(values), sides)]
    if colours.signed(values):
        strong = f"{full / 2:.2g} or more" if has_numbers else "half of the full colour or more"
        words.append(f"outlined: {strong}{', either way' if is_both else ''}")
    return put_below(picture, caption, bar if full else None, ends if has_numbers else ("", ""), "; ".join(words))


def _enlarged(
    image: Image.Image, heatmap: Image.Image | Array, box: Box | None, least_side: int
) -> tuple[Image.Image, Image.Image | Array, Box | None]:
    """Enlarge an image and what lies on it until its longer side has at least so many pixels."""
    factor = -(-least_side // max(image.size))
    if factor == 1:
        return image, heatmap, box
    size = (factor * image.width, factor * image.height)
    if isinstance(heatmap, Image.Image) and heatmap.size == image.size:
        heatmap = heatmap.resize(size, Image.Resampling.BILINEAR)
    large = image.resize(size, Image.Resampling.BICUBIC)
    return large, heatmap, None if box is None else scale_box(box, image.size, size)


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
    colours = _Colours(style=style, alpha=alpha, colormap=colormap, grid=grid, limit=limit, has_sign=has_sign)
    layer = _layer(heatmap, image_size, box, colours)
    whole = np.empty((image_size[1], image_size[0], 4), np.uint8)
    for top, bottom in strips(image_size[1]):
        whole[top:bottom] = layer.painted(top, bottom)
    return Image.fromarray(whole)


@dataclass(frozen=True, kw_only=True)
class _Colours:
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
class _Layer:
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


def _layer(heatmap: Image.Image | Array, image_size: Size, box: Box | None, colours: _Colours) -> _Layer:
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

    return _Layer(
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


def _check_picture(heatmap: Image.Image, image_size: Size, colours: _Colours) -> None:
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


def _largest(values: np.ndarray, style: str) -> float:
    """Return the largest size that is shown of a map."""
    return float(np.abs(values).max() if style == "signed" else values.max().clip(0))


def _lines(grid: tuple[int, ...], box: Box, image_size: Size) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows and the columns of pixels where patches meet, bool (height,) and (width,)."""
    found = []
    for length, start, end, num_patches in zip(image_size[::-1], box[1::-1], box[:1:-1], grid, strict=True):
        edges = np.rint(np.linspace(start, end, num_patches + 1)[1:-1]).astype(int)
        is_line = np.zeros(length, bool)
        is_line[edges[(edges >= 0) & (edges < length)]] = True
        found.append(is_line)
    return found[0], found[1]
