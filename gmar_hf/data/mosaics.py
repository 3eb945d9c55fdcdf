"""Photos of several classes side by side: where a class is, is known without anybody's masks."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from PIL import Image
from torch.utils.data import Dataset

from gmar_hf.data.sample import MapData
from gmar_hf.errors import ArgumentError, ImageError

CELL_SIZE = 128
"""Pixels a side of each photo in a mosaic, which the image processor brings to the model's size."""

Photo = tuple[int, int]
"""A photo's place in its data, and the model's index of its class."""


class Mosaics(Dataset[Any]):
    """Photos of different classes in squares of one size, `side` by `side`, as items for [`evaluate`].

    An item is a dict of `image`, `label` (the classes, row by row) and `masks` (from each class to the bool array of
    its square). Photos are cropped to their middle square.

    Args:
        data ([`MapData`]): The photos.
        groups (`Sequence`): For each mosaic its photos, row by row, of classes that differ.
        side (`int`): Photos in a row, and in a column.
    """

    def __init__(self, data: MapData, groups: Sequence[Sequence[Photo]], side: int) -> None:
        self._data = data
        self.groups = groups
        self.side = side

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Make a mosaic.

        Raises:
            ImageError: If one of its photos cannot be read any more.
        """
        length = self.side * CELL_SIZE
        mosaic, masks = Image.new("RGB", (length, length)), {}
        for cell, (place, label) in enumerate(self.groups[index]):
            sample = self._data.read(place)
            if not isinstance(sample.image, Image.Image):
                raise ImageError(f"`image` must be readable; {sample.name!r} is not ({sample.error}).")
            top, left = (CELL_SIZE * number for number in divmod(cell, self.side))
            mosaic.paste(_middle_square(sample.image), (left, top))
            masks[label] = np.zeros((length, length), dtype=bool)
            masks[label][top : top + CELL_SIZE, left : left + CELL_SIZE] = True
        return {"image": mosaic, "label": list(masks), "masks": masks}


def group_photos(photos: Iterable[Photo], size: int, limit: int | None = None) -> list[list[Photo]]:
    """Put photos into groups of different classes: each into the first that has room and not its class yet.

    Args:
        photos (`Iterable`): Places and classes, in the order in which they are taken; no more are than are needed.
        size (`int`): Photos in a group.
        limit (`int`, *optional*): Groups that are enough.

    Returns:
        The full groups, in the order in which they were begun.

    Example:
        >>> group_photos([(0, 5), (1, 5), (2, 7), (3, 7), (4, 9)], 2)
        [[(0, 5), (2, 7)], [(1, 5), (3, 7)]]
    """
    groups: list[list[Photo]] = []
    unfilled: list[list[Photo]] = []
    for photo in photos:
        group = next((each for each in unfilled if all(photo[1] != label for _, label in each)), None)
        if group is None:
            unfilled.append(group := [])
            groups.append(group)
        group.append(photo)
        if len(group) == size:
            unfilled = [each for each in unfilled if each is not group]
            if limit is not None and len(groups) >= limit and all(len(each) == size for each in groups[:limit]):
                break
    return [group for group in groups if len(group) == size][:limit]


def check_side(side: int, num_labels: int) -> None:
    """Refuse mosaics of more photos than the model has classes.

    Raises:
        ArgumentError: If there are.
    """
    if side * side > num_labels:
        raise ArgumentError(
            f"`mosaics` (`--mosaics`) must be a side of so few photos that each is of another class; got {side} "
            f"({side * side} photos), where the model has {num_labels} classes."
        )


def _middle_square(image: Image.Image) -> Image.Image:
    edge = min(image.size)
    left, top = (image.width - edge) // 2, (image.height - edge) // 2
    square = image.crop((left, top, left + edge, top + edge))
    return square.resize((CELL_SIZE, CELL_SIZE), Image.Resampling.BICUBIC)
