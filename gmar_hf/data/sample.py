"""Samples, and the two kinds of data that give them: in any order, or one after the other."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import get_worker_info

from gmar_hf.errors import ArgumentError


@dataclass(frozen=True)
class Sample:
    """One image of a data set.

    Args:
        name (`str`): A file's path in its folder, or the row or item; no part of it tells where the data lie.
        image (PIL image of mode "RGB", or `torch.Tensor` of shape (channels, height, width), *optional*): The image,
            or pixel values that are processed already; None if it cannot be read.
        labels (`tuple[int, ...]`, *optional*): The model's indices of its classes; None where they are not known.
        error (`str`, *optional*): Why there is no image, in one line.
        masks (`Mapping[int | None, np.ndarray]`, *optional*): Where the image's objects are, by the model's index of
            their class: bool arrays of shape (height, width), of the image's own size. Under None: that of whatever
            class is explained. None where no masks are known, or nobody asked for them.
    """

    name: str
    image: Image.Image | torch.Tensor | None
    labels: tuple[int, ...] | None
    error: str | None = None
    masks: Mapping[int | None, np.ndarray] | None = field(default=None, compare=False)  # arrays have no one answer


class MapData(ABC):
    """Samples in a fixed order, each to be read at any time. It can be pickled, so that other processes read too.

    Attributes:
        identity (`dict[str, Any]`): The data's entry in a report: `id`, `is_local`, `revision`, `split`, `num_images`
            and `fingerprint`.
        has_labels (`bool`): Whether labels are known at all.
        label_reading (`str`): In words, how labels are read.
        has_masks (`bool`): Whether masks are known at all, and were asked for.
        has_class_masks (`bool`): Whether it is also known of which class they are.
        masks_fingerprint (`str`): A digest of masks that `identity` does not cover; empty where it does.
    """

    identity: dict[str, Any]
    has_labels: bool
    label_reading: str = ""
    has_masks: bool = False
    has_class_masks: bool = False
    masks_fingerprint: str = ""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def read(self, index: int) -> Sample:
        """Read a sample; an image that cannot be read is one with an `error`.

        Args:
            index (`int`): In [0, len(self) - 1].

        Raises:
            ArgumentError: If its label is none of the model's, or a mask has another size than the image.
        """


class StreamData(ABC):
    """Samples that come one after the other.

    Attributes:
        identity (`dict[str, Any]`): The data's entry in a report, in which `num_images` is None.
        has_labels (`bool`, *optional*): Whether labels are known at all; None where only the samples tell.
        label_reading (`str`): In words, how labels are read.
        has_masks (`bool`, *optional*): Whether masks are, and were asked for; None where only the samples tell.
    """

    identity: dict[str, Any]
    has_labels: bool | None
    label_reading: str = ""
    has_masks: bool | None = False

    def read(self, rank: int, num_processes: int, skip: int = 0) -> Iterator[Sample]:
        """Read the share of one process; the shares of all are disjoint and together hold every sample once.

        Args:
            rank (`int`): Of the process, in [0, num_processes - 1].
            num_processes (`int`): Processes that share the data; another number cuts other shares.
            skip (`int`, defaults to 0): Samples of this share that are passed over first.

        Raises:
            ArgumentError: If a label is none of the model's, or several workers of a DataLoader read (each would read
                all of the share).
        """
        worker = get_worker_info()
        if worker is not None and worker.num_workers > 1:
            raise ArgumentError(
                f"`num_workers` must be 0 or 1 for streaming data; got {worker.num_workers}. Share it among processes."
            )
        return self._share(rank, num_processes, skip)

    @abstractmethod
    def _share(self, rank: int, num_processes: int, skip: int) -> Iterator[Sample]: ...

    @abstractmethod
    def shuffled(self, seed: int) -> "StreamData":
        """Return the same samples in an order that the seed decides.

        Args:
            seed (`int`): Must be the same in all processes.

        Raises:
            ArgumentError: If this stream cannot be shuffled.
        """


def describe(
    name: str,
    fingerprint: str,
    is_local: bool = True,
    revision: str | None = None,
    split: str | None = None,
    num_images: int | None = None,
) -> dict[str, Any]:
    """Return a data set's entry in a report."""
    return {
        "id": name,
        "is_local": is_local,
        "revision": revision,
        "split": split,
        "num_images": num_images,
        "fingerprint": fingerprint,
    }


def sampled_places(length: int, count: int = 16) -> list[int]:
    """Return up to `count` places in something of a length: the first, the last, and some between.

    Example:
        >>> sampled_places(100, 4)
        [0, 33, 66, 99]
    """
    return sorted({number * (length - 1) // (count - 1) for number in range(count)})


def digest(*parts: object) -> str:
    """Return 32 hexadecimal digits of the SHA-256 of the parts' texts, the same on every machine."""
    text = "\0".join(map(str, parts))
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:32]
