"""Is an image the one that results are of? Its size tells, since boxes are in its pixels."""

from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from gmar_hf.errors import ArgumentError


def check_same_image(argument: str, picture: Image.Image, results: Sequence[Mapping[str, Any]]) -> None:
    """Refuse an image of another size than the one that the results' maps were placed on: they would lie elsewhere.

    Args:
        argument (`str`): What the image was given as.
        picture (PIL image): Read, and upright.
        results (`Sequence[Mapping[str, Any]]`): Of the pipeline; plain dicts, such as those of a file, tell no size.

    Raises:
        ArgumentError: If a result is of an image of another size.
    """
    for result in results:
        width, height = getattr(result, "image_size", picture.size)
        if (width, height) != picture.size:
            raise ArgumentError(
                f"`{argument}` must be the image that was explained, of {height} x {width} pixels; got one of "
                f"{picture.height} x {picture.width}. Explain the one that you want to show."
            )
