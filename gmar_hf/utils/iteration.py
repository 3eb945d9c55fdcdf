"""Keeping errors of users' code apart from what ends a loop."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch.utils.data import Dataset

from gmar_hf.errors import ArgumentError


@contextmanager
def no_stop_iteration(argument: str, where: str) -> Iterator[None]:
    """Refuse a `StopIteration` of the user's code inside the block, or inside the function that this decorates.

    Whatever asks an iterator for its next element (a `for`, a `DataLoader`, a pipeline) takes it for the end of the
    data, and would give a complete result of part of them. Python itself refuses it only in generators (PEP 479).

    Args:
        argument (`str`): The argument whose code runs in the block.
        where (`str`): What errors say raised it.

    Raises:
        ArgumentError: In its place.

    Example:
        >>> def items():
        ...     with no_stop_iteration("data", "item 0"):
        ...         return next(iter([]))
        >>> items()
        Traceback (most recent call last):
            ...
        gmar_hf.errors.ArgumentError: `data` must not raise StopIteration, which a loop takes for its own end; item 0 \
did. Give `next` a default there, or raise another error.
    """
    try:
        yield
    except (StopIteration, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not isinstance(error.__cause__, StopIteration):
            raise  # none that Python has made of one in a generator
        raise ArgumentError(
            f"`{argument}` must not raise StopIteration, which a loop takes for its own end; {where} did. "
            "Give `next` a default there, or raise another error."
        ) from error


class GuardedItems(Dataset[Any]):
    """A data set of the user's, whose items cannot end the loop that asks for them.

    Args:
        items: With `__len__` and `__getitem__`.
        argument (`str`): The argument that it was given for.
    """

    def __init__(self, items: Any, argument: str) -> None:
        self._items, self._argument = items, argument

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Any:
        """Return an item.

        Raises:
            ArgumentError: In the place of a `StopIteration`.
        """
        with no_stop_iteration(self._argument, f"item {index}"):
            return self._items[index]
