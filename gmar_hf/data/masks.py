"""Where an image's objects are: from what items and folders hold to bool masks by class."""

import hashlib
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from gmar_hf.data.label_reader import LabelReader
from gmar_hf.data.sample import digest, sampled_places
from gmar_hf.errors import ArgumentError, ArgumentTypeError, ImageError
from gmar_hf.images.image_file import file_content
from gmar_hf.images.mask_reading import check_size, mask_of_file, to_mask
from gmar_hf.utils.checks import is_whole

Masks = dict[int | None, np.ndarray]

_KEYS = ("mask", "masks")


class MaskFolder:
    """A folder that holds masks under the relative paths of their images, whatever the suffix. It can be pickled.

    Args:
        folder (`Path`): The folder.
        files (`Collection[tuple[str, int]]`): Relative paths, with "/", and sizes in bytes of its image files.
        images (`Collection[str]`): Relative paths of the images that masks are sought for.

    Attributes:
        fingerprint (`str`): A digest of the paths and sizes of the masks, and of the content of up to 16 of them
            (masks of one size are often files of one size).

    Raises:
        ArgumentError: If no image has a mask, or one has several.
    """

    def __init__(self, folder: Path, files: Collection[tuple[str, int]], images: Collection[str]) -> None:
        self._folder = os.path.abspath(folder)  # the process may change its own folder later
        # Masks by path without suffix; the very name of an image comes before other suffixes.
        by_stem: dict[str, list[str]] = {}
        sizes = dict(files)
        for file in sizes:
            by_stem.setdefault(os.path.splitext(file)[0], []).append(file)
        self._files: dict[str, str] = {}
        for image in images:
            candidates = by_stem.get(os.path.splitext(image)[0], [])
            if len(candidates) > 1 and image not in candidates:
                raise ArgumentError(
                    f"`masks` must hold one mask for an image; got {', '.join(map(repr, candidates))} for {image!r}. "
                    "Leave one of them."
                )
            if candidates:
                self._files[image] = image if image in candidates else candidates[0]
        # Not one mask has been matched: an example of both sides shows why.
        if not self._files:
            example = f"{next(iter(sizes))!r} and others" if sizes else "no images at all"
            raise ArgumentError(
                f"`masks` must hold masks under the relative paths of their images (whatever the suffix); got "
                f"{example}, where the first image is {next(iter(images))!r}. Check the path, or rename the masks."
            )
        # Masks of one size are often files of one size: some contents count too.
        chosen = list(self._files.values())
        contents = (self._digest(chosen[place]) for place in sampled_places(len(chosen)))
        self.fingerprint = digest("masks", *(f"{file}\0{sizes[file]}" for file in chosen), *contents)

    def read(self, name: str) -> np.ndarray | None:
        """Read the mask of an image, bool of shape (height, width); None if it has none.

        Args:
            name (`str`): The image's relative path.

        Raises:
            ImageError: If the mask cannot be read.
        """
        file = self._files.get(name)
        return None if file is None else mask_of_file(os.path.join(self._folder, file), file)

    def _digest(self, file: str) -> str:
        try:
            return hashlib.sha256(file_content(os.path.join(self._folder, file), file)).hexdigest()
        except ImageError:  # the evaluation itself will say so
            return "unreadable"


def has_masks(item: Mapping[str, Any]) -> bool:
    """Tell whether an item of a list or a torch data set has a place for masks."""
    return any(key in item for key in _KEYS)


def has_class_masks(item: Mapping[str, Any]) -> bool:
    """Tell whether an item has a place for masks by class."""
    several = item.get("masks")
    return "masks" in item and not (isinstance(several, Mapping) and set(several) == {None})


def sources_of_masks(item: Mapping[str, Any]) -> Mapping[Any, Any]:
    """Return what an item gives as its masks, by class; under None what it gives as `mask`."""
    single, several = (item.get(key) for key in _KEYS)
    return {None: single} if single is not None else several or {}


def masks_of_item(
    item: Mapping[str, Any], image: Image.Image | torch.Tensor, name: str, classes: LabelReader
) -> Masks | None:
    """Read the masks of an item, by the model's index of their class.

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
    if several is not None and not isinstance(several, Mapping):
        raise ArgumentTypeError(
            f"`masks` must be a mapping from class indices or labels to masks; got {type(several).__name__} for "
            f"{name}. Pass a single one, for whatever class is explained, as `mask`."
        )
    # Each mask is of its image's size; two names of one class share one mask.
    masks: Masks = {}
    for key, source in sources_of_masks(item).items():
        index = _class(key, name, classes)
        mask = check_size(to_mask(source, name), image, name)
        masks[index] = mask | masks[index] if index in masks else mask
    return masks or None


def _class(key: Any, name: str, classes: LabelReader) -> int | None:
    if key is None:
        return None
    if not (isinstance(key, str) or is_whole(key)):
        raise ArgumentTypeError(f"`masks` must have class indices or labels as keys; got {key!r:.80} for {name}.")
    indices = classes.read(key, name)
    if indices is None:
        raise ArgumentError(f"`masks` must have class indices or labels as keys; got {key} for {name}.")
    return indices[0]
