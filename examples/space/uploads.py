"""Pictures: those that users bring, within limits, and those that come along."""

import functools
import os
import warnings
from pathlib import Path

from PIL import Image, ImageOps
from refusals import Refusal

from gmar_hf import demo

MAX_BYTES = 10_000_000
MAX_PIXELS = 25_000_000
SIDE = 1024  # pixels of the longer side that is kept: models look at fewer
KINDS = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp"}

_PICTURES = Path(__file__).parent / "pictures"
_NUM_SCENES = 4


def read_upload(path: str | os.PathLike[str]) -> Image.Image:
    """Read an uploaded file, whose size and kind are checked before it is decoded.

    Args:
        path (`str` or `os.PathLike`): Where it lies.

    Returns:
        PIL image, RGB, upright, of at most 1024 pixels a side, without what the camera wrote beside the pixels.

    Raises:
        Refusal: If it is too large, of another kind, or broken.
    """
    if os.path.getsize(path) > MAX_BYTES:
        raise Refusal(f"The file must have at most {MAX_BYTES // 10**6} MB. Make the picture smaller.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata, and of sizes that are looked at below
            with Image.open(path, formats=list(KINDS)) as image:
                _check(image)
                picture = ImageOps.exif_transpose(image).convert("RGB")
    except Refusal:
        raise
    except Exception as error:  # decoders meet broken files with errors of any kind
        raise Refusal(
            f"The file must be an intact picture of kind {', '.join(KINDS)}. Save it as one of these, or take another."
        ) from error
    picture.info.clear()
    picture.thumbnail((SIDE, SIDE))
    return picture


@functools.cache
def bundled_pictures() -> list[tuple[str, Image.Image]]:
    """Return the pictures that come along with their names: scenes for the bundled models, photographs for others."""
    scenes = demo.scenes(_NUM_SCENES)
    made = [(_name(scene["labels"]), scene["image"]) for scene in scenes]
    return made + [(path.stem, read_upload(path)) for path in sorted(_PICTURES.glob("*.jpg"))]


def _check(image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise Refusal(
            f"The picture must have at most {MAX_PIXELS // 10**6} million pixels; it has {image.width} x "
            f"{image.height}. Make it smaller."
        )
    if image.mode.startswith(("I", "F")):
        raise Refusal("The picture must have 8 bits a colour. Save it as an ordinary PNG or JPEG.")


def _name(labels: list[int]) -> str:
    names = demo.load("vit")[0].config.id2label
    return " and ".join(names[label] for label in labels)
