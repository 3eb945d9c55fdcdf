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
from gmar_hf.plotting.painting import ZERO, outlines, paint, palettes_of
from gmar_hf.plotting.values import Array, has_two_signs
from gmar_hf.utils.checks import check_flags, check_number, check_whole

_LINE = (128, 128, 128)  # between patches
_OUTLINES = ((60, 60, 60), (255, 255, 255))
_MUTED, _PALE = 0.8, 0.25  # share of grey in the image below a map; and of white where the model does not see it


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
    caption: str = "",
    least_side: int = 1,
) -> Image.Image:
    """Lay a map over its image: the larger a value, the more of its colour covers the image; 0 covers nothing.

    What speaks for the label is orange to red; in the signed style, what speaks against it is blue with fine stripes,
    on the same scale. Lines surround what has at least half of the full colour. The image below is muted, so
    that the map's colours are not mistaken for its own, and paler where a crop hides it from the model.

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
        limit (`float`, *optional*): The size from which on values have the full colour; by default the largest's. A
            smaller one brings out what a few strong patches leave pale. A picture has none.
        caption (`str`, defaults to ""): Text for a strip below the picture, in up to four lines, with the scale of
            the map's colours, and from which value on there are lines. Say there what the values count.
        least_side (`int`, defaults to 1): Enlarge a smaller image, a whole number of times, until its longer side has
            so many pixels or more, before anything is drawn: lines on small photos are then smooth.

    Returns:
        PIL image, RGB, of the image's size, or so many times as large; with a caption as wide, and higher.

    Raises:
        ArgumentError: If sizes differ, `alpha` is out of range, the map is not finite, or a picture where the map
            itself is needed; or there is no such style or colour map, `limit` is not above 0, or `box` is no
            rectangle.
        ArgumentTypeError: If `caption` is no text.
    """
    if not isinstance(caption, str):
        raise ArgumentTypeError(f"`caption` must be a text; got {type(caption).__name__}. Convert it by `str`.")
    if box is not None:
        check_box(box)
    picture, heatmap, box = _enlarged(
        read_image(image), heatmap, box, check_whole("least_side", least_side, minimum=1)
    )
    layer = _layer(heatmap, picture.size, box=box, style=style, alpha=alpha, colormap=colormap, grid=grid, limit=limit)
    for top, bottom in strips(picture.height):
        place = (0, top, picture.width, bottom)
        colour = picture.crop(place)
        base = Image.blend(colour, colour.convert("L").convert("RGB"), _MUTED)
        if (sight := layer.sight(top, bottom)) is not None:
            pale = Image.blend(base, Image.new("RGB", base.size, "white"), _PALE)
            base = Image.composite(base, pale, Image.fromarray(np.rint(sight * 255).astype(np.uint8)))
        painted = Image.fromarray(layer.painted(top, bottom))
        base.paste(painted, mask=painted)
        picture.paste(base, place)
    if not caption:
        return picture
    if isinstance(heatmap, Image.Image):  # of which it is not known how large its values were
        return put_below(picture, caption, None, ("", ""), "")
    values = finite_map(heatmap)
    largest, is_signed = _largest(values, style), has_two_signs(values, style)
    full, is_cut = (largest, False) if limit is None else (limit, limit < largest)
    levels = np.linspace(0 if is_signed else ZERO, 2 * ZERO, 256).round().astype(np.uint8)
    bar = Image.fromarray(paint(np.tile(levels, (16, 1)), palettes_of(style, alpha, colormap), period=6))
    ends = (f"{'≤ ' if is_cut else ''}-{full:.2g}" if is_signed else "0", f"{'≥ ' if is_cut else ''}{full:.2g}")
    below = f"outlined: {full / 2:.2g} or more{', either way' if is_signed else ''}"
    return put_below(picture, caption, bar if full else None, ends, below)


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
) -> Image.Image:
    """Draw what [`overlay`] lays over the image, and nothing else: for pages that set its opacity themselves.

    Args:
        heatmap (tensor or array (rows, cols), or PIL image of mode "L"): See [`overlay`].
        image_size (`tuple[int, int]`): Width and height of the image in pixels.
        box, style, alpha, colormap, grid, limit: See [`overlay`].

    Returns:
        PIL image, RGBA, of `image_size`: transparent where the map is 0 and outside of `box`.

    Raises:
        ArgumentError: See [`overlay`].
    """
    layer = _layer(heatmap, image_size, box=box, style=style, alpha=alpha, colormap=colormap, grid=grid, limit=limit)
    whole = np.empty((image_size[1], image_size[0], 4), np.uint8)
    for top, bottom in strips(image_size[1]):
        whole[top:bottom] = layer.painted(top, bottom)
    return Image.fromarray(whole)


