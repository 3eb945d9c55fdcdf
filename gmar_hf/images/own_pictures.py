"""Pictures that this package has drawn, which are neither explained in their turn nor images of a data set."""

import os
from pathlib import Path

from PIL import Image, PngImagePlugin

from gmar_hf.utils.own_files import IMAGE, PNG_MARK, look_at

MARK = dict([PNG_MARK])
"""PNG's own word for what made a picture, as matplotlib takes it for `metadata`."""

_COMPRESSION = 2  # photographs come out a tenth larger than by the default of 6, in a quarter of the time


def save_picture(picture: Image.Image, path: str | os.PathLike[str], image: str | None = None) -> None:
    """Write a picture as PNG, with a mark by which [`is_own_picture`] knows it.

    Args:
        picture (PIL image): What is drawn.
        path (`str` or `os.PathLike`): The file.
        image (`str`, *optional*): Of which image it is: its digest, which the file then tells.
    """
    mark = PngImagePlugin.PngInfo()
    for key, value in {**MARK, **({} if image is None else {IMAGE: image})}.items():
        mark.add_text(key, value)
    picture.save(path, "PNG", pnginfo=mark, compress_level=_COMPRESSION)


def is_own_picture(path: str | os.PathLike[str]) -> bool:
    """Tell whether a file is a PNG with our mark; only what stands before its pixels is read."""
    return Path(path).suffix.lower() == ".png" and look_at(Path(path)) is not None
