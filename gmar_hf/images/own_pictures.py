"""Pictures that this package has drawn, which are not to be explained in their turn."""

import os
from pathlib import Path

from PIL import Image, PngImagePlugin

_SOFTWARE = ("Software", "gmar_hf")  # PNG's own word for what made a picture


def save_picture(picture: Image.Image, path: str | os.PathLike[str]) -> None:
    """Write a picture as PNG, with a mark by which [`is_own_picture`] knows it."""
    mark = PngImagePlugin.PngInfo()
    mark.add_text(*_SOFTWARE)
    picture.save(path, "PNG", pnginfo=mark)


def is_own_picture(path: str | os.PathLike[str]) -> bool:
    """Tell whether [`save_picture`] has written a file; only its head is read."""
    if Path(path).suffix.lower() != ".png":
        return False
    try:
        with Image.open(path) as picture:
            key, value = _SOFTWARE
            return picture.info.get(key) == value
    except Exception:  # what it is instead is told where it is read
        return False
