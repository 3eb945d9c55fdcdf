"""How a run over a data set goes: which images, how many at once, when to save and when to stop."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch

from gmar_hf.errors import ArgumentError
from gmar_hf.utils.checks import check_choice, check_seed, check_share, check_whole

_NAMED = 5  # files, of those that cannot be read


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a run goes. [`survey`] says what each field means; an evaluation has neither `part` nor `until_stable`."""

    batch_size: int
    target: Literal["predicted", "label"]
    limit: int | None = None
    shuffle_seed: int | None = None
    num_workers: int = 0
    save_every: int = 1
    max_unreadable: float = 0.01
    until_stable: float | None = None
    part: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        check_whole("batch_size", self.batch_size, minimum=1)
        check_whole("num_workers", self.num_workers)
        check_whole("save_every", self.save_every, minimum=1)
        if self.limit is not None:
            check_whole("limit", self.limit, minimum=1)
        if self.shuffle_seed is not None:
            check_seed("shuffle_seed", self.shuffle_seed)
        check_choice("target", self.target, ("predicted", "label"))
        check_share("max_unreadable", self.max_unreadable)
        if self.until_stable is not None:
            check_share("until_stable", self.until_stable)
        if self.until_stable == 0:
            raise ArgumentError("`until_stable` must be above 0 (standard errors never are 0); got 0. Leave it out.")
        if self.part is not None:
            _check_part(self.part)

    def recorded(self) -> dict[str, Any]:
        """Return what a report says of the plan."""
        names = ("batch_size", "limit", "shuffle_seed", "until_stable", "max_unreadable")
        return {name: value for name, value in asdict(self).items() if name in names}

    def order(self, num_samples: int) -> Sequence[int]:
        """Return the samples' places in the order in which they are taken; of a part every so many-th of them."""
        order: Sequence[int] = range(num_samples)
        if self.shuffle_seed is not None:
            generator = torch.Generator().manual_seed(self.shuffle_seed)
            order = torch.randperm(num_samples, generator=generator, device="cpu").tolist()
        number, count = self.part or (1, 1)
        return order[: self.limit][number - 1 :: count]

    def num_taken(self, num_samples: int) -> int:
        """Return how many of so many samples are taken."""
        number, count = self.part or (1, 1)
        return len(range(num_samples)[: self.limit][number - 1 :: count])

    def described_parts(self) -> dict[str, Any] | None:
        """Return what a report says of the part, under `parts` of its data set; None where all is surveyed."""
        if self.part is None:
            return None
        number, count = self.part
        return {"count": count, "numbers": [number], "limit": self.limit, "shuffle_seed": self.shuffle_seed}

    def check_readable(self, bad: int, seen: int | None, when: str, named: Sequence[Mapping[str, str]]) -> None:
        """Refuse data of which too many images are unreadable.

        Args:
            bad (`int`): Number of unreadable images.
            seen (`int`, *optional*): Number of images that the share is taken of; None if that is not known.
            when (`str`): How far the run is, such as "so far".
            named (`Sequence`): `image` and `reason` of some of the unreadable ones.

        Raises:
            ArgumentError: If they are more than a share of `max_unreadable`, rounded up to whole images.
        """
        if seen is not None and bad > math.ceil(round(self.max_unreadable * seen, 6)):
            names = ", ".join(repr(entry["image"]) for entry in named[:_NAMED])
            more = f" and {bad - _NAMED} more" if names and bad > _NAMED else ""
            first = f" The first: {named[0]['reason'].rstrip('.')}." if named else ""
            raise ArgumentError(
                f"`dataset` (`--data`) must not have more unreadable images than a share of {self.max_unreadable:g}; "
                f"got {bad} of {seen} {when}{': ' * bool(names)}{names}{more}.{first} Mend them, or raise "
                "`max_unreadable` (`--max-unreadable`)."
            )


def _check_part(part: Any) -> None:
    if not (isinstance(part, Sequence) and not isinstance(part, str) and len(part) == 2):
        raise ArgumentError(
            f"`part` (`--part`) must be a number and a count, such as (3, 8) for the third of eight; got {part!r:.40}."
        )
    check_whole("part", part[1], minimum=1)
    check_whole("part", part[0], minimum=1, maximum=part[1])
