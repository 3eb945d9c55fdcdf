"""Masks from arrays, images and files: bool arrays that say where an object is."""

import os
import warnings
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps

from gmar_hf.errors import ArgumentError, ArgumentTypeError, ImageError
from gmar_hf.images.decoding import bits_per_sample, decoding_error, is_white_at_zero
from gmar_hf.images.image_file import file_content, file_name, open_bytes

_AS_THEY_ARE = ("1", "L", "I", "F", "RGB", "LA", "RGBA", "La", "RGBa")
_VOID, _VOC_BORDER = 255, (224, 224, 192)  # the index of what is neither object nor none, and its colour in VOC
_HALF = 128  # JPEG smears a mask's edges: what is nearer to black than to white is none of the object


def to_mask(source: Any, name: str) -> np.ndarray:
    """Return a bool array of shape (height, width) of whatever a user has as a mask.

    Args:
        source: A bool or integer array or tensor of that shape, a PIL image, or the path of one.
        name (`str`): What errors call its image.

    Raises:
        ArgumentError, ArgumentTypeError: If it is something else, or holds 255 beside other numbers.
        ImageError: If it cannot be read.
    """
    if isinstance(source, str | os.PathLike):
        return mask_of_file(source, file_name(source) or f"mask of {name}")
    if isinstance(source, Image.Image):
        return mask_of_image(source, file_name(source) or f"mask of {name}")
    # An array or a tensor: floats are refused, as nobody can tell from which number an object begins.
    values = source.cpu().numpy() if isinstance(source, torch.Tensor) else source
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "biu":
        got = f"an array of {values.dtype}" if isinstance(values, np.ndarray) else type(values).__name__
        raise ArgumentTypeError(
            f"`mask` must be an array of bools or integers, a PIL image or the path of one; got {got} for {name}. "
            "Compare it with a threshold of your own."
        )
    if values.ndim != 2:
        raise ArgumentError(
            f"`mask` must have the shape (height, width); got {values.shape} for {name}. Pass one plane of it, or "
            "`masks` by class."
        )
    if _may_hold_void(values):
        raise ArgumentError(_void_in_words(name))
    return np.not_equal(values, 0)


def mask_of_file(path: str | os.PathLike[str], name: str) -> np.ndarray:
    """Read a mask (height, width) from an image file as [`mask_of_image`] does; errors call it by its name.

    Raises:
        ImageError: If there is no mask to read.
    """
    return mask_of_bytes(file_content(path, name, "mask"), name)


def mask_of_bytes(content: bytes, name: str) -> np.ndarray:
    """Read a mask from the bytes of an image file, which errors call by its name."""
    with open_bytes(content, name, "mask") as image:
        return mask_of_image(image, name)


def mask_of_image(image: Image.Image, name: str) -> np.ndarray:
    """Find the pixels of an image that are not 0, in any channel.

    Of a palette it is the index that counts, as in label maps, but for palettes that have black elsewhere than at 0:
    there it is the colour. Transparent pixels are 0; of JPEG files all is that is nearer to black than to white.

    Around its objects VOC draws a border that is neither: index 255 in a coloured palette, beside other indices or of
    VOC's own colour for it, is no object. In grey nobody can tell such a border from a soft mask's full 255: an image
    that has 255 beside other numbers is refused.

    Args:
        image (PIL image): Of any mode; it is turned as its EXIF orientation says.
        name (`str`): What errors call it.

    Returns:
        Bool array of shape (height, width).

    Raises:
        ImageError: If it cannot be decoded, or is grey with 255 beside other numbers.

    Example:
        >>> mask_of_image(Image.new("L", (3, 2), 1), "a.png").shape
        (2, 3)
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\.")  # as `read_image` does
            image.load()  # until then some files say another mode
            lowest = _HALF if image.format in ("JPEG", "MPO") else 1
            white = 2 ** bits_per_sample(image) - 1 if is_white_at_zero(image) and image.mode.startswith("I;16") else 0
            upright = _counted(_without_void(ImageOps.exif_transpose(image)))
            values = white - np.asarray(upright) if white else np.asarray(upright)  # of 8 bits Pillow turns them
    except Exception as error:  # decoders meet broken data with errors of any kind
        raise decoding_error(error, repr(name), "mask") from error
    if upright.mode in ("L", "LA", "P", "PA") and lowest == 1 and _may_hold_void(np.atleast_3d(values)[..., 0]):
        raise ImageError(_void_in_words(name))
    # Any channel will do, but for transparency, which must not be 0.
    inside = np.atleast_3d(values >= lowest if lowest > 1 else values != 0)  # (height, width, channels)
    if upright.mode[-1] in "Aa":
        inside = inside[..., :-1] & inside[..., -1:]
    return np.any(inside, axis=-1)


def check_size(mask: np.ndarray, image: Image.Image | torch.Tensor, name: str) -> np.ndarray:
    """Return a mask (height, width) of an image, or of pixel values (channels, height, width).

    Raises:
        ArgumentError: If the mask is of another size than they are.
    """
    width, height = image.size if isinstance(image, Image.Image) else (image.shape[2], image.shape[1])
    if mask.shape != (height, width):
        raise ArgumentError(
            f"`mask` must have the size of its image, once that is turned upright; got a mask of {mask.shape[1]} x "
            f"{mask.shape[0]} (width x height) for {name!r} of {width} x {height}. Resize the mask with "
            "`Image.Resampling.NEAREST`."
        )
    return mask


def _may_hold_void(values: np.ndarray) -> bool:
    """Tell whether 255 is the largest number, and not the only one but for 0."""
    if values.dtype.kind == "b" or not values.size or values.max() != _VOID:
        return False
    return bool(((values != 0) & (values != _VOID)).any())


def _void_in_words(name: str) -> str:
    return (
        f"`mask` must not hold {_VOID} beside other numbers (label maps call void so, soft masks what is all object); "
        f"got such a mask for {name!r}. Set void to 0, or make the mask black and white."
    )


def _without_void(image: Image.Image) -> Image.Image:
    """Return a label map in colours whose border between objects is 0, like all that is none."""
    if image.mode != "P":
        return image
    indices = np.asarray(image)
    colours = np.array(image.getpalette("RGB") or [], dtype=np.uint8).reshape(-1, 3)
    if len(colours) <= _VOID or not (indices == _VOID).any():
        return image
    used = np.unique(indices[indices != 0])
    is_grey = (colours[used] == colours[used][:, :1]).all()
    if tuple(colours[_VOID]) != _VOC_BORDER and (is_grey or len(used) == 1):
        return image
    cleared = Image.fromarray(np.where(indices == _VOID, 0, indices).astype(np.uint8), "P")
    cleared.putpalette(image.getpalette("RGB") or [])
    return cleared


def _counted(image: Image.Image) -> Image.Image:
    """Return an image whose zeros are what is no object."""
    if image.mode in ("P", "PA"):
        palette = image.getpalette("RGB") or []
        black = {start // 3 for start in range(0, len(palette), 3) if not any(palette[start : start + 3])}
        used = set(np.unique(np.asarray(image.getchannel(0))).tolist())
        return image.convert("RGBA") if palette and 0 not in black and black & used else image
    # Elsewhere black is not 0, as in printing's colours.
    return image if image.mode in _AS_THEY_ARE or image.mode.startswith("I;16") else image.convert("RGB")
