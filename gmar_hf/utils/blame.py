"""Errors that name the argument that was given, where a step further on knows another one only."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from gmar_hf.errors import ArgumentError, GMARError, NonFiniteError


@contextmanager
def blaming(told: Callable[[], str], without: Callable[[], Any]) -> Iterator[None]:
    """Raise an error of the block as that of an argument, where the same without this argument raises none.

    Args:
        told (`Callable`): Returns what the error says: the argument, what it must be, what was got, what to do. It is
            called only if the block fails, so that it may look through large tensors.
        without (`Callable`): Does the same without the argument. It is called only if the block fails.

    Raises:
        ArgumentError, NonFiniteError: Of the kind that the block raised; with its own words if it is not to blame.

    Example:
        >>> def fail():
        ...     raise NonFiniteError("The logits must be finite; got NaN.")
        >>> with blaming(lambda: "`mask_baseline` must be smaller; got 3e38.", without=lambda: None):
        ...     fail()
        Traceback (most recent call last):
            ...
        gmar_hf.errors.NonFiniteError: `mask_baseline` must be smaller; got 3e38.
    """
    try:
        yield
    except (ArgumentError, NonFiniteError) as error:
        try:
            without()
        except GMARError:
            raise error from None
        raise type(error)(told()) from error
