"""Ctrl-C, and SIGTERM, by which schedulers ask to stop: a command ends with exit code 130."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

INTERRUPTED = 130


@contextmanager
def sigterm_as_control_c() -> Iterator[None]:
    """Let SIGTERM raise `KeyboardInterrupt` in the block, as Ctrl-C does."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
