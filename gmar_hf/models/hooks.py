"""Hooks and methods that a user's modules have for a while: their copies and files are to be without them."""

import copy
import threading
from collections.abc import Callable
from typing import Any, NoReturn

from torch import nn

from gmar_hf.errors import ArgumentError


class BorrowedHook:
    """A module's hook for the time of a block; in a copy of the module it does nothing, a file cannot hold it.

    Args:
        function (`Callable`): What is called.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._function(*args, **kwargs)

    def __deepcopy__(self, memo: Any) -> Callable[..., None]:
        return nothing

    def __reduce__(self) -> NoReturn:
        raise _not_pickled()


def nothing(*args: Any, **kwargs: Any) -> None:
    """Do nothing, in place of a hook that was not meant for this module."""


def of_this_thread(hook: Callable[..., Any]) -> BorrowedHook:
    """Return a module's forward hook that leaves the forwards of other threads alone."""
    thread = threading.get_ident()

    def own(*args: Any, **kwargs: Any) -> Any:
        return hook(*args, **kwargs) if threading.get_ident() == thread else None

    return BorrowedHook(own)


class BorrowedMethod:
    """Stands in the place of a module's method for the time of a block; a copy of the module has its own method.

    Args:
        module (`nn.Module`): Whose method it is.
        method (`Callable`): Gets the module and the arguments.
        own (`Callable`): The module's method, bound to it.
    """

    def __init__(self, module: nn.Module, method: Callable[..., Any], own: Callable[..., Any]) -> None:
        self._module, self._method, self._own = module, method, own

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._method(self._module, *args, **kwargs)

    def __deepcopy__(self, memo: Any) -> Any:
        return copy.deepcopy(self._own, memo)

    def __reduce__(self) -> NoReturn:
        raise _not_pickled()


def _not_pickled() -> ArgumentError:
    return ArgumentError(
        "`model` must not be pickled (as by `torch.save`) inside `silence_heads` or another block that records "
        "its attention: the file would hold the block's hooks. Save it after the block, or its `state_dict`."
    )
