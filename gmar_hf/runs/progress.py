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
        self._last, self._told = self._start, done  # when something was said last, and of how many images

    def __enter__(self) -> "Lines":
        return self

    def __exit__(self, *error: object) -> None:
        if self._last != self._start and self._told != self.n:
            self._write()

    def update(self, count: int) -> None:
        """So many more images are done."""
        self.n += count
        if not self._hidden and time.monotonic() - self._last >= _EVERY:
            self._write()

    def set_postfix_str(self, step: str) -> None:
        """What of the images in hand is being done, such as "map 3 of 8"."""
        if not self._hidden and time.monotonic() - self._last >= _EVERY:
            self._write(f"; {step} of the batch in hand")

    def _write(self, step: str = "") -> None:
        self._last, self._told = time.monotonic(), self.n
        speed = pace(self._last - self._start, self.n - self._before)
        say(f"{counted(self.n, self.total)}{step}{speed and f', {speed}'}.")


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


def pace(seconds: float, num_done: int) -> str:
    """Such as "12 s an image", or "3.5 images a second"; nothing while none is done.

    Example:
        >>> pace(600, 5), pace(7, 5), pace(10, 35), pace(60, 0)
        ('120 s an image', '1.4 s an image', '3.5 images a second', '')
    """
    if num_done == 0:
        return ""
    each = seconds / num_done
    if each >= 10:
        return f"{each:.0f} s an image"
    return f"{each:.1f} s an image" if each >= 1 else f"{1 / each:.2g} images a second"


def duration(seconds: float) -> str | None:
    """Say a time in minutes or hours; None where it is less than a minute.

    Example:
        >>> duration(59), duration(100), duration(9000)
        (None, '2 minutes', '2.5 hours')
    """
    if seconds < _EVERY:
        return None
    return quantity(round(seconds / 60), "minute") if seconds < 2 * 3600 else f"{seconds / 3600:.1f} hours"


def time_left(seconds: float, num_done: int, num_left: int) -> str | None:
    """Say how long the rest will take at the speed of what is done; None where that is less than a minute.

    Args:
        seconds (`float`): That it took.
        num_done, num_left (`int`): Images.

    Example:
        >>> time_left(30, 10, 100)
        'The first 10 images took 30 seconds; the other 100 will take about 5 minutes.'
    """
    about = duration(seconds / num_done * num_left)
    if about is None:
        return None
    took = quantity(max(round(seconds), 1), "second")
    first = "image" if num_done == 1 else f"{num_done:,} images"
    return f"The first {first} took {took}; the other {num_left:,} will take about {about}."


def say(line: str) -> None:
    """Write a line to standard error; a bar that is there moves on below it."""
    tqdm.write(line, file=sys.stderr)
    sys.stderr.flush()
