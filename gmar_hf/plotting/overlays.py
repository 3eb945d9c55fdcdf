"""A map over its image: one hue for what speaks for the label, another for what speaks against it."""

import numpy as np
from PIL import Image

from gmar_hf.errors import ArgumentTypeError
from gmar_hf.images.placement import Box, check_box, finite_map, scale_box, strips
from gmar_hf.images.reading import read_image
from gmar_hf.plotting.captions import put_below
from gmar_hf.plotting.crops import mark_hidden
from gmar_hf.plotting.map_layers import Colours, layer_of
from gmar_hf.plotting.painting import ZERO, colour_words, paint
from gmar_hf.plotting.values import Array
from gmar_hf.utils.checks import check_flags, check_whole

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
        caption (`str`, defaults to ""): Text for a strip below the picture, in up to six lines, with the scale of
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
    colours = Colours(style=style, alpha=alpha, colormap=colormap, grid=grid, limit=limit, has_sign=has_sign)
    layer = layer_of(heatmap, picture.size, box, colours)
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
    words = [] if colormap else colour_words(style, colours.signed(values), sides)
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


def _largest(values: np.ndarray, style: str) -> float:
    """Return the largest size that is shown of a map."""
    return float(np.abs(values).max() if style == "signed" else values.max().clip(0))
