"""Where an image's objects are: from arrays, images and files to bool masks by class."""

import os
import warnings
from collections.abc import Collection, Mapping
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps

from ..errors import ArgumentError, ArgumentTypeError, ImageError
from .classes import LabelReader
from .pictures import file_content, file_name, opened

Masks = dict[int | None, np.ndarray]

_KEYS = ("mask", "masks")
_AS_THEY_ARE = ("1", "L", "I", "F", "RGB", "LA", "RGBA", "La", "RGBa")
_HALF = 128  # JPEG smears a mask's edges: what is nearer to black than to white is none of the object


class MaskFolder:
    """A folder that holds masks under the relative paths of their images, whatever the suffix. It can be pickled.

    Args:
        folder (`Path`): The folder.
        files (`Collection[str]`): Relative paths, with "/", of its image files.
        images (`Collection[str]`): Relative paths of the images that masks are sought for.

    Raises:
        ArgumentError: If no image has a mask, or one has several.
    """

    def __init__(self, folder: Path, files: Collection[str], images: Collection[str]) -> None:
        self._folder = os.path.abspath(folder)  # the process may change its own folder later
        by_stem: dict[str, list[str]] = {}
        for file in files:
            by_stem.setdefault(os.path.splitext(file)[0], []).append(file)
        self._files: dict[str, str] = {}
        for image in images:
            found = by_stem.get(os.path.splitext(image)[0], [])
            if len(found) > 1 and image not in found:
                raise ArgumentError(
                    f"`masks` must hold one mask for an image; got {', '.join(map(repr, found))} for {image!r}. "
                    "Leave one of them."
                )
            if found:
                self._files[image] = image if image in found else found[0]
        if not self._files:
            example = f"{next(iter(files))!r} and others" if files else "no images at all"
            raise ArgumentError(
                f"`masks` must hold masks under the relative paths of their images (whatever the suffix); got "
                f"{example}, where the first image is {next(iter(images))!r}. Check the path, or rename the masks."
            )

    def read(self, name: str) -> np.ndarray | None:
        """The mask of an image, bool of shape (height, width); None if it has none.

        Args:
            name (`str`): The image's relative path.

        Raises:
            ImageError: If the mask cannot be read.
        """
        file = self._files.get(name)
        return None if file is None else mask_of_file(os.path.join(self._folder, file), file)


def has_masks(item: Mapping[str, Any]) -> bool:
    """Whether an item of a list or a torch data set has a place for masks."""
    return any(key in item for key in _KEYS)


def masks_of_item(
    item: Mapping[str, Any], image: Image.Image | torch.Tensor, name: str, classes: LabelReader
) -> Masks | None:
    """The masks of an item, by the model's index of their class.

    Args:
        item (`Mapping`): With `mask`, for whatever class is explained (the key None), or with `masks`, by class index
            or label; without either, or with None, no masks are known.
        image (PIL image, or `torch.Tensor` of shape (channels, height, width)): The item's image, or pixel values.
        name (`str`): What errors call the item.
        classes ([`LabelReader`]): Reads the keys of `masks`.

    Returns:
        Bool arrays of shape (height, width). Masks of one class under two names are joined.

    Raises:
        ArgumentError: If the model has not all classes of `masks`, there are both, or a mask is of another
            shape than the image.
        ArgumentTypeError: If something is of a kind that cannot be used.
        ImageError: If a mask cannot be read.
    """
    single, several = (item.get(key) for key in _KEYS)
    if single is not None and several is not None:
        raise ArgumentError(f"`data` must give either `mask` or `masks`; got both for {name}. Leave one out.")
    if single is not None:
        return {None: check_size(_mask(single, name), image, name)}
    if several is None:
        return None
    if not isinstance(several, Mapping):
        raise ArgumentTypeError(
            f"`masks` must be a mapping from class indices or labels to masks; got {type(several).__name__} for "
            f"{name}. Pass a single one, for whatever class is explained, as `mask`."
        )
    found: Masks = {}
    for key, source in several.items():
        index = _class(key, name, classes)
        mask = check_size(_mask(source, name), image, name)
        found[index] = mask | found[index] if index in found else mask
    return found or None


