"""Image files under names that may be shown: read for data sets, whose reports tell no folder of the user's."""

import os
import re
import traceback
import warnings
from io import BytesIO
from typing import Any

from PIL import Image

from gmar_hf.errors import ImageError
from gmar_hf.images.decoding import decoding_error
from gmar_hf.images.reading import read_named
from gmar_hf.utils.text import printable


def read_file(path: str | os.PathLike[str], name: str) -> Image.Image:
    """Read an image file as [`read_image`] does; errors call it by its name.

    Raises:
        ImageError: If there is no image to read.
    """
    return read_bytes(file_content(path, name), name)


def read_bytes(content: bytes, name: str) -> Image.Image:
    """Read an image from the bytes of an image file, which errors call by its name."""
    with open_bytes(content, name) as image:
        return read_named(image, name)


def file_content(path: str | os.PathLike[str], name: str, argument: str = "image") -> bytes:
    """Return the bytes of a file.

    Args:
        path (`str` or `os.PathLike`): Where it lies.
        name (`str`): What the error calls the file.
        argument (`str`, defaults to "image"): What the error calls the argument that the file was given for.

    Raises:
        ImageError: If the file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise ImageError(
            f"`{argument}` must be a file that can be read; got {name!r} ({error.strerror}). "
            "Check that it is there and that you may read it."
        ) from error


def open_bytes(content: bytes, name: str, argument: str = "image") -> Image.Image:
    """Open an image of the bytes of its file without decoding it.

    Args:
        content (`bytes`): The file's bytes.
        name (`str`): What errors call the file.
        argument (`str`, defaults to "image"): What errors call the argument that the file was given for.

    Raises:
        ImageError: If Pillow knows no image in them.
    """
    if not content:
        raise ImageError(f"`{argument}` must hold an image; got {name!r}, an empty file. Copy or download it again.")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\.")  # as `read_image` does
            return Image.open(BytesIO(content))
    except Exception as error:  # decoders meet broken data with errors of any kind
        raise decoding_error(error, repr(name), argument, start=content) from error


def reason(error: BaseException) -> str:
    """Return an error's text in one line for a report, without addresses in memory, which differ each time.

    Example:
        >>> reason(OSError("cannot identify image file <_io.BytesIO object at 0x7f9c28424940>"))
        'cannot identify image file'
    """
    text = re.sub(r"\s*<\S+ object at 0x[0-9a-fA-F]+>", "", str(error))
    return printable(" ".join(text.split())) or type(error).__name__


def is_bad_image(error: Exception) -> bool:
    """Tell whether an error says that an image cannot be read: an error of the system, or one raised inside Pillow."""
    return isinstance(error, OSError) or is_of_pillow(error)


def is_of_pillow(error: Exception) -> bool:
    """Tell whether Pillow raised an error; it meets broken files with SyntaxError, struct.error and many others."""
    innermost = [frame for frame, _ in traceback.walk_tb(error.__traceback__)][-1:]
    of_pillow = any(frame.f_globals.get("__name__", "").startswith("PIL.") for frame in innermost)
    return of_pillow and not isinstance(error, MemoryError)


def file_name(source: Any) -> str:
    """Return the last part of a path, a URL or the path that a PIL image was opened from; "" where there is none."""
    text = getattr(source, "filename", "") if isinstance(source, Image.Image) else source
    if not isinstance(text, str | os.PathLike):
        return ""
    text = os.fspath(text)
    return "" if not isinstance(text, str) or len(text) > 4096 else re.split(r"[\\/]", text.partition("?")[0])[-1]
