"""Text below and above pictures."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from gmar_hf.images.reading import read_image
from gmar_hf.utils.text import printable

_MOST_LINES = 6  # of a caption


def put_below(
    picture: Image.Image, text: str, bar: Image.Image | None, ends: tuple[str, str], below: str
) -> Image.Image:
    """Put a white strip below a picture: lines of text, and below these a bar of colours between its ends' names.

    Args:
        picture (PIL image, RGB): What the strip goes below.
        text (`str`): Wrapped between words; see [`_wrapped`] for what is too long all the same.
        bar (PIL image, RGBA, *optional*): Colours, stretched to fit; no bar, and nothing below it, without.
        ends (`tuple[str, str]`): What stands left and right of the bar.
        below (`str`): Text below the bar, wrapped likewise.

    Returns:
        PIL image, RGB, of the same width.
    """
    width, height = picture.size
    font = _font(picture.size)
    line = _line_height(font)
    margin = max(2, line // 4)
    above = _wrapped(text, width - 2 * margin, font)
    under = [] if bar is None else _wrapped(below, width - 2 * margin, font)
    num_lines = len(above) + (0 if bar is None else 1) + len(under)
    strip = Image.new("RGB", (width, height + num_lines * line + 2 * margin), "white")
    strip.paste(picture, (0, 0))
    draw = ImageDraw.Draw(strip)
    top = height + margin
    for words in above:
        draw.text((margin, top), words, fill="black", font=font)
        top += line
    if bar is None:
        return strip
    # From left to right: an end, the bar, the other end.
    left = margin + int(font.getlength(ends[0])) + margin
    length = max(8, min(int(width - left - 2 * margin - font.getlength(ends[1])), width // 2))
    draw.text((margin, top), ends[0], fill="black", font=font)
    colours = bar.resize((length, max(4, line * 2 // 3)), Image.Resampling.BILINEAR)
    strip.paste(colours, (left, top + line // 6), mask=colours)
    draw.rectangle((left, top + line // 6, left + length - 1, top + line // 6 + colours.height - 1), outline="grey")
    draw.text((left + length + margin, top), ends[1], fill="black", font=font)
    for words in under:
        top += line
        draw.text((margin, top), words, fill="black", font=font)
    return strip


def side_by_side(pictures: Mapping[str, Image.Image | Callable[[], Image.Image]]) -> Image.Image:
    """Put pictures of one width into a row, each under its name.

    Args:
        pictures (`Mapping[str, PIL image or Callable]`): By name, of one width; of captions some are higher. Letters
            that matplotlib's own font lacks are boxes. A function draws a picture when its turn comes, so that large
            ones are not in memory together.

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
        elif top + picture.height > row.height:  # its caption takes more lines than those before it
            higher = Image.new("RGB", (row.width, top + picture.height), "white")
            higher.paste(row)
            row, draw = higher, ImageDraw.Draw(higher)
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


def _wrapped(text: str, width: int, font: Any) -> list[str]:
    """Return a text as lines that fit, broken between words; what is too long all the same ends in dots."""
    lines: list[str] = []
    for word in re.split(r" (?!·)", printable(" ".join(text.split()))):
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        elif len(lines) == _MOST_LINES:
            lines[-1] = _cut(f"{lines[-1]} {word}", width, font)
            break
        else:
            lines.append(_cut(word, width, font))
    return lines


def _cut(text: str, width: int, font: Any) -> str:
    """Return as much of a text as fits, with dots where something is missing, on one line."""
    text = printable(" ".join(text.split()))
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text.rstrip()}…"
