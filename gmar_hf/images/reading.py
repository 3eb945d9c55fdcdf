"""Reading images: whatever a user passes becomes an upright RGB image, or an error that says what to do."""

import base64
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from io import BytesIO

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from gmar_hf.errors import ArgumentTypeError, GMARError, ImageError
from gmar_hf.images.arrays import picture_of_array
from gmar_hf.images.decoding import bits_per_sample, decoding_error, is_white_at_zero
from gmar_hf.utils.checks import check_number
from gmar_hf.utils.text import is_web_page

ImageSource = str | os.PathLike[str] | Image.Image | np.ndarray | torch.Tensor

# Formats that Pillow knows by name without a decoder of its own: in a folder these are no images.
_NOT_DECODED = {"BUFR", "GRIB", "HDF5", "MPEG"}


def read_image(source: ImageSource, timeout: float | None = None) -> Image.Image:
    """Read an image as `transformers.image_utils.load_image` does, and deep grey images as they look.

    Of files with several frames (GIF, TIFF) it is the first. Transparency is dropped, not blended, as
    `ImageClassificationPipeline` does; so scores are the same. Deep grey images are the exception, because Pillow
    clips them to white: 16-bit grey (modes I;16, and I from PNG or PGM) is divided by 257, and 12-bit grey of TIFF by
    4095 / 255; where a TIFF says that zero is white, it is. A TIFF of 12 bits that calls itself one of 16 stays dark,
    since nothing in the file tells. Where the depth is not known (modes I and F otherwise) numbers from 0 to 255 are
    taken as they are and all others refused, also those that stay within 0 to 1.

    Args:
        source: a path, an http(s) URL, a data URI, base64 text, a PIL image (which is left as it is), or an array or
            tensor (height, width, channels) or (channels, height, width) of numbers from 0 to 255.
        timeout: seconds that a URL may take to connect and between two chunks. Default None: no limit.

    Returns:
        A new image, mode "RGB", turned as its EXIF orientation says. Its `info` is empty: what the file says of
            transparency or colours is not true of it.

    Raises:
        ImageError: the file, the URL or the data cannot be read as an image.
        ArgumentError: `timeout` is no number above 0.
        ArgumentTypeError: `source` is of another type.
    """
    if timeout is not None:
        check_number("timeout", timeout, above=0, unit="seconds")
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
                if not all(image.size):
                    raise ImageError(f"`image` must have pixels; got {name} of {image.height} x {image.width}.")
                return _to_rgb(image, name)
        except GMARError:
            raise
        except Exception as error:  # decoders meet broken data with errors of any kind: SyntaxError, struct.error, ...
            raise decoding_error(error, name, start=_start(source)) from error


def image_suffixes() -> set[str]:
    """Return the suffixes of files that Pillow reads, in lower case and with their dot.

    Example:
        >>> ".jpg" in image_suffixes(), ".pdf" in image_suffixes()
        (True, False)
    """
    extensions = Image.registered_extensions()  # loads Pillow's plugins, which fill `OPEN`
    return {suffix for suffix, name in extensions.items() if name in Image.OPEN and name not in _NOT_DECODED}


def _name(source: ImageSource) -> str:
    if isinstance(source, np.ndarray | torch.Tensor):
        return f"an array of {source.dtype}"
    if isinstance(source, Image.Image):
        return repr(getattr(source, "filename", "")) if getattr(source, "filename", "") else "a PIL image"
    text = str(source)  # base64 text may be megabytes long
    return repr(text if len(text) <= 200 else f"{text[:100]}...{text[-20:]}")


def _open(source: ImageSource, name: str, timeout: float | None) -> AbstractContextManager[Image.Image]:
    if isinstance(source, Image.Image):
        return nullcontext(source)  # the user's own: not ours to close
    if isinstance(source, np.ndarray | torch.Tensor):
        return picture_of_array(source)
    if not isinstance(source, str | os.PathLike):
        raise ArgumentTypeError(
            f"`image` must be a path, a URL, base64 text, a PIL image or an array; got {type(source).__name__}. "
            f"{_advice(source)}"
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
        return _opened_file(text)
    is_data = text.startswith("data:")
    if os.path.exists(text):
        raise ImageError(f"`image` must be a file; got {name}, a device or a pipe. Pass the path of an image.")
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


def _advice(source: object) -> str:
    """Say what to do with what is no image, but may hold some."""
    if isinstance(source, Mapping):
        return 'Pass its image alone, such as `row["image"]`.'
    if not isinstance(source, bytes | bytearray) and (hasattr(source, "__iter__") or hasattr(source, "__getitem__")):
        return (
            "Pass images, or a list of them; the pipeline takes a data set's as "
            '`transformers.pipelines.pt_utils.KeyDataset(dataset, "image")`.'
        )
    return "Turn bytes into an image with PIL.Image.open(io.BytesIO(...))."


@contextmanager
def _opened_file(path: str) -> Iterator[Image.Image]:
    # Not by its path: Pillow would map an uncompressed TIFF into memory, and not turn it as the file says (Pillow 13).
    with open(path, "rb") as file, Image.open(file) as image:
        yield image


def _start(source: ImageSource) -> bytes:
    """Return what a file begins with; nothing of other sources, or where it cannot be read."""
    if not isinstance(source, str | os.PathLike) or not os.path.isfile(source):
        return b""
    try:
        with open(source, "rb") as file:
            return file.read(1000)
    except OSError:
        return b""


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
    """Return an upright RGB image that shares nothing with `image`, which stays as it is."""
    # Some formats hold files of other formats (ICO, ICNS): of these the mode is known once they are decoded.
    image.load()
    # A transposed copy does not know its file any more: ask first. PNG and PGM of 16 bits may arrive in mode I.
    is_16_bit = image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))
    largest = 2 ** bits_per_sample(image) - 1
    is_negative = is_white_at_zero(image)
    image = ImageOps.exif_transpose(image)
    # What the file says of its colours (transparency, profile, gamma) or of itself is not true of the new image, and
    # whoever writes that would look at it.
    image.info.clear()
    if is_16_bit:
        values = (np.asarray(image).astype(np.uint32) * 255 + largest // 2) // largest  # rounded
        image = Image.fromarray(values.clip(max=255).astype(np.uint8))
    elif image.mode in ("I", "F"):
        values = np.asarray(image)
        low, high = values.min(), values.max()
        if not (low >= 0 and (high == 0 or 1 < high <= 255)):
            raise ImageError(
                f"`image` of mode {image.mode} must hold numbers from 0 to 255, not all within 0 to 1 (its depth is "
                f"not known); got {name} with {low:g} to {high:g}. Scale it to 0 to 255 and convert it to mode L."
            )
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    rgb.info.clear()  # the conversion of LAB leaves a profile there
    return ImageOps.invert(rgb) if is_negative else rgb
