"""What a process of a survey has found so far, as a file that a killed run goes on from."""

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from gmar_hf.errors import ArgumentError
from gmar_hf.report.head_means import HeadMeans
from gmar_hf.report.moments import Moments
from gmar_hf.report.top_images import TopImages
from gmar_hf.report.traits import HeadTraits
from gmar_hf.utils.artifacts import ArtifactFormat
from gmar_hf.utils.missing_heads import are_finite_of_heads
from gmar_hf.utils.plain_json import COUNT, TEXT, check_json

FORMAT = ArtifactFormat(
    "gmar_hf.checkpoint",
    3,
    "a checkpoint of a survey",
    "Delete it (its images are explained again), or start anew with `resume=False`, `--no-resume`.",
)
COUNTS = ("num_images", "num_correct", "num_wrong", "num_unlabelled", "num_unreadable")
_MOMENTS = ("count", "mean", "squares")
_CONTENT = {
    "settings": {},
    "num_groups": COUNT,
    "counts": dict.fromkeys(COUNTS, COUNT),
    "unreadable": [{"image": TEXT, "reason": TEXT}],
    "checked": COUNT,
    "identity": TEXT,
}


@dataclass(kw_only=True)
class Part:
    """A process's share of a survey: what it has seen, and in which batches.

    Args:
        settings (`Mapping[str, Any]`): What must be the same when it is gone on with; plain JSON values.
        moments ([`Moments`]): Of every score of every head, by group.
        means ([`HeadMeans`], *optional*): Of the heads' outputs and of the gradients by them; None before the first
            explanation.
        traits ([`HeadTraits`], *optional*): Of the heads, if they are described; None before the first explanation.
        top_images (`TopImages`, *optional*): Where each head adds most, if that is asked for.
        counts (`dict[str, int]`): Numbers of images, by the names in `COUNTS`.
        unreadable (`list[dict[str, str]]`): `image` and `reason`.
        done (`set[int]`): Numbers of the batches that are in here.
        checked (`int`): Batches after which all processes last agreed to go on, with a tolerance to reach.
        identity (`str`): Tells it from every other part.
    """

    settings: Mapping[str, Any]
    moments: Moments
    means: HeadMeans | None = None
    traits: HeadTraits | None = None
    top_images: TopImages | None = None
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTS, 0))
    unreadable: list[dict[str, str]] = field(default_factory=list)
    done: set[int] = field(default_factory=set)
    checked: int = 0
    identity: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def key(self) -> str:
        """Tells the part from every other one, under any file name."""
        return self.identity

    def save(self, path: Path) -> None:
        """Write the part; what stood there is replaced at once when it is complete.

        Args:
            path (`Path`): The file.

        Raises:
            ArgumentError: If the place cannot be written.
        """
        groups = self.moments.count.nonzero()[:, 0]  # most groups of a large label set stay empty
        tensors = {name: getattr(self.moments, name)[groups] for name in _MOMENTS}
        tensors |= {"groups": groups, "done": torch.tensor(_ranges(self.done), dtype=torch.long).reshape(-1, 2)}
        if self.means is not None:
            tensors |= self.means.tensors()
        if self.traits is not None:
            tensors |= self.traits.tensors()
        content = {
            "settings": dict(self.settings),
            "num_groups": len(self.moments.count),
            "traits": None if self.traits is None else self.traits.content(),
            "top_images": self.top_images,
            "counts": self.counts,
            "unreadable": self.unreadable,
            "checked": self.checked,
            "identity": self.identity,
        }
        FORMAT.write(path, content, tensors, durable=True)

    @classmethod
    def load(cls, path: Path) -> "Part":
        """Read what [`save`] wrote.

        Args:
            path (`Path`): The file.

        Raises:
            ArtifactError: If it is corrupt or of another version.
        """
        with FORMAT.reading(path) as artifact:
            content, tensors = artifact.content, artifact.tensors
            check_json("content", content, _CONTENT)
            moments = Moments.empty(content.pop("num_groups"), tuple(tensors["mean"].shape[1:]))
            for name in _MOMENTS:
                getattr(moments, name)[tensors["groups"]] = tensors[name]
            if not all(are_finite_of_heads(tensors[name]) for name in _MOMENTS):
                raise ArgumentError("`moments` must be finite; got NaN or infinity.")
            moments = Moments(moments.count, moments.mean, moments.squares)  # looks at the signs
            done = {number for first, last in tensors["done"].tolist() for number in range(first, last)}
            count = int(moments.count.sum())
            means = HeadMeans.from_tensors(tensors, count)
            traits = HeadTraits.from_tensors(tensors, content.pop("traits"), count)
            return cls(moments=moments, means=means, traits=traits, done=done, **content)


def _ranges(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """Return ascending [first, last) ranges that hold exactly these numbers.

    Example:
        >>> _ranges({5, 0, 1, 2})
        [(0, 3), (5, 6)]
    """
    ranges: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if ranges and ranges[-1][1] == number:
            ranges[-1] = (ranges[-1][0], number + 1)
        else:
            ranges.append((number, number + 1))
    return ranges
