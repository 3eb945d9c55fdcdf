"""Folders of images: flat, or with a folder for each class."""

import os
import stat
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from gmar_hf.data.label_reader import LabelReader
from gmar_hf.data.masks import MaskFolder
from gmar_hf.data.sample import MapData, Sample, describe, digest
from gmar_hf.errors import ArgumentError, ImageError
from gmar_hf.images.image_file import read_file, reason
from gmar_hf.images.mask_reading import check_size

_SPLITS = {"train", "val", "valid", "validation", "test"}


class FolderData(MapData):
    """The images of a folder, in the order of their relative paths.

    Args:
        folder (`Path`): The folder.
        files (`list[tuple[str, int]]`): Relative paths, with "/", and sizes in bytes of its images.
        id2label (`Mapping[int, str]`): The model's labels.
        label_map (`Mapping[str, str | int]`, *optional*): From class folders' names to labels or indices.
        use_labels (`bool`): Whether the folders in it are classes.
        masks ([`MaskFolder`], *optional*): Where its images' masks are.

    Raises:
        ArgumentError: If there are no images, images beside class folders, or class folders that are no labels.
    """

    def __init__(
        self,
        folder: Path,
        files: list[tuple[str, int]],
        id2label: Mapping[int, str],
        label_map: Mapping[str, str | int] | None = None,
        use_labels: bool = True,
        masks: MaskFolder | None = None,
    ) -> None:
        shown = str(folder)
        if not files:
            raise ArgumentError(
                f"`data` must be a folder with images (or with Parquet files, or one that `datasets` saved); got "
                f"{shown!r}, which has none. Check the path, and that the files have suffixes as .png or .jpg; "
                "pictures that gmar_hf has drawn are left out."
            )
        self._folder = os.path.abspath(folder)  # the process may change its own folder later
        self._files = [name for name, _ in files]
        self._classes: dict[str, tuple[int, ...] | None] = {}
        if use_labels:
            self._classes = _classes(shown, self._files, id2label, label_map)
        self.has_labels = bool(self._classes)
        self._masks, self.has_masks = masks, masks is not None
        self.masks_fingerprint = "" if masks is None else masks.fingerprint
        fingerprint = digest("folder", *(f"{name}\0{size}" for name, size in files))
        self.identity = describe(os.path.basename(self._folder) or "/", fingerprint, num_images=len(files))

    def __len__(self) -> int:
        return len(self._files)

    def read(self, index: int) -> Sample:
        name = self._files[index]
        labels = self._classes.get(name.partition("/")[0])
        try:
            image = read_file(os.path.join(self._folder, name), name)
            mask = None if self._masks is None else self._masks.read(name)
        except ImageError as error:
            return Sample(name, None, labels, reason(error))
        return Sample(name, image, labels, masks=None if mask is None else {None: check_size(mask, image, name)})


def files_in(folder: Path, suffixes: Collection[str], argument: str = "data") -> list[tuple[str, int]]:
    """List the files in a folder and the folders in it, hidden ones left out and symbolic links followed.

    Args:
        folder (`Path`): Where to look.
        suffixes (`Collection[str]`): Of the files, in lower case and with their dot.
        argument (`str`, defaults to "data"): What the error calls the folder.

    Returns:
        Relative paths, with "/", and sizes in bytes, sorted by path. A link that leads nowhere is one of size -1.

    Raises:
        ArgumentError: If a folder cannot be read.
    """
    # Folders that wait to be listed, each with the folders above it, so that a link in a circle ends.
    files: list[tuple[str, int]] = []
    waiting: list[tuple[str, str, tuple[Any, ...]]] = [(str(folder), "", ())]
    while waiting:
        path, prefix, above = waiting.pop()
        try:
            status = os.stat(path)
            entries = list(os.scandir(path))
        except OSError as error:
            raise ArgumentError(
                f"`{argument}` must be a folder that can be read; got {path!r} ({error.strerror}). "
                "Check that you may read it."
            ) from error
        here = (status.st_dev, status.st_ino)
        if here in above:  # a link to a folder that it lies in
            continue
        for entry in entries:
            if entry.name.startswith("."):
                continue
            has_suffix = os.path.splitext(entry.name)[1].lower() in suffixes
            try:
                status = os.stat(entry.path)
            except OSError:  # a link that leads nowhere, or in a circle
                if has_suffix:
                    files.append((prefix + entry.name, -1))
                continue
            if stat.S_ISDIR(status.st_mode):
                waiting.append((entry.path, f"{prefix}{entry.name}/", (*above, here)))
            elif has_suffix and stat.S_ISREG(status.st_mode):
                files.append((prefix + entry.name, status.st_size))
    return sorted(files)


def _classes(
    folder: str, files: list[str], id2label: Mapping[int, str], label_map: Mapping[str, str | int] | None
) -> dict[str, tuple[int, ...] | None]:
    """Return the class of each folder that images lie in; empty for a flat folder."""
    # Class folders are what stands before the first "/"; files without one lie beside them.
    names = list(dict.fromkeys(file.partition("/")[0] for file in files if "/" in file))
    beside = [file for file in files if "/" not in file]
    if not names:
        if label_map is not None:
            raise ArgumentError(
                f"`label_map` (`--label-map`) must be None for a folder without class folders; got one for "
                f"{folder!r}. Leave it out, or put the images into a folder for each class."
            )
        return {}
    if beside:
        raise ArgumentError(
            f"`data` must be a folder with either images or class folders; got {folder!r} with both: {beside[0]!r} "
            f"lies beside the folder {names[0]!r}. Move one kind away, or pass `use_labels=False` (`--no-labels`) "
            "to take all images."
        )
    # All folders are matched before the first image is read.
    labels = LabelReader(id2label, label_map, what="class folder")
    try:
        labels.check(names)
    except ArgumentError as error:
        hint = " If the folders are splits, pass the path of one of them." if _SPLITS.issuperset(names) else ""
        raise ArgumentError(f"{error}{hint}") from error
    return {name: labels.read(name) for name in names}
