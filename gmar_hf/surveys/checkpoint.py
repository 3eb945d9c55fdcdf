"""What a process of a survey has found so far, as a file that a killed run goes on from."""

import json
import os
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from gmar_hf.errors import ArtifactError
from gmar_hf.report.moments import Moments
from gmar_hf.utils.files import replacing

FORMAT = "gmar_hf.checkpoint"
FORMAT_VERSION = 1
TALLIES = ("num_images", "num_correct", "num_wrong", "num_unlabelled", "num_unreadable")
_MOMENTS = ("count", "mean", "squares")


@dataclass
class Part:
    """A process's share of a survey: what it has seen, and in which batches.

    Args:
        settings (`Mapping[str, Any]`): What must be the same when it is gone on with; plain JSON values.
        moments ([`Moments`]): Of every score of every head, by group.
        tallies (`dict[str, int]`): Counts of images, by `TALLIES`.
        unreadable (`list[dict[str, str]]`): `image` and `reason`.
        done (`set[int]`): Numbers of the batches that are in here.
        checked (`int`): Batches after which all processes last agreed to go on, with a tolerance to reach.
        identity (`str`): Tells it from every other part.
    """

    settings: Mapping[str, Any]
    moments: Moments
    tallies: dict[str, int] = field(default_factory=lambda: dict.fromkeys(TALLIES, 0))
    unreadable: list[dict[str, str]] = field(default_factory=list)
    done: set[int] = field(default_factory=set)
    checked: int = 0
    identity: str = field(default_factory=lambda: uuid.uuid4().hex)

    def save(self, path: Path) -> None:
        """Write the part; what stood there is replaced at once when it is complete.

        Args:
            path (`Path`): The file.

        Raises:
            ArgumentError: If the place cannot be written.
        """
        groups = self.moments.count.nonzero()[:, 0]
        tensors = {name: getattr(self.moments, name)[groups] for name in _MOMENTS}
        tensors |= {"groups": groups, "done": torch.tensor(_ranges(self.done), dtype=torch.long).reshape(-1, 2)}
        content = {
            "settings": dict(self.settings),
            "num_groups": len(self.moments.count),
            "tallies": self.tallies,
            "unreadable": self.unreadable,
            "checked": self.checked,
            "identity": self.identity,
        }
        metadata = {"format": FORMAT, "format_version": str(FORMAT_VERSION), "content": json.dumps(content)}
        with replacing(path, durable=True) as temporary:
            temporary.write_bytes(save(tensors, metadata))

    @classmethod
    def load(cls, path: Path) -> "Part":
        """Read what [`save`] wrote.

        Args:
            path (`Path`): The file.

        Raises:
            ArtifactError: If it is corrupt or of another version.
        """
        try:
            with safe_open(os.fspath(path), framework="pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("format") != FORMAT or metadata.get("format_version") != str(FORMAT_VERSION):
                    raise ValueError("it is of another format")
                content = json.loads(metadata["content"])
                tensors = {name: file.get_tensor(name) for name in (*_MOMENTS, "groups", "done")}
            moments = Moments.empty(content["num_groups"], tuple(tensors["mean"].shape[1:]))
            for name in _MOMENTS:
                getattr(moments, name)[tensors["groups"]] = tensors[name]
            done = {number for first, last in tensors["done"].tolist() for number in range(first, last)}
            return cls(
                settings=content["settings"],
                moments=moments,
                tallies=content["tallies"],
                unreadable=content["unreadable"],
                done=done,
                checked=content["checked"],
                identity=content["identity"],
            )
        except (SafetensorError, KeyError, TypeError, ValueError, IndexError, RuntimeError, OSError) as error:
            raise ArtifactError(
                f"{os.fspath(path)!r} must be a checkpoint of a survey; it cannot be used ({error}). "
                "Delete it (its images are explained again), or start anew with `resume=False`, `--no-resume`."
            ) from error


def _ranges(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """Ascending [first, last) ranges that hold exactly these numbers.

    Example:
        >>> _ranges({5, 0, 1, 2})
        [(0, 3), (5, 6)]
    """
    found: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if found and found[-1][1] == number:
            found[-1] = (found[-1][0], number + 1)
        else:
            found.append((number, number + 1))
    return found
