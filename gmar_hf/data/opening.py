"""`open_data`: the door through which every kind of data comes in."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch.utils.data import ConcatDataset, IterableDataset, Subset

from gmar_hf.data import datasets_library
from gmar_hf.data.image_folder import FolderData, files_in
from gmar_hf.data.items import ItemData, ItemStream
from gmar_hf.data.label_reader import LabelReader
from gmar_hf.data.masks import MaskFolder
from gmar_hf.data.sample import MapData, StreamData, digest
from gmar_hf.data.table_files import TableData, TableStream
from gmar_hf.errors import ArgumentError, ArgumentTypeError
from gmar_hf.images.own_pictures import is_own_picture
from gmar_hf.images.reading import image_suffixes

_BRINGS_MASKS = "data that are no folder of images (they bring their own, in `mask`; ask for them by `use_masks`)"


def open_data(
    data: Any,
    id2label: Mapping[int, str],
    *,
    split: str | None = None,
    revision: str | None = None,
    label_map: Mapping[str, str | int] | None = None,
    streaming: bool = False,
    use_labels: bool = True,
    use_masks: bool = False,
    masks: str | os.PathLike[str] | None = None,
) -> MapData | StreamData:
    """Open a user's data, whatever they are, for reading images, labels and masks.

    Classes are matched with the model's by their names, letter by letter, or by `label_map`, never by the position in
    a sorted list. Only numbers of a data set without class names are taken as the model's indices.

    Args:
        data: One of
            - a path of a folder of images, flat or with a folder for each class; hidden files are left out, and
              pictures that this package has drawn;
            - a path of a folder that `datasets` saved, or one with Parquet files;
            - the id of a data set on the Hub;
            - an object of `datasets`: a data set, also a streaming one, or a dict of splits;
            - a torch Dataset, a list or anything with `__len__` and `__getitem__`, or a torch IterableDataset. They
              give dicts with `image` (PIL, or what `gmar_hf.images.read_image` takes) or `pixel_values` (a float
              tensor of shape (channels, height, width), processed already), and where it is known `label` or `labels`
              (an int, a str or a list of them; None, -1 or [] where an image has none), and perhaps where the objects
              are: `mask`, for whatever class is explained, or `masks`, a dict from class indices or labels to masks (a
              bool or integer array of shape (height, width), a PIL image or the path of one; what is not 0 belongs to
              the object).
        id2label (`Mapping[int, str]`): The model's labels.
        split (`str`, *optional*): Of a data set with several; not needed if there is only one.
        revision (`str`, *optional*): Of a data set on the Hub.
        label_map (`Mapping[str, str | int]`, *optional*): From the data's names of classes to the model's labels or
            indices.
        streaming (`bool`, defaults to False): Read a data set of the Hub, or Parquet files, without storing it first.
        use_labels (`bool`, defaults to True): Whether to look at labels. Without, class folders may have any name.
        use_masks (`bool`, defaults to False): Whether to look at masks: of dicts, or in the column `mask` (of type
            Image) of a data set of `datasets`. They have the size of their image, or of its pixel values.
        masks (`str` or `os.PathLike`, *optional*): For a folder of images: a folder with their masks, which is another
            way to ask for them. A mask has the relative path of its image with the suffix of any image; its pixels
            that are not 0 belong to the object, whatever class is explained. An image without one has no mask.

    Returns:
        [`MapData`], or [`StreamData`] for what can only be read in order.

    Raises:
        ArgumentError: If something cannot be used; labels that are none of the model's are named.
        ArgumentTypeError: If `data` is of a kind that cannot be used.
        HubError: If the Hub cannot be reached or refuses.
    """
    if label_map is not None and not use_labels:
        raise ArgumentError(
            "`label_map` (`--label-map`) must be None with `use_labels=False` (`--no-labels`); got one. Leave one of "
            "them out."
        )
    how: dict[str, Any] = dict(id2label=id2label, label_map=label_map, use_labels=use_labels)
    opened = _opened(_unwrapped(data), split, revision, streaming, how, use_masks, masks)
    opened.label_reading = "not at all"
    if use_labels:
        opened.label_reading = "by name" if label_map is None else f"by the label map {_map_digest(label_map)}"
    return opened


def _opened(
    data: Any,
    split: str | None,
    revision: str | None,
    streaming: bool,
    how: dict[str, Any],
    use_masks: bool,
    masks: str | os.PathLike[str] | None,
) -> MapData | StreamData:
    # A path or a name: a folder, or else an id on the Hub.
    if isinstance(data, str | os.PathLike):
        text = os.fspath(data)
        if os.path.isdir(text):
            _refuse("revision", revision, "a folder")
            return _open_folder(Path(text), split, streaming, how, use_masks, masks)
        _check_id(data, text)
        _refuse("masks", masks, _BRINGS_MASKS)
        return _table(datasets_library.from_hub(text, split, revision, streaming), how, use_masks)
    # What follows is loaded already: an object of `datasets`, or items.
    _refuse("masks", masks, _BRINGS_MASKS)
    _refuse("revision", revision, "data that are loaded already")
    _refuse("streaming", streaming or None, "data that are loaded already")
    if datasets_library.is_loaded(data):
        return _table(datasets_library.from_object(data, split), how, use_masks)
    _refuse("split", split, "data without splits")
    # Items of torch or of a list, with readers for their labels and for the classes of their masks.
    id2label, label_map = how["id2label"], how["label_map"]
    labels = LabelReader(id2label, label_map) if how["use_labels"] else None
    mask_classes = LabelReader(id2label, label_map, what="masks") if use_masks else None
    if isinstance(data, IterableDataset):
        return ItemStream(data, labels, mask_classes)
    if isinstance(data, Mapping) or not (hasattr(data, "__len__") and hasattr(data, "__getitem__")):
        raise ArgumentTypeError(
            "`data` must be a folder, a data set's id on the Hub, a data set of `datasets` or torch, or a list of "
            f"dicts; got {type(data).__name__}. Of a DataLoader pass its `dataset`, of a generator a list."
        )
    return ItemData(data, labels, mask_classes)


def _map_digest(label_map: Mapping[str, str | int]) -> str:
    return digest(*(f"{name}\0{label}" for name, label in sorted(label_map.items(), key=str)))[:8]


def _unwrapped(data: Any) -> Any:
    """Return a part of a data set of `datasets` as a data set, which still knows its class names."""
    if isinstance(data, ConcatDataset) and any(datasets_library.is_loaded(_unwrapped(part)) for part in data.datasets):
        raise ArgumentError(
            "`data` must keep the class names of its parts; got a ConcatDataset, which drops them. Join them with "
            "`datasets.concatenate_datasets`."
        )
    if isinstance(data, Subset):
        whole = _unwrapped(data.dataset)
        return whole.select(data.indices) if datasets_library.is_loaded(whole) else data
    return data


def _open_folder(
    folder: Path,
    split: str | None,
    streaming: bool,
    how: dict[str, Any],
    use_masks: bool,
    masks: str | os.PathLike[str] | None,
) -> MapData | StreamData:
    if datasets_library.is_saved(folder):
        _refuse("streaming", streaming or None, "a folder that `datasets` saved (it is read bit by bit anyway)")
        _refuse("masks", masks, _BRINGS_MASKS)
        return _table(datasets_library.from_saved(folder, split), how, use_masks)
    files = files_in(folder, image_suffixes() | {".parquet"})
    # Beside images, metadata.parquet tells something about them.
    tables = [file for file in files if file[0].endswith(".parquet") and Path(file[0]).name != "metadata.parquet"]
    if tables:
        _refuse("masks", masks, _BRINGS_MASKS)
        return _table(datasets_library.from_parquet(folder, tables, split, streaming), how, use_masks)
    _refuse("streaming", streaming or None, "a folder of images")
    _refuse("split", split, "a folder of images (pass the folder of the split)")
    images = [
        file for file in files if not file[0].lower().endswith(".parquet") and not is_own_picture(folder / file[0])
    ]
    names = [name for name, _ in images]
    return FolderData(folder, images, **how, masks=None if masks is None else _mask_folder(folder, names, masks))


def _mask_folder(folder: Path, images: list[str], masks: Any) -> MaskFolder | None:
    """Find the masks of a folder's images; None without images, which is refused elsewhere."""
    if not isinstance(masks, str | os.PathLike):
        raise ArgumentTypeError(f"`masks` must be the path of a folder; got {type(masks).__name__}.")
    path = Path(os.fspath(masks))
    if not path.is_dir():
        raise ArgumentError(f"`masks` must be a folder that exists; got {str(path)!r}. Check the path.")
    inside = os.path.relpath(os.path.realpath(path), os.path.realpath(folder)).replace(os.sep, "/")
    if inside == "." or any(name.startswith(f"{inside}/") for name in images):
        raise ArgumentError(
            f"`masks` must lie outside of the images' folder (masks in it would be images, too); got {str(path)!r}. "
            "Move the masks beside the folder of images."
        )
    return MaskFolder(path, files_in(path, image_suffixes(), "masks"), images) if images else None


