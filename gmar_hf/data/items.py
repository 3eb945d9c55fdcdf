"""Data sets of torch, and lists of dicts: each item is a dict that holds an image, and perhaps labels and masks."""

import os
import warnings
from collections.abc import Iterator, Mapping
from operator import length_hint
from typing import Any

import torch
from PIL import Image

from gmar_hf.data.item_errors import is_unreadable, item_errors
from gmar_hf.data.item_fingerprint import items_fingerprints
from gmar_hf.data.label_reader import LabelReader
from gmar_hf.data.masks import has_class_masks, has_masks, masks_of_item
from gmar_hf.data.sample import MapData, Sample, StreamData, describe, digest
from gmar_hf.errors import ArgumentError, ArgumentTypeError, ImageError
from gmar_hf.images.image_file import file_name, read_file, reason
from gmar_hf.images.reading import read_image, read_named
from gmar_hf.utils.iteration import no_stop_iteration

_KEYS = ("label", "labels")
_END = object()  # of a stream


class ItemData(MapData):
    """What has `__len__` and `__getitem__`, and gives dicts with `image` or `pixel_values` and perhaps `label`.

    Its fingerprint is of its class, its length and up to 16 of its items; see [`items_fingerprints`].

    Args:
        items: A torch Dataset, a list.
        labels ([`LabelReader`], *optional*): Reads its labels; None to leave them out.
        mask_classes ([`LabelReader`], *optional*): Reads the classes of its masks; None to leave them out.

    Raises:
        ArgumentError: If it is empty.
        ArgumentTypeError: If it gives something else than dicts.
    """

    def __init__(self, items: Any, labels: LabelReader | None, mask_classes: LabelReader | None = None) -> None:
        length = len(items)
        if not length:
            raise ArgumentError(f"`data` must hold at least one image; got an empty {type(items).__name__}.")
        self._items, self._labels, self._mask_classes = items, labels, mask_classes
        self.identity = describe(type(items).__name__, "", num_images=length)
        first = self._first()
        self.has_labels = labels is not None and any(key in first for key in _KEYS)
        self.has_masks = mask_classes is not None and has_masks(first)
        self.has_class_masks = self.has_masks and has_class_masks(first)
        self.identity["fingerprint"], self.masks_fingerprint = items_fingerprints(items, with_masks=self.has_masks)

    def __len__(self) -> int:
        return int(self.identity["num_images"])

    def read(self, index: int) -> Sample:
        name = f"item {index}"
        try:
            item = self._item(index)
        except Exception as error:
            if not is_unreadable(error):
                raise
            return Sample(name, None, None, reason(error))
        return _sample(item, name, self._labels, self._mask_classes)

    def _item(self, index: int) -> Any:
        """Return an item of the user's; an error says which one it was."""
        what = f"item {index} of {len(self)} of the {type(self._items).__name__}"
        with no_stop_iteration("data", f"item {index}"), item_errors(what):
            return self._items[index]

    def _first(self) -> Mapping[str, Any]:
        """Return the first item that can be read; empty if none can."""
        for index in range(len(self)):
            try:
                item = self._item(index)
            except Exception as error:
                if not is_unreadable(error):
                    raise
            else:
                _check_item(item, f"item {index}")
                return item
        return {}


