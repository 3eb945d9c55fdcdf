"""What results look like in notebooks: small pictures with text below, as HTML in which all text is escaped."""

import base64
import html
import io
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from PIL import Image

from gmar_hf.images.placement import scale_box
from gmar_hf.plotting.overlays import overlay
from gmar_hf.plotting.result_overlay import overlay_of
from gmar_hf.utils.missing_heads import rank_heads
from gmar_hf.utils.text import printable

SIDE = 224  # pixels of a small picture's longer side
_CELL = 12  # pixels of a head or a patch where there is no image


def thumbnail(image: Image.Image) -> Image.Image:
    """Return an image, RGB, whose longer side has `SIDE` pixels."""
    factor = SIDE / max(image.size)
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return (image if image.mode == "RGB" else image.convert("RGB")).resize(size, reducing_gap=2.0)


def map_on(small: Image.Image, result: Mapping[str, Any], image_size: tuple[int, int]) -> Image.Image:
    """Lay a result's map, signs and all, over a small copy of its image.

    Args:
        small (PIL image): The copy.
        result (`Mapping[str, Any]`): Its `attribution`, `box` in pixels of the image itself, and `unit`.
        image_size (`tuple[int, int]`): The image's width and height.
    """
    return overlay_of(small, result, box=scale_box(result["box"], image_size, small.size))


def matrix(values: torch.Tensor, **how: Any) -> Image.Image:
    """Draw a map (rows, cols) as cells in the colours of [`overlay`], grey where there is no number (NaN).

    Args:
        values (`torch.Tensor`): The map.
        **how: `limit` and `has_sign` of [`overlay`].
    """
    rows, cols = values.shape
    white = Image.new("RGB", (cols * _CELL, rows * _CELL), "white")
    picture = overlay(white, values.nan_to_num(0.0), style="signed", grid=True, **how)
    for row, col in values.isnan().nonzero().tolist():
        picture.paste("lightgrey", (col * _CELL, row * _CELL, (col + 1) * _CELL, (row + 1) * _CELL))
    return picture


def matrix_of_heads(values: torch.Tensor, *, is_signed: bool) -> Image.Image:
    """Draw a number a head (layers, heads) as cells: red above 0, blue and striped below; magenta without a sign."""
    largest = values.nan_to_num(0.0).abs().max().item()
    return matrix(values, has_sign=is_signed, limit=largest or None)


def strongest(values: torch.Tensor, k: int) -> list[tuple[int, int, float]]:
    """Return layer, head and number of the largest magnitudes of (layers, heads), the largest first; none of NaN.

    Example:
        >>> strongest(torch.tensor([[1.0, -3.0], [0.0, 2.0]]), 2)
        [(0, 1, -3.0), (1, 1, 2.0)]
    """
    num_there = int((~values.isnan()).sum())
    return [(*place, values[place].item()) for place in rank_heads(values.abs())[: min(k, num_there)]]


def head_text(values: torch.Tensor, *, is_signed: bool, k: int = 3) -> str:
    """Name the strongest heads of (layers, heads), such as "heads: 11.3 +0.41 logits"."""
    listed = [
        f"{layer}.{head} {value:{'+.2f' if is_signed else '.0%'}}" for layer, head, value in strongest(values, k)
    ]
    return f"heads: {', '.join(listed)} {'logits' if is_signed else 'of the layer'}"


def card(pictures: Iterable[Image.Image], title: str, *lines: str) -> str:
    """Put pictures beside each other, with a title and lines of text below."""
    style = "margin:0 4px 0 0;max-width:none"
    images = "".join(
        f'<img alt="{_escaped(title)}" style="{style}" src="data:image/png;base64,{_base64(picture)}">'
        for picture in pictures
    )
    text = "".join(f"<div>{_escaped(line)}</div>" for line in lines)
    return (
        f'<figure style="display:inline-block;vertical-align:top;margin:4px;font-size:12px">{images}'
        f"<figcaption><b>{_escaped(title)}</b>{text}</figcaption></figure>"
    )


def _base64(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def _escaped(text: str) -> str:
    return html.escape(printable(text))
