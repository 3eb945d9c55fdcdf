"""Images on which a model's numbers are of no use: found in their batch, and left out as if they were unreadable."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from gmar_hf.errors import GMARError, ImageArgumentError, NonFiniteError
from gmar_hf.images.image_file import reason
from gmar_hf.runs.batches import Batch
from gmar_hf.utils.text import listed

Found = TypeVar("Found")


def without_unusable(batch: Batch, work: Callable[[Batch], Found]) -> tuple[Found, Batch]:
    """Work on a batch; where numbers are NaN or infinite, on those of its images that are not to blame.

    Args:
        batch ([`Batch`]): Images, some of which may be bad.
        work (`Callable`): Works on a batch, as often as it is asked to, and keeps nothing of it.

    Returns:
        What it found, and the batch that it was found in: images that fail alone are among the unreadable ones there.

    Raises:
        NonFiniteError, ImageArgumentError: If all images are good alone, and no more so together.
    """
    try:
        return work(batch), batch
    except (NonFiniteError, ImageArgumentError) as error:
        bad = _failing_alone(batch, work, error)
        if not bad:
            error.add_note(f"This happened in a batch of {listed(batch.names)}, though in none of them alone.")
            raise
    good = _only(batch, [row for row in range(len(batch.names)) if row not in bad])
    told = [{"image": batch.names[row], "reason": reason(error)} for row, error in bad.items()]
    good.unreadable = [*batch.unreadable, *told]
    return work(good), good


def _failing_alone(batch: Batch, work: Callable[[Batch], object], error: Exception) -> dict[int, Exception]:
    """Return such errors of images that fail in a batch of their own, by their places in this one."""
    if len(batch.names) == 1:
        return {0: error}
    bad: dict[int, Exception] = {}
    for row in range(len(batch.names)):
        try:
            work(_only(batch, [row]))
        except (NonFiniteError, ImageArgumentError) as alone:
            bad[row] = alone
        except GMARError:  # of one image alone, such as of a map that is made for so many
            continue
    return bad


def _only(batch: Batch, rows: Sequence[int]) -> Batch:
    """Return a batch of some of the good images alone; its number is the same."""
    pixels = batch.pixel_values
    return replace(
        batch,
        names=[batch.names[row] for row in rows],
        places=[batch.places[row] for row in rows],
        labels=[batch.labels[row] for row in rows],
        masks=[batch.masks[row] for row in rows] if batch.masks else [],
        pixel_values=None if pixels is None or not rows else pixels[list(rows)],
        unreadable=[],
    )