def _table(loaded: datasets_library.Loaded, how: dict[str, Any], use_masks: bool) -> MapData | StreamData:
    table, identity = loaded
    kind = TableData if hasattr(table, "__len__") else TableStream
    return kind(table, identity, **how, use_masks=use_masks)


def _refuse(argument: str, value: Any, what: str) -> None:
    if value is not None:
        named = "`data_revision` (`--data-revision`)" if argument == "revision" else f"`{argument}`"  # as for a survey
        raise ArgumentError(f"{named} must be left out for {what}; got {value!r}.")


def _check_id(data: Any, text: Any) -> None:
    """Refuse what is neither a folder nor may be a data set's id."""
    if os.path.exists(text):
        raise ArgumentError(
            f"`data` must be a folder or a data set's id on the Hub; got the file {text!r}. "
            "Pass the folder that it lies in."
        )
    if isinstance(data, os.PathLike):
        raise ArgumentError(f"`data` must be a folder that exists; got {text!r}. Check the path.")
    if not re.fullmatch(r"\w([\w.-]*\w)?(/\w([\w.-]*\w)?)?", text, re.ASCII):
        raise ArgumentError(
            f"`data` must be a folder that exists or a data set's id on the Hub ('owner/name'); got {text!r}. "
            f"Check the path (relative ones start in {os.getcwd()!r})."
        )
