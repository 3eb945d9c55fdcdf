"""Why an image cannot be decoded, and what a TIFF says of its numbers."""

import re
from typing import Any

from PIL import Image, UnidentifiedImageError

from gmar_hf.errors import ImageError
from gmar_hf.utils.text import is_web_page

# What Pillow says of files that it knows, but has no decoder for: one without its library (JPEG 2000, TIFF), without a
# program of its own (EPS, WMF), or of a kind that was never written. A broken header may bring it to say so as well.
_NO_DECODER = re.compile(
    r"not available|unable to locate|cannot (find|handle)|not (yet )?(supported|implemented)|un(supported|implemented"
    r"|known|handled)",
    re.IGNORECASE,
)


def decoding_error(error: Exception, name: str, argument: str = "image", *, start: bytes = b"") -> ImageError:
    """Return the error that says in words why an image could not be opened or decoded, and what to do.

    Args:
        error (`Exception`): What was raised, by Pillow most often: broken data bring it to errors of any kind.
        name (`str`): What the image is called: its path in quotation marks, say.
        argument (`str`, defaults to "image"): What the argument is called that it was given for.
        start (`bytes`, defaults to b""): What its file begins with, if that is known.

    Example:
        >>> print(decoding_error(OSError("Unable to locate Ghostscript on paths"), "'drawing.eps'"))
        `image` must be of a kind that this installation of Pillow decodes; got 'drawing.eps' (Unable to locate \
Ghostscript on paths). Convert it to PNG or JPEG, or copy it again if it is one of them.
    """
    # From what Pillow has names for to what only the text of an error tells.
    must, got, advice = "be an intact image", f" ({error})", "Copy or download it again."
    if isinstance(error, UnidentifiedImageError) and is_web_page(start):
        must, got, advice = "hold an image", ", which holds a web page (HTML)", "Download the image itself."
    elif isinstance(error, UnidentifiedImageError):
        must, got = "be of a format that Pillow reads", ""
        advice = "Copy it again, convert it to PNG or JPEG, or install the Pillow plugin for its format."
    elif isinstance(error, Image.DecompressionBombError):
        must = "not be larger than Pillow's limit against decompression bombs"
        advice = "Shrink it, or raise `PIL.Image.MAX_IMAGE_PIXELS` if you trust it."
    elif isinstance(error, MemoryError):
        must, got = "fit into memory", ", which does not"
        advice = "Shrink it, or copy it again if it is small: its header may be broken."
    elif isinstance(error, OSError) and error.errno:
        advice = "Check that it is there and that you may read it."
    elif isinstance(error, NotImplementedError) or _NO_DECODER.search(str(error)):
        must = "be of a kind that this installation of Pillow decodes"
        advice = "Convert it to PNG or JPEG, or copy it again if it is one of them."
    return ImageError(f"`{argument}` must {must}; got {name}{got}. {advice}")


def is_white_at_zero(image: Image.Image) -> bool:
    """Tell whether a TIFF says that its zeros are white, where Pillow has not turned them: it does up to 8 bits."""
    return _tag(image, _PHOTOMETRIC) == 0 and image.mode not in ("1", "L", "P")


def bits_per_sample(image: Image.Image) -> int:
    """Return how many bits the numbers of an image of mode I;16 have: 16, if its file says nothing else.

    Pillow widens 12-bit TIFFs without scaling them. What other formats hold in fewer bits it scales to 16.
    """
    bits = _tag(image, _BITS_PER_SAMPLE)
    return bits if isinstance(bits, int) and 8 < bits < 16 else 16


_BITS_PER_SAMPLE, _PHOTOMETRIC = 258, 262  # tags of TIFF


def _tag(image: Image.Image, number: int) -> Any:
    value = getattr(image, "tag_v2", {}).get(number)
    return value[0] if isinstance(value, tuple) and value else value