@dataclass(frozen=True, kw_only=True)
class _Layer:
    """What lies over an image, to be painted strip by strip: photographs are large.

    Args:
        levels (`Callable`): From the first row that is wanted and the first that is not to the map's levels there, a
            uint8 array (rows, width).
        height (`int`): Of the image in pixels.
        palettes (array (2, 255, 4)): See [`_palettes`].
        alpha (`float`): Share of the colour where the map is largest.
        period, outline (`int`): Pixels from stripe to stripe, and of an outline.
        lines (`tuple` of bool arrays (height,) and (width,), *optional*): Rows and columns where patches meet.
        ramps (`tuple` of arrays (height,) and (width,), *optional*): How much the model sees of rows and columns.
    """

    levels: Callable[[int, int], np.ndarray]
    height: int
    palettes: np.ndarray
    alpha: float
    period: int
    outline: int
    lines: tuple[np.ndarray, np.ndarray] | None
    ramps: tuple[np.ndarray, np.ndarray] | None

    def painted(self, top: int, bottom: int) -> np.ndarray:
        """Return RGBA (bottom - top, width, 4), uint8."""
        # An outline looks as many rows up and down as it is wide.
        above, below = max(0, top - self.outline), min(self.height, bottom + self.outline)
        levels, inner = self.levels(above, below), slice(top - above, bottom - above)
        painted = paint(levels[inner], self.palettes, self.period, first_row=top)
        if self.lines is not None:
            painted[self.lines[0][top:bottom, None] | self.lines[1]] = (*_LINE, 90)
        # A dark line and a light one, of which either is seen on any image, around what is at least half as strong.
        for colour, is_outline in zip(_OUTLINES, outlines(levels, self.outline), strict=True):
            painted[is_outline[inner]] = (*colour, round(self.alpha * 200))
        if (sight := self.sight(top, bottom)) is not None:
            painted[..., 3] = np.rint(painted[..., 3] * sight)
        return painted

    def sight(self, top: int, bottom: int) -> np.ndarray | None:
        """Return how much the model sees of each pixel (bottom - top, width); None where it sees all of the image."""
        return None if self.ramps is None else np.outer(self.ramps[0][top:bottom], self.ramps[1])


def _layer(
    heatmap: Image.Image | Array,
    image_size: Size,
    *,
    box: Box | None,
    style: str,
    alpha: float,
    colormap: str | None,
    grid: bool,
    limit: float | None,
) -> _Layer:
    palettes = palettes_of(style, alpha, colormap)
    check_flags(grid=grid)
    if limit is not None:
        check_number("limit", limit, above=0)
    if box is not None:
        check_box(box)
    lines = None
    if isinstance(heatmap, Image.Image):
        _check_picture(heatmap, image_size, style, grid, limit)

        def levels(top: int, bottom: int) -> np.ndarray:
            rows = np.asarray(heatmap.crop((0, top, heatmap.width, bottom)).convert("L"))
            return np.rint(rows.astype(np.float32) * (ZERO / 255) + ZERO).astype(np.uint8)

    else:
        values = finite_map(heatmap) if style == "signed" else finite_map(heatmap).clip(0)
        place = box or (0.0, 0.0, float(image_size[0]), float(image_size[1]))
        scaled = values / (limit or _largest(values, style) or 1)
        lines = _lines(values.shape, place, image_size) if grid else None

        def levels(top: int, bottom: int) -> np.ndarray:
            rows = placed_map(scaled, place, image_size, smooth=not grid, between=(top, bottom))
            return np.rint(rows.clip(-1, 1) * ZERO + ZERO).astype(np.uint8)

    return _Layer(
        levels=levels,
        height=image_size[1],
        palettes=palettes,
        alpha=alpha,
        period=max(4, round(min(image_size) / 40)),
        outline=max(1, round(min(image_size) / 300)),
        lines=lines,
        ramps=_ramps(box, image_size),
    )


def _check_picture(heatmap: Image.Image, image_size: Size, style: str, grid: bool, limit: float | None) -> None:
    if heatmap.size != tuple(image_size):
        raise ArgumentError(f"`heatmap` must be of the image's size {image_size}; got {heatmap.size}.")
    if style == "signed" or grid or limit is not None:
        what = (
            'signs for style="signed"' if style == "signed" else "patches for `grid`" if grid else "values for `limit`"
        )
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


def _ramps(box: Box | None, image_size: Size) -> tuple[np.ndarray, np.ndarray] | None:
    """Return how much the model sees of rows (height,) and columns (width,): 1 inside of the box, softly to 0 beyond.

    None where the box covers the image.
    """
    width, height = image_size
    if box is None or (box[0] <= 0 and box[1] <= 0 and box[2] >= width and box[3] >= height):
        return None
    softness = max(2.0, min(image_size) / 15)
    ramps = []
    for length, start, end in ((height, box[1], box[3]), (width, box[0], box[2])):
        centre = np.arange(length, dtype=np.float32) + 0.5
        beyond = np.maximum(start - centre, centre - end).clip(0)
        ramps.append((1 - beyond / softness).clip(0).astype(np.float32))
    return ramps[0], ramps[1]
