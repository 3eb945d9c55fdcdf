"""A map over its image: one hue for what speaks for the label, another for what speaks against it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from gmar_hf.errors import ArgumentError
from gmar_hf.images.placement import Box, finite_map, placed_map, strips
from gmar_hf.images.reading import read_image
from gmar_hf.images.resizing import Size
from gmar_hf.plotting.captions import put_below
from gmar_hf.plotting.values import Array
from gmar_hf.utils.checks import check_choice, check_share

OVERLAY_STYLES = ("positive", "signed")

# From weak to strong, in sRGB. The colour-blind tell orange from blue; stronger is darker on white, lighter on black.
_FOR = ((252, 163, 17), (208, 52, 10))
_AGAINST = ((92, 156, 232), (16, 66, 160))
_STRIPE = (240, 246, 255)  # through what speaks against, which looks different in grey, too
_LINE = (128, 128, 128)  # between patches
_OUTLINES = ((60, 60, 60), (255, 255, 255))
_ZERO = 127  # the middle one of 255 levels
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
    caption: str = "",
) -> Image.Image:
    """Lay a map over its image: the larger a value, the more of its colour covers the image; 0 covers nothing.

    What speaks for the label is orange to red; in the signed style, what speaks against it is blue with fine stripes,
    on the same scale. Lines surround what is at least half as strong as the strongest. The image below is muted, so
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
        caption (`str`, defaults to ""): Text for a strip below the picture, with the scale of the map's colours.

    Returns:
        PIL image, RGB, of the image's size; with a caption as wide, and higher.

    Raises:
        ArgumentError: If sizes differ, `alpha` is out of range, the map is not finite, or a picture where the map
            itself is needed; or there is no such style or colour map.
    """
    picture = read_image(image)
    layer = _layer(heatmap, picture.size, box=box, style=style, alpha=alpha, colormap=colormap, grid=grid)
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
    # Of a picture it is not known how large its values were.
    limit = 0.0 if isinstance(heatmap, Image.Image) else _limit(finite_map(heatmap), style)
    levels = np.linspace(_ZERO if style == "positive" else 0, 2 * _ZERO, 256).round().astype(np.uint8)
    bar = Image.fromarray(_paint(np.tile(levels, (16, 1)), _palettes(style, alpha, colormap), period=6))
    ends = (f"-{limit:.2g}" if style == "signed" else "0", f"{limit:.2g}")
    return put_below(picture, caption, bar if limit else None, ends)


def map_layer(
    heatmap: Image.Image | Array,
    image_size: Size,
    *,
    box: Box | None = None,
    style: str = "positive",
    alpha: float = 0.85,
    colormap: str | None = None,
    grid: bool = False,
) -> Image.Image:
    """Draw what [`overlay`] lays over the image, and nothing else: for pages that set its opacity themselves.

    Args:
        heatmap (tensor or array (rows, cols), or PIL image of mode "L"): See [`overlay`].
        image_size (`tuple[int, int]`): Width and height of the image in pixels.
        box, style, alpha, colormap, grid: See [`overlay`].

    Returns:
        PIL image, RGBA, of `image_size`: transparent where the map is 0 and outside of `box`.

    Raises:
        ArgumentError: See [`overlay`].
    """
    layer = _layer(heatmap, image_size, box=box, style=style, alpha=alpha, colormap=colormap, grid=grid)
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
        painted = _paint(levels[inner], self.palettes, self.period, first_row=top)
        if self.lines is not None:
            painted[self.lines[0][top:bottom, None] | self.lines[1]] = (*_LINE, 90)
        # A dark line and a light one, of which either is seen on any image, around what is at least half as strong.
        for colour, is_outline in zip(_OUTLINES, _outlines(levels, self.outline), strict=True):
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
) -> _Layer:
    palettes = _palettes(style, alpha, colormap)
    lines = None
    if isinstance(heatmap, Image.Image):
        _check_picture(heatmap, image_size, style, grid)

        def levels(top: int, bottom: int) -> np.ndarray:
            rows = np.asarray(heatmap.crop((0, top, heatmap.width, bottom)).convert("L"))
            return np.rint(rows.astype(np.float32) * (_ZERO / 255) + _ZERO).astype(np.uint8)

    else:
        values = finite_map(heatmap) if style == "signed" else finite_map(heatmap).clip(0)
        place = box or (0.0, 0.0, float(image_size[0]), float(image_size[1]))
        scaled = values / (_limit(values, style) or 1)
        lines = _lines(values.shape, place, image_size) if grid else None

        def levels(top: int, bottom: int) -> np.ndarray:
            rows = placed_map(scaled, place, image_size, smooth=not grid, between=(top, bottom))
            return np.rint(rows * _ZERO + _ZERO).astype(np.uint8)

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


def _check_picture(heatmap: Image.Image, image_size: Size, style: str, grid: bool) -> None:
    if heatmap.size != tuple(image_size):
        raise ArgumentError(f"`heatmap` must be of the image's size {image_size}; got {heatmap.size}.")
    if style == "signed" or grid:
        what = 'signs for style="signed"' if style == "signed" else "patches for `grid`"
        raise ArgumentError(
            f'`heatmap` must be a map, such as result["attribution"]; got a picture, which has no {what}. '
            "Pass the map and its `box`."
        )


def _limit(values: np.ndarray, style: str) -> float:
    """Return the value that gets the strongest colour."""
    return float(np.abs(values).max() if style == "signed" else values.max().clip(0))


def _palettes(style: str, alpha: float, colormap: str | None) -> np.ndarray:
    """Return two tables of RGBA (2, 255, 4), uint8: the colours of levels from -1 to 1, and those of the stripes."""
    import matplotlib

    check_choice("style", style, OVERLAY_STYLES)
    check_share("alpha", alpha)
    levels = (np.arange(2 * _ZERO + 1) - _ZERO) / _ZERO
    size = np.abs(levels)[:, None]
    if colormap is None:
        weak, strong = (np.where(levels[:, None] > 0, *ends) for ends in zip(_FOR, _AGAINST, strict=True))
        plain = weak + (strong - weak) * size
        stripes = np.where(levels[:, None] < 0, _STRIPE, plain)
    elif colormap in matplotlib.colormaps:
        along = (levels + 1) / 2 if style == "signed" else levels.clip(0)
        plain = stripes = matplotlib.colormaps[colormap](along)[:, :3] * 255
    else:
        raise ArgumentError(f"`colormap` must be one that matplotlib knows, such as 'viridis'; got {colormap!r}.")
    tables = [np.concatenate([colours, alpha * 255 * size], axis=1) for colours in (plain, stripes)]
    return np.rint(tables).astype(np.uint8)


def _paint(levels: np.ndarray, palettes: np.ndarray, period: int, first_row: int = 0) -> np.ndarray:
    """Return RGBA (rows, width, 4) of levels (rows, width), with diagonal stripes every so many pixels.

    Args:
        first_row (`int`, defaults to 0): Where the first of the rows stands in the picture.
    """
    # Four bytes as one number: photographs have millions of pixels.
    plain, striped = palettes.view(np.uint32)[..., 0]
    painted = plain[levels]
    if (plain != striped).any():
        rows = np.arange(first_row, first_row + len(levels))[:, None]
        is_stripe = (rows + np.arange(levels.shape[1], dtype=np.int32)) % period < max(1, period // 4)
        painted[is_stripe] = striped[levels[is_stripe]]
    return painted[..., None].view(np.uint8)


def _outlines(levels: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return lines just outside and just inside of what has half of the strongest colour or more, (height, width)."""
    outside, inside = np.zeros(levels.shape, bool), np.zeros(levels.shape, bool)
    height, length = levels.shape
    for is_strong in (levels >= 1.5 * _ZERO, levels <= 0.5 * _ZERO):
        if not is_strong.any():
            continue
        padded = np.pad(is_strong, width, mode="edge")
        # The neighbours below, above, right and left.
        shifts = ((2 * width, width), (0, width), (width, 2 * width), (width, 0))
        for top, left in shifts:
            is_near = padded[top : top + height, left : left + length]
            outside |= is_near & ~is_strong
            inside |= is_strong & ~is_near
    return outside, inside


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