def mask_of_file(path: str | os.PathLike[str], name: str) -> np.ndarray:
    """Read a mask from an image file.

    Args:
        path (`str` or `os.PathLike`): Where it lies.
        name (`str`): What errors call it.

    Returns:
        Bool array of shape (height, width), as of [`mask_of_image`].

    Raises:
        ImageError: If there is no mask to read.
    """
    try:
        content = file_content(path, name)
    except ImageError as error:
        raise _of_a_mask(error) from error
    return mask_of_bytes(content, name)


def mask_of_bytes(content: bytes, name: str) -> np.ndarray:
    """Read a mask from an image file's bytes; otherwise as [`mask_of_file`]."""
    try:
        image = opened(content, name)
    except ImageError as error:
        raise _of_a_mask(error) from error
    with image:
        return mask_of_image(image, name)


def mask_of_image(image: Image.Image, name: str) -> np.ndarray:
    """The pixels of an image that are not 0, in any channel.

    Of a palette it is the index that counts, as in label maps, but for palettes that have black elsewhere than at 0:
    there it is the colour. Transparent pixels are 0; of JPEG files all is that is nearer to black than to white.

    Args:
        image (PIL image): Of any mode; it is turned as its EXIF orientation says.
        name (`str`): What errors call it.

    Returns:
        Bool array of shape (height, width).

    Raises:
        ImageError: If it cannot be decoded.

    Example:
        >>> mask_of_image(Image.new("L", (3, 2), 1), "a.png").shape
        (2, 3)
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\.")  # as `read_image` does
            lowest = _HALF if image.format in ("JPEG", "MPO") else 1
            upright = _counted(ImageOps.exif_transpose(image))
            values = np.asarray(upright)
    except Exception as error:  # decoders meet broken data with errors of any kind
        raise ImageError(f"`mask` must be an intact image; got {name!r} ({error}). Copy it again.") from error
    inside = np.atleast_3d(values >= lowest if lowest > 1 else values != 0)  # (height, width, channels)
    if upright.mode[-1] in "Aa":
        inside = inside[..., :-1] & inside[..., -1:]
    return np.any(inside, axis=-1)


def check_size(mask: np.ndarray, image: Image.Image | torch.Tensor, name: str) -> np.ndarray:
    """Refuse a mask of another size than its image.

    Args:
        mask (`np.ndarray`): Of shape (height, width).
        image (PIL image, or `torch.Tensor` of shape (channels, height, width)): The image, or its pixel values.
        name (`str`): What errors call it.

    Returns:
        The mask.

    Raises:
        ArgumentError: If it is one.
    """
    width, height = image.size if isinstance(image, Image.Image) else (image.shape[2], image.shape[1])
    if mask.shape != (height, width):
        raise ArgumentError(
            f"`mask` must have the size of its image, once that is turned upright; got a mask of {mask.shape[1]} x "
            f"{mask.shape[0]} (width x height) for {name!r} of {width} x {height}. Resize the mask with "
            "`Image.Resampling.NEAREST`."
        )
    return mask


def _class(key: Any, name: str, classes: LabelReader) -> int | None:
    if key is None:
        return None
    if not (isinstance(key, str) or (isinstance(key, Integral) and not isinstance(key, bool))):
        raise ArgumentTypeError(f"`masks` must have class indices or labels as keys; got {key!r:.80} for {name}.")
    found = classes.read(key)
    if found is None:
        raise ArgumentError(f"`masks` must have class indices or labels as keys; got {key} for {name}.")
    return found[0]


def _mask(source: Any, name: str) -> np.ndarray:
    """Bool (height, width) of whatever a user has."""
    if isinstance(source, str | os.PathLike):
        return mask_of_file(source, file_name(source) or f"mask of {name}")
    if isinstance(source, Image.Image):
        return mask_of_image(source, file_name(source) or f"mask of {name}")
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
    return np.not_equal(values, 0)


def _counted(image: Image.Image) -> Image.Image:
    """An image whose zeros are what is no object."""
    if image.mode in ("P", "PA"):
        palette = image.getpalette("RGB") or []
        black = {start // 3 for start in range(0, len(palette), 3) if not any(palette[start : start + 3])}
        used = set(np.unique(np.asarray(image.getchannel(0))).tolist())
        return image.convert("RGBA") if palette and 0 not in black and black & used else image
    # Elsewhere black is not 0, as in printing's colours.
    return image if image.mode in _AS_THEY_ARE or image.mode.startswith("I;16") else image.convert("RGB")


def _of_a_mask(error: ImageError) -> ImageError:
    return ImageError(str(error).replace("`image`", "`mask`", 1))
