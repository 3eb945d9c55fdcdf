"""From a file's bytes to an image, or to the reason why there is none; it never says in which folder the file lies."""

import os
import re
import traceback
import warnings
from io import BytesIO
from typing import Any

from PIL import Image, UnidentifiedImageError

from ..errors import ImageError
from ..images import read_image
from ..labels import printable


def read_file(path: str | os.PathLike[str], name: str) -> Image.Image:
    """Read an image file.

    Args:
        path (`str` or `os.PathLike`): Where it lies.
        name (`str`): What errors call it.

    Returns:
        A new image, mode "RGB", as of `gmar_hf.images.read_image`.

    Raises:
        ImageError: If there is no image to read.
    """
    return read_bytes(file_content(path, name), name)


def read_bytes(content: bytes, name: str) -> Image.Image:
    """Read an image from an image file's bytes; otherwise as [`read_file`]."""
    with opened(content, name) as image:
        return read_opened(image, name)


def file_content(path: str | os.PathLike[str], name: str) -> bytes:
    """The bytes of a file; otherwise as [`read_file`]."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise ImageError(
            f"`image` must be a file that can be read; got {name!r} ({error.strerror}). "
            "Check that it is there and that you may read it."
        ) from error


def opened(content: bytes, name: str) -> Image.Image:
    """An image file's bytes as an image that is not decoded yet; otherwise as [`read_file`]."""
    if not content:
        raise ImageError(f"`image` must hold an image; got {name!r}, an empty file. Copy or download it again.")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\.")  # as `read_image` does
            return Image.open(BytesIO(content))
    except UnidentifiedImageError as error:
        raise ImageError(
            f"`image` must be of a format that Pillow reads; got {name!r}. "
            "Convert it to PNG or JPEG, or copy it again if it is one of them."
        ) from error
    except Exception as error:  # decoders meet broken data with errors of any kind
        raise ImageError(f"`image` must be an intact image; got {name!r} ({error}). Copy it again.") from error


def read_opened(image: Image.Image, name: str) -> Image.Image:
    """Read an image that is open already, and may not be decoded yet; otherwise as [`read_file`]."""
    try:
        return read_image(image)
    except ImageError as error:
        own = getattr(image, "filename", "")
        raise ImageError(
            str(error).replace("a PIL image", repr(name)).replace(repr(own) if own else "\0", repr(name))
        ) from error


def reason(error: BaseException) -> str:
    """An error's text in one line, for a report; without addresses in memory, which differ each time.

    Example:
        >>> reason(OSError("cannot identify image file <_io.BytesIO object at 0x7f9c28424940>"))
        'cannot identify image file'
    """
    text = re.sub(r"\s*<\S+ object at 0x[0-9a-fA-F]+>", "", str(error))
    return printable(" ".join(text.split())) or type(error).__name__


def is_bad_image(error: Exception) -> bool:
    """Whether it says that an image cannot be read: an error of the system, or one raised inside Pillow."""
    return isinstance(error, OSError) or is_of_pillow(error)


def is_of_pillow(error: Exception) -> bool:
    """Whether Pillow raised it. It meets broken files with SyntaxError, ValueError, struct.error and others."""
    innermost = [frame for frame, _ in traceback.walk_tb(error.__traceback__)][-1:]
    of_pillow = any(frame.f_globals.get("__name__", "").startswith("PIL.") for frame in innermost)
    return of_pillow and not isinstance(error, MemoryError)


def file_name(source: Any) -> str:
    """The last part of a path or URL, or of that which a PIL image was opened from; "" where there is none."""
    text = getattr(source, "filename", "") if isinstance(source, Image.Image) else source
    if not isinstance(text, str | os.PathLike):
        return ""
    text = os.fspath(text)
    return "" if not isinstance(text, str) or len(text) > 4096 else re.split(r"[\\/]", text.partition("?")[0])[-1]
