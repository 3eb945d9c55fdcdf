"""The overlay of one of the pipeline's results, whose entries say how its map is to be drawn."""

from collections.abc import Mapping
from typing import Any

from PIL import Image

from gmar_hf.images.placement import Box, finite_map
from gmar_hf.plotting.overlays import overlay
from gmar_hf.plotting.result_words import caption_of, has_amounts, sides_of
from gmar_hf.plotting.saturation import SATURATED
from gmar_hf.plotting.values import full_colour, has_sign


def overlay_of(
    image: Image.Image,
    result: Mapping[str, Any],
    *,
    box: Box | None = None,
    style: str = "signed",
    grid: bool = False,
    saturated: float = SATURATED,
    caption: bool = False,
    least_side: int = 1,
) -> Image.Image:
    """Lay a result's map over its image.

    Args:
        image (PIL image): The image, upright.
        result (`Mapping[str, Any]`): One of the pipeline's.
        box (`tuple[float, float, float, float]`, *optional*): What the map covers of a copy of another size; else
            the result's own.
        saturated (`float`, defaults to 0.05): Share of the patches that have the full colour, see [`full_colour`].
        caption (`bool`, defaults to `False`): Put [`caption_of`] and the map's scale below.
        style, grid, least_side: See [`overlay`].

    Returns:
        PIL image, RGB.
    """
    attribution = result["attribution"]
    words: dict[str, Any] = {"caption": caption_of(result, image.size), "sides": sides_of(result)} if caption else {}
    return overlay(
        image,
        attribution,
        box=result["box"] if box is None else box,
        style=style,
        grid=grid,
        limit=full_colour(finite_map(attribution), style, saturated) or None,
        has_sign=has_sign(attribution, result.get("unit", "")),
        has_numbers=has_amounts(result),
        least_side=least_side,
        **words,
    )
