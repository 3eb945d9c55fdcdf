"""Reading images: whatever a user passes becomes an upright RGB image, or an error that says what to do."""

import base64
import os
import warnings
from contextlib import AbstractContextManager, nullcontext
from io import BytesIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from gmar_hf.errors import ArgumentTypeError, GMARError, ImageError
from gmar_hf.utils.text import is_web_page

ImageSource = str | os.PathLike | Image.Image

# Formats that Pillow knows by name without a decoder of its own: in a folder these are no images.
_NOT_DECODED = {"BUFR", "GRIB", "HDF5", "MPEG"}


def read_image(source: ImageSource, timeout: float | None = None) -> Image.Image:
    """Read an image as `transformers.image_utils.load_image` does, and deep grey images as they look.

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
    return _read(source, _name(source), timeout)


def read_named(source: ImageSource, name: str) -> Image.Image:
    """Read an image as [`read_image`] does, without a limit of time; errors show a name in place of its path."""
    return _read(source, repr(name), None)


def _read(source: ImageSource, name: str, timeout: float | None) -> Image.Image:
    # Every failure ends as one sentence that names the image, says what is wrong and what to do.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")  # on odd metadata of images that it reads well
        try:
            with _open(source, name, timeout) as image:
                return _to_rgb(image, name)
        except GMARError:
            raise
        except UnidentifiedImageError as error:
            if _is_file_of_web_page(source):
                raise ImageError(
                    f"`image` must hold an image; got {name}, which holds a web page (HTML). Download the image "
                    "itself."
                ) from error
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
    """Return the suffixes of files that Pillow reads, in lower case and with their dot.

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
    # In this order: address, folder, file, data URI, and what is left may be base64.
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


def _is_file_of_web_page(source: ImageSource) -> bool:
    if isinstance(source, Image.Image) or not os.path.isfile(source):
        return False
    with open(source, "rb") as file:
        return is_web_page(file.read(1000))


def _open_url(url: str, name: str, timeout: float | None) -> Image.Image:
    from transformers.image_utils import httpx  # httpx, or httpx2 as of huggingface_hub 2

    fallback = "or download the image and pass its path."
    # From the connection to the content: whatever fails first is told with its own way out.
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
        content = "a web page (HTML), no image" if is_web_page(response.content) else content
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
