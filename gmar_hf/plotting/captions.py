"""Text below and above pictures."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from gmar_hf.images.reading import read_image
from gmar_hf.utils.text import printable


def put_below(picture: Image.Image, text: str, bar: Image.Image | None, ends: tuple[str, str]) -> Image.Image:
    """Put a white strip below a picture: one line of text, and one with a bar of colours between its ends' names.

    Args:
        picture (PIL image, RGB): What the strip goes below.
        text (`str`): Cut where the picture ends.
        bar (PIL image, RGBA, *optional*): Colours, stretched to fit; no second line without it.
        ends (`tuple[str, str]`): What stands left and right of the bar.

    Returns:
        PIL image, RGB, of the same width.
    """
    width, height = picture.size
    font = _font(picture.size)
    line = _line_height(font)
    margin = max(2, line // 4)
    strip = Image.new("RGB", (width, height + (line if bar is None else 2 * line) + 2 * margin), "white")
    strip.paste(picture, (0, 0))
    draw = ImageDraw.Draw(strip)
    draw.text((margin, height + margin), _cut(text, width - 2 * margin, font), fill="black", font=font)
    if bar is None:
        return strip
    # From left to right: an end, the bar, the other end.
    top, left = height + margin + line, margin + int(font.getlength(ends[0])) + margin
    length = max(8, min(int(width - left - 2 * margin - font.getlength(ends[1])), width // 2))
    draw.text((margin, top), ends[0], fill="black", font=font)
    colours = bar.resize((length, max(4, line * 2 // 3)), Image.Resampling.BILINEAR)
    strip.paste(colours, (left, top + line // 6), mask=colours)
    draw.rectangle((left, top + line // 6, left + length - 1, top + line // 6 + colours.height - 1), outline="grey")
    draw.text((left + length + margin, top), ends[1], fill="black", font=font)
    return strip


def side_by_side(pictures: Mapping[str, Image.Image | Callable[[], Image.Image]]) -> Image.Image:
    """Put pictures of one size into a row, each under its name.

    Args:
        pictures (`Mapping[str, PIL image or Callable]`): By name; letters that matplotlib's own font lacks are boxes.
            A function draws a picture when its turn comes, so that large ones are not in memory together.

    Returns:
        PIL image, RGB.
    """
    row = None
    for place, (name, source) in enumerate(pictures.items()):
        picture = source() if callable(source) else read_image(source)
        if row is None:
            width, height = picture.size
            gap = max(4, width // 50)
            font = _font((width, height))
            top = _line_height(font)
            row = Image.new("RGB", (len(pictures) * (width + gap) - gap, height + top), "white")
            draw = ImageDraw.Draw(row)
        left = place * (width + gap)
        draw.text((left, 1), _cut(name, width, font), fill="black", font=font)
        row.paste(picture, (left, top))
        del picture  # before the next one is drawn
    assert row is not None, "no pictures"
    return row


def _font(size: tuple[int, int]) -> Any:
    """Return the font that matplotlib brings along, which knows more scripts than Pillow's, to suit a picture."""
    import matplotlib

    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf"), max(10, min(size) // 22))


def _line_height(font: Any) -> int:
    return int(sum(font.getmetrics())) + 2


def _cut(text: str, width: int, font: Any) -> str:
    """Return as much of a text as fits, with dots where something is missing, on one line."""
    text = printable(" ".join(text.split()))
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text.rstrip()}…"