class ItemStream(StreamData):
    """A torch IterableDataset, which takes what [`ItemData`] takes. Its fingerprint is the name of its class."""

    def __init__(self, items: Any, labels: LabelReader | None, mask_classes: LabelReader | None = None) -> None:
        self._items, self._labels, self._mask_classes = items, labels, mask_classes
        name = type(items).__name__
        self.identity = describe(name, digest("items", name))
        self.has_labels = None if labels is not None else False
        self.has_masks = None if mask_classes is not None else False

    def _share(self, rank: int, num_processes: int, skip: int) -> Iterator[Sample]:
        first, length = rank + skip * num_processes, 0
        items = iter(self._items)
        while (item := self._next(items, length)) is not _END:
            number, length = length, length + 1
            if number >= first and number % num_processes == rank:
                yield _sample(item, f"item {number}", self._labels, self._mask_classes)
        # An iterator such as `map` passes a StopIteration of its function on, which looks like its end.
        if length < (promised := length_hint(self._items)):
            warnings.warn(
                f"`data` ended after {length} items, where `len` of the {type(self._items).__name__} is {promised}: "
                "results are of those. If more should come, look for a StopIteration in what gives them.",
                stacklevel=2,
            )

    def _next(self, items: Iterator[Any], number: int) -> Any:
        # None of them is of one image alone: after an error a stream has no more items.
        what = f"item {number} of the {type(self._items).__name__}"
        with no_stop_iteration("data", f"item {number}"), item_errors(what, unless=lambda error: False):
            return next(items, _END)

    def shuffled(self, seed: int) -> StreamData:
        raise ArgumentError(
            f"`shuffle_seed` must be None for a torch IterableDataset, which alone decides on its order; got {seed}. "
            "Shuffle inside of it, in the same order in every process."
        )


@no_stop_iteration("data", "an item")
def _sample(item: Any, name: str, labels: LabelReader | None, mask_classes: LabelReader | None) -> Sample:
    _check_item(item, name)
    # A wrong label is an error of the data; a bad image or mask makes a sample that says so.
    value = next((item[key] for key in _KEYS if item.get(key) is not None), None)
    indices = None if labels is None else labels.read(value, name)
    image: Image.Image | torch.Tensor
    try:
        if item.get("image") is None and "pixel_values" in item:
            image = _pixel_values(item["pixel_values"], name)
        else:
            file = _file(item.get("image"))
            name = f"{name} ({file})" if file else name
            image = _image(item.get("image"), name)
        masks = None if mask_classes is None else masks_of_item(item, image, name, mask_classes)
    except ImageError as error:
        return Sample(name, None, indices, reason(error))
    return Sample(name, image, indices, masks=masks)


def _check_item(item: Any, name: str) -> None:
    advice = (
        'Wrap the data set so that it gives `{"image": image, "label": label}` (class numbers of torchvision are '
        "positions of sorted folder names, not the model's: look the name up in `model.config.label2id`)."
    )
    if not isinstance(item, Mapping):
        raise ArgumentTypeError(
            f"`data` must give dicts with `image` (or `pixel_values`) and, where it is known, `label`; got "
            f"{type(item).__name__} for {name}. {advice}"
        )
    if "image" not in item and "pixel_values" not in item:
        raise ArgumentTypeError(
            f"`data` must give dicts with `image` (or `pixel_values`) and, where it is known, `label`; got one with "
            f"{', '.join(map(repr, item)) or 'nothing'} for {name}. {advice}"
        )


def _pixel_values(values: Any, name: str) -> torch.Tensor:
    if not (isinstance(values, torch.Tensor) and values.ndim == 3 and values.is_floating_point()):
        got = f"{values.dtype} of shape {tuple(values.shape)}" if hasattr(values, "shape") else type(values).__name__
        raise ArgumentTypeError(
            f"`pixel_values` must be a float tensor of shape (channels, height, width); got {got} for {name}. "
            "Take one image's from what the image processor returns with `return_tensors='pt'`."
        )
    return values.detach()


def _image(source: Any, name: str) -> Any:
    if source is None:
        raise ImageError(f"`image` must be given; got None in {name}. Leave such items out.")
    if _file(source) and isinstance(source, str | os.PathLike):
        return read_file(source, name)
    if hasattr(source, "convert"):  # a PIL image
        return read_named(source, name)
    try:
        return read_image(source)
    except ImageError as error:
        # The message is kept, without the folders that it names.
        text = str(error).replace(repr(os.getcwd()), "'.'")  # reports are shared: they name no folders
        folder = os.path.join(os.path.dirname(str(source)), "")
        raise ImageError(text.replace(folder, "") if folder and "://" not in folder else text) from error


def _file(source: Any) -> str:
    """Return the name of the file that an image is or was read from."""
    text = source if isinstance(source, str | os.PathLike) else getattr(source, "filename", "")
    return file_name(text) if isinstance(text, str | os.PathLike) and os.path.isfile(text) else ""
