"""What a crop hides from the model, on the image: greyed beyond a line that is seen on any image."""

from typing import NamedTuple

import numpy as np

from gmar_hf.images.placement import Box
from gmar_hf.images.resizing import Size

VEIL = (160, 0.45)
"""A grey, and its share in what the model does not see: white gets darker, black lighter, and all of it duller."""

EDGES = ((60, 60, 60), (255, 255, 255))
"""A dark line and a light one beside each other, of which either is seen on any image."""


class Beyond(NamedTuple):
    """How many pixels each row and each column lies beyond a box, 0 inside of it: int (height,) and (width,)."""

    rows: np.ndarray
    columns: np.ndarray

    def between(self, top: int, bottom: int) -> np.ndarray:
        """Return how far each pixel of these rows lies beyond the box, (bottom - top, width)."""
        return np.maximum.outer(self.rows[top:bottom], self.columns)


def pixels_beyond(box: Box | None, image_size: Size) -> Beyond | None:
    """Return how far pixels lie beyond a box; None where it covers the image, or there is none.

    Args:
        box (`tuple[float, float, float, float]`, *optional*): Left, top, right and bottom of what the model sees.
        image_size (`tuple[int, int]`): The image's width and height in pixels.

    Example:
        >>> pixels_beyond((2, 0, 4, 1), (6, 1)).between(0, 1).tolist()
        [[2, 1, 0, 0, 1, 2]]
    """
    if box is None:
        return None
    distances = []
    for length, start, end in zip(image_size[::-1], box[1::-1], box[:1:-1], strict=True):
        centre = np.arange(length) + 0.5
        distances.append(np.ceil(np.maximum(start - centre, centre - end).clip(0)).astype(int))
    beyond = Beyond(*distances)
    return beyond if beyond.rows.any() or beyond.columns.any() else None


def mark_hidden(pixels: np.ndarray, beyond: np.ndarray, width: int) -> np.ndarray:
    """Grey what lies beyond a box, and draw two lines around the box.

    Args:
        pixels (uint8 array (rows, width, 3)): Of the image.
        beyond (int array (rows, width)): How far each lies beyond the box.
        width (`int`): Of each line, in pixels.
    """
    grey, share = VEIL
    veiled = np.rint(pixels + (grey - pixels.astype(np.float32)) * share).astype(np.uint8)
    marked: np.ndarray = np.where((beyond > 0)[..., None], veiled, pixels)
    for place, colour in enumerate(EDGES):
        marked[(beyond > place * width) & (beyond <= (place + 1) * width)] = colour
    return marked
