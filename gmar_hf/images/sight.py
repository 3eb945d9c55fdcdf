"""How much of an image a model sees, in words for whoever looks at its maps."""

from collections.abc import Iterable

from gmar_hf.images.placement import Box
from gmar_hf.images.resizing import Size

_ALMOST_ALL = 0.985  # what whole patches leave over at an edge is not worth a word


def seen_share(box: Box, image_size: Size) -> float:
    """Return the share of an image that lies in a box, in [0, 1].

    Args:
        box (`tuple[float, float, float, float]`): Left, top, right, bottom of what a map covers, in pixels.
        image_size (`tuple[int, int]`): The image's width and height in pixels.

    Example:
        >>> seen_share((50, 0, 150, 100), (200, 100))
        0.5
    """
    width, height = image_size
    columns = max(0.0, min(box[2], width) - max(box[0], 0))
    rows = max(0.0, min(box[3], height) - max(box[1], 0))
    return columns * rows / (width * height)


def sight_mark(share: float) -> str:
    """Say the same as [`sight_note`] in a few words, for captions.

    Example:
        >>> sight_mark(0.5), sight_mark(1.0)
        ('middle 50% seen', '')
    """
    return "" if share >= _ALMOST_ALL else f"middle {share:.0%} seen"


def sight_note(share: float) -> str:
    """Say that a crop hid a part of an image from the model; nothing where it saw all of it, or almost.

    Example:
        >>> sight_note(0.5), sight_note(1.0)
        ('The model saw only the middle of this picture, 50% of it; the rest, which is grey, was cropped.', '')
    """
    if share >= _ALMOST_ALL:
        return ""
    return f"The model saw only the middle of this picture, {share:.0%} of it; the rest, which is grey, was cropped."


def sight_of_several(shares: Iterable[float]) -> str:
    """Say the same of several images in one sentence.

    Example:
        >>> sight_of_several([0.5, 0.75, 1.0])
        'The model saw only the middle of 2 of 3 pictures, 50% to 75% of each; the rest, which is grey, was cropped.'
    """
    known = list(shares)
    cropped = [share for share in known if share < _ALMOST_ALL]
    if not cropped or len(known) == 1:
        return sight_note(*known) if len(known) == 1 else ""
    low, high = f"{min(cropped):.0%}", f"{max(cropped):.0%}"
    shown = low if low == high else f"{low} to {high}"
    which = f"{len(cropped)} of {len(known)} pictures"
    return f"The model saw only the middle of {which}, {shown} of each; the rest, which is grey, was cropped."
