"""What the processes of one run do together, through Accelerate, and how they are stopped."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, TypeVar

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import InitProcessGroupKwargs, gather_object

from gmar_hf.errors import ArgumentError, GMARError

Result = TypeVar("Result")
_STANDARD_ERROR = 2
_ECHO = 2.0  # seconds within which a terminal and the launcher that it interrupts have both passed on one Ctrl-C
_GRACE = 10.0  # seconds that a signal may take to reach this process after another one has stopped for it


class RunInterrupted(KeyboardInterrupt):
    """Ctrl-C, or a scheduler's request to stop. Its text says how many images are done."""


def joined(accelerator: Accelerator | None) -> Accelerator:
    """Return the given accelerator or a new one, of which all processes that were launched together are part.

    Args:
        accelerator (`Accelerator`, *optional*): The calling script's.

    Raises:
        ArgumentError: If they are not part of it: each would take itself for the only one.
    """
    if accelerator is None:
        # Accelerate joins processes on the CPU only where it is told to. The first to finish must not lose patience
        # with the last, which may be an hour behind on a slower machine; nor wait for ever for one that is gone.
        accelerator = Accelerator(
            cpu=not torch.accelerator.is_available(),
            kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(hours=2))],
        )
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != launched:
        raise ArgumentError(
            f"`accelerator` must join the {launched} processes that were launched; it has "
            f"{accelerator.num_processes}. On CPUs pass `Accelerator(cpu=True)`, or set ACCELERATE_USE_CPU=true."
        )
    return accelerator


def gather(things: list[Any]) -> list[Any]:
    """Return the lists of all processes joined, in every process; every process has to call it.

    Args:
        things (`list`): What this process brings; anything that can be pickled.

    Raises:
        KeyboardInterrupt, GMARError: If another process is gone, as [`exchange`] says.
    """
    with exchange():
        return list(gather_object(things))


@contextmanager
def exchange() -> Iterator[None]:
    """Enclose what all processes do at once, and say in words what it means if one of them is gone.

    A process that was interrupted while others wait for it breaks their connection. They have been interrupted too,
    but may learn of the broken connection first, as an error of whatever library connects them: so they wait a moment
    for the signal.

    Raises:
        KeyboardInterrupt: If this process was interrupted as well; [`RunInterrupted`] where it is patient.
        GMARError: If no signal comes.
    """
    try:
        yield
    except RuntimeError as broken:
        if PartialState().num_processes == 1:
            raise
        deadline = time.monotonic() + _GRACE
        while time.monotonic() < deadline:
            if any(interruption.requested for interruption in _patient):
                raise RunInterrupted from broken
            time.sleep(0.05)  # where nobody is patient, Python raises KeyboardInterrupt here
        raise GMARError(
            "All processes of a run must stay until its end; another one is gone. See what it says. What was saved is "
            "gone on with by the same command."
        ) from broken


def together(action: Callable[[], Result]) -> Result:
    """Run `action` in every process; where it fails in one, raise in all, so that none waits for another in vain.

    Args:
        action (`Callable`): A function without arguments.

    Returns:
        This process's result.

    Raises:
        GMARError: What was raised here, or else the first that was raised elsewhere. In all processes but the one that
            raised first it is marked as an echo.
    """
    result: Any = None
    raised_here: Exception | None = None
    try:
        result = action()
    except (GMARError, OSError) as error:
        raised_here = error
    texts = gather([None if raised_here is None else str(raised_here)])
    ranks = [rank for rank, text in enumerate(texts) if text is not None]
    if not ranks:
        return result
    told = GMARError(texts[ranks[0]]) if raised_here is None else raised_here
    if isinstance(told, GMARError):
        told.is_echo = ranks[0] != PartialState().process_index
    raise told


class Interruption:
    """Whether the user has pressed Ctrl-C, or a scheduler asks to stop."""

    def __init__(self) -> None:
        self.requested = False


_patient: list[Interruption] = []  # of the blocks of `patient` that are entered now


@contextmanager
def patient(said: str = "") -> Iterator[Interruption]:
    """Let the first Ctrl-C wait for the batch in hand, so that it is saved whole; one after that stops at once.

    So does SIGTERM where it is handled like Ctrl-C. Outside the main thread, where Python delivers no signals, and
    where they are ignored, as Ctrl-C in a job that a shell has sent to the background, nothing changes.

    Args:
        said (`str`, defaults to ""): What the first one is answered with, at once, on standard error.
    """
    interruption = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return
    before: dict[int, Any] = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    if before[signal.SIGTERM] is not signal.default_int_handler:
        del before[signal.SIGTERM]
    before = {number: handler for number, handler in before.items() if callable(handler)}
    first = 0.0

    def note(number: int, frame: Any) -> None:
        nonlocal first
        if not interruption.requested:
            interruption.requested, first = True, time.monotonic()
            # Past Python's own buffer, into which the main program may be writing at this moment.
            if sys.__stderr__ is not None:  # else the descriptor is somebody else's file
                with suppress(OSError):
                    os.write(_STANDARD_ERROR, said.encode())
        elif time.monotonic() - first > _ECHO:
            before[number](number, frame)

    for number in before:
        signal.signal(number, note)
    _patient.append(interruption)
    try:
        yield interruption
    finally:
        _patient.remove(interruption)
        for number, handler in before.items():
            signal.signal(number, handler)
