"""How far a survey or an evaluation is: a bar on a terminal, and a line now and then elsewhere."""

import sys
import time
from typing import Any

from tqdm import tqdm

from gmar_hf.utils.text import quantity

_EVERY = 60.0  # seconds between two lines


class Lines:
    """Takes the place of tqdm's bar in a log: a line a minute, and one at the end of what took longer than that.

    Args:
        done (`int`): Images done before.
        total (`int`, *optional*): Images in all; None where that is not known.
        hidden (`bool`): Whether to count only.
    """

    def __init__(self, done: int, total: int | None, *, hidden: bool = False) -> None:
        self.n, self.total, self._hidden = done, total, hidden
        self._before, self._start = done, time.monotonic()
        self._last = self._start

    def __enter__(self) -> "Lines":
        return self

    def __exit__(self, *error: object) -> None:
        if self._last != self._start:
            self._write()

    def update(self, count: int) -> None:
        """So many more images are done."""
        self.n += count
        if not self._hidden and time.monotonic() - self._last >= _EVERY:
            self._write()

    def set_postfix_str(self, step: str) -> None:
        """So much of the images in hand is done, such as "map 3 of 8"."""
        if not self._hidden and time.monotonic() - self._last >= _EVERY:
            self._write(f"; {step} of the next")

    def _write(self, step: str = "") -> None:
        self._last = time.monotonic()
        speed = (self.n - self._before) / (self._last - self._start)
        say(f"{counted(self.n, self.total)}{step}, {speed:.2g} a second.")


def progress(done: int, total: int | None, *, hidden: bool, what: str = "survey") -> Any:
    """What shows how far work on a data set is, on standard error; says first if it goes on with an earlier one.

    Args:
        done (`int`): Images done before.
        total (`int`, *optional*): Images in all; None where that is not known.
        hidden (`bool`): Whether to show nothing: of several processes one shows it.
        what (`str`, defaults to "survey"): What the bar says it is.

    Returns:
        `tqdm` or [`Lines`], both with `n`, `total`, `update`, `set_postfix_str` and a `with` block.
    """
    if done and not hidden:
        say(f"Going on: {counted(done, total)}.")
    if not hidden and sys.stderr.isatty():
        return tqdm(total=total, initial=done, unit="image", desc=what, smoothing=0.05)
    return Lines(done, total, hidden=hidden)


def counted(done: int, total: int | None) -> str:
    """Such as "120 of 400 images are done".

    Example:
        >>> counted(120, 400), counted(1, None)
        ('120 of 400 images are done', '1 image is done')
    """
    images = quantity(done, "image") if total is None else f"{done:,} of {quantity(total, 'image')}"
    return f"{images} {'is' if done == 1 else 'are'} done"


def time_left(seconds: float, num_done: int, num_left: int) -> str | None:
    """Say how long the rest will take at the speed of what is done; None where that is less than a minute.

    Args:
        seconds (`float`): That it took.
        num_done, num_left (`int`): Images.

    Example:
        >>> time_left(30, 10, 100)
        'The first 10 images took 30 seconds; the other 100 will take about 5 minutes.'
    """
    rest = seconds / num_done * num_left
    if rest < _EVERY:
        return None
    minutes = quantity(round(rest / 60), "minute")
    about = minutes if rest < 2 * 3600 else f"{rest / 3600:.1f} hours"
    took = quantity(max(round(seconds), 1), "second")
    first = "image" if num_done == 1 else f"{num_done:,} images"
    return f"The first {first} took {took}; the other {num_left:,} will take about {about}."


def say(line: str) -> None:
    """Write a line to standard error; a bar that is there moves on below it."""
    tqdm.write(line, file=sys.stderr)
    sys.stderr.flush()
