"""Reading images: whatever a user passes becomes an upright RGB image, or an error that says what to do."""

import base64
import os
import re
import traceback
import warnings
from contextlib import AbstractContextManager, nullcontext
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from transformers.image_utils import httpx  # httpx, or httpx2 as of huggingface_hub 2

from gmar_hf.errors import ArgumentTypeError, GMARError, ImageError
from gmar_hf.utils.text import printable

ImageSource = str | os.PathLike | Image.Image

# Formats that Pillow knows by name without a decoder of its own: in a folder these are no images.
_NOT_DECODED = {"BUFR", "GRIB", "HDF5", "MPEG"}


def read_image(source: ImageSource, timeout: float | None = None) -> Image.Image:
    """Reads an image as `transformers.image_utils.load_image` does, and deep grey images as they look.

    Of files with several frames (GIF, TIFF) it is the first. Transparency is dropped, not blended, as
    `ImageClassificationPipeline` does; so scores are the same. Deep grey images are the exception, because Pillow
    clips them to white: 16-bit grey (modes I;16, and I from PNG or PGM) is divided by 257. Where the depth is
    not known (modes I and F otherwise) numbers from 0 to 255 are taken as they are and all others refused, also those
    that stay within 0 to 1.

    Args:
        source: a path, an http(s) URL, a data URI, base64 text or a PIL image (which is left as it is).
        timeout: seconds that a URL may take to connect and between two chunks. Default None: no limit.

    Returns:
        A new image, mode "RGB", turned as its EXIF orientation says.

    Raises:
        ImageError: the file, the URL or the data cannot be read as an image.
        ArgumentTypeError: `source` is of another type.
    """
    name = _name(source)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")  # on odd metadata of images that it reads well
        try:
            with _open(source, name, timeout) as image:
                return _to_rgb(image, name)
        except GMARError:
            raise
        except UnidentifiedImageError as error:
            raise ImageError(
                f"`image` must be of a format that Pillow reads; got {name}. "
                "Convert it to PNG or JPEG, or install the Pillow plugin for its format."
            ) from error
        except Image.DecompressionBombError as error:
            raise ImageError(
                f"`image` must not be larger than Pillow's limit against decompression bombs; got {name} ({error}). "
                "Shrink it, or raise `PIL.Image.MAX_IMAGE_PIXELS` if you trust it."
            ) from error
        except Exception as error:  # decoders meet broken data with errors of any kind: SyntaxError, struct.error, ...
            if isinstance(error, OSError) and error.errno:
                advice = "Check that it is there and that you may read it."
            else:
                advice = "Copy or download it again."
            raise ImageError(f"`image` must be an intact image; got {name} ({error}). {advice}") from error


def image_suffixes() -> set[str]:
    """The suffixes of files that Pillow reads, in lower case and with their dot.

    Example:
        >>> ".jpg" in image_suffixes(), ".pdf" in image_suffixes()
        (True, False)
    """
    extensions = Image.registered_extensions()  # loads Pillow's plugins, which fill `OPEN`
    return {suffix for suffix, name in extensions.items() if name in Image.OPEN and name not in _NOT_DECODED}


def _name(source: ImageSource) -> str:
    if isinstance(source, Image.Image):
        return repr(getattr(source, "filename", "")) if getattr(source, "filename", "") else "a PIL image"
    text = str(source)  # base64 text may be megabytes long
    return repr(text if len(text) <= 200 else f"{text[:100]}...{text[-20:]}")


def _open(source: ImageSource, name: str, timeout: float | None) -> AbstractContextManager[Image.Image]:
    if isinstance(source, Image.Image):
        return nullcontext(source)  # the user's own: not ours to close
    if not isinstance(source, str | os.PathLike):
        raise ArgumentTypeError(
            f"`image` must be a path, a URL, base64 text or a PIL image; got {type(source).__name__}. "
            "Turn an array into an image with PIL.Image.fromarray, bytes with PIL.Image.open(io.BytesIO(...))."
        )
    text = os.fspath(source)
    if text.startswith(("http://", "https://")):
        return _open_url(text, name, timeout)
    if os.path.isdir(text):
        raise ImageError(f"`image` must be a file; got the folder {name}. Pass the images in it, as a list of paths.")
    if os.path.isfile(text):
        if os.path.getsize(text) == 0:
            raise ImageError(f"`image` must hold an image; got {name}, an empty file. Copy or download it again.")
        return Image.open(text)
    is_data = text.startswith("data:")
    try:
        return Image.open(BytesIO(base64.decodebytes((text.partition(",")[2] if is_data else text).encode())))
    except (ValueError, OSError) as error:
        if is_data:
            raise ImageError(
                f"`image` must be a data URI that holds an image in base64; got {name} ({error}). "
                "Make it of the file's bytes with base64.b64encode."
            ) from error
        raise ImageError(
            f"`image` must be a file that exists, an http(s) URL or an image in base64; got {name}. "
            f"Check the path (relative ones start in {os.getcwd()!r})."
        ) from error


def _open_url(url: str, name: str, timeout: float | None) -> Image.Image:
    fallback = "or download the image and pass its path."
    try:
        response = httpx.get(url, timeout=timeout, follow_redirects=True).raise_for_status()
        return Image.open(BytesIO(response.content))
    except httpx.TimeoutException as error:
        raise ImageError(
            f"`image` must be a URL that answers within `timeout` ({timeout} s); got {name}. "
            f"Raise `timeout`, {fallback}"
        ) from error
    except httpx.HTTPStatusError as error:
        status = f"{error.response.status_code} {error.response.reason_phrase}"
        raise ImageError(
            f"`image` must be a URL that serves an image; got {name}, which answers {status}. "
            f"Check the address, {fallback}"
        ) from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ImageError(
            f"`image` must be a URL that can be reached; got {name} ({error}). "
            f"Check the address and the connection, {fallback}"
        ) from error
    except UnidentifiedImageError as error:
        content = response.headers.get("content-type", "content of no stated type")
        raise ImageError(
            f"`image` must be a URL that serves an image; got {name}, which serves {content}. "
            f"Pass the address of the image itself, {fallback}"
        ) from error


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    # PNG and PGM of 16 bits may arrive in mode I. A transposed copy does not know its format any more: ask first.
    is_16_bit = image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))
    image = ImageOps.exif_transpose(image)
    if is_16_bit:
        image = Image.fromarray(((np.asarray(image).astype(np.uint32) + 128) // 257).astype(np.uint8))  # rounded
    elif image.mode in ("I", "F"):
        values = np.asarray(image)
        low, high = values.min(), values.max()
        if not (low >= 0 and (high == 0 or 1 < high <= 255)):
            raise ImageError(
                f"`image` of mode {image.mode} must hold numbers from 0 to 255, not all within 0 to 1 (its depth is "
                f"not known); got {name} with {low:g} to {high:g}. Scale it to 0 to 255 and convert it to mode L."
            )
    return image.convert("RGB")


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
