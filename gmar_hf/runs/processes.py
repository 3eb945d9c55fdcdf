"""What the processes of a survey do together, through Accelerate."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import InitProcessGroupKwargs, gather_object

from gmar_hf.errors import ArgumentError, GMARError

Result = TypeVar("Result")
_ECHO = 2.0  # seconds within which a terminal and the launcher that it interrupts have both passed on one Ctrl-C


def joined(accelerator: Accelerator | None) -> Accelerator:
    """The given accelerator or a new one, of which all processes that were launched together are part.

    Raises:
        ArgumentError: If they are not: each would take itself for the only one.
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


def together(action: Callable[[], Result]) -> Result:
    """Run `action` in every process; where it fails in one, raise in all, so that none waits for another in vain.

    Args:
        action (`Callable`): Without arguments.

    Returns:
        This process's result.

    Raises:
        GMARError: What was raised here, or else the first that was raised elsewhere. In all processes but the one that
            raised first it is marked as an echo.
    """
    result: Any = None
    own: Exception | None = None
    try:
        result = action()
    except (GMARError, OSError) as raised_here:
        own = raised_here
    told = gather_object([None if own is None else str(own)])
    raised = [rank for rank, text in enumerate(told) if text is not None]
    if not raised:
        return result
    error = GMARError(told[raised[0]]) if own is None else own
    if isinstance(error, GMARError):
        error.is_echo = raised[0] != PartialState().process_index
    raise error


class Interruption:
    """Whether the user has pressed Ctrl-C, or a scheduler asks to stop."""

    def __init__(self) -> None:
        self.requested = False


@contextmanager
def patient() -> Iterator[Interruption]:
    """Let the first Ctrl-C wait for the batch in hand, so that it is saved whole; one after that stops at once.

    So does SIGTERM where it is handled like Ctrl-C. Outside the main thread, where Python delivers no signals, and
    where they are ignored, as Ctrl-C in a job that a shell has sent to the background, nothing changes.
    """
    interruption = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return
    before: dict[int, Any] = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
    if before[signal.SIGTERM] is not signal.default_int_handler:
        del before[signal.SIGTERM]
    before = {one: handler for one, handler in before.items() if callable(handler)}
    first = 0.0

    def note(number: int, frame: Any) -> None:
        nonlocal first
        if not interruption.requested:
            interruption.requested, first = True, time.monotonic()
        elif time.monotonic() - first > _ECHO:
            before[number](number, frame)

    for number in before:
        signal.signal(number, note)
    try:
        yield interruption
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
