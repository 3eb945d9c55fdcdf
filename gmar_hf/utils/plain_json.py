"""What a JSON value that came from a file must look like, as a table, and a check against it.

A string of this module's is a kind of value; a dict must have these entries (and may have more), a list holds entries
of one kind, and what stands in a pair with None may be null.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gmar_hf.errors import ArgumentError
from gmar_hf.utils.checks import is_number, is_whole

TEXT, COUNT, NUMBER, FLAG = "a string", "a whole number of 0 or more", "a finite number", "true or false"
_LIMIT = 2**64  # infinities and numbers that no tensor holds are not below it
_KINDS: dict[str, Callable[[Any], bool]] = {
    TEXT: lambda value: isinstance(value, str),
    COUNT: lambda value: is_whole(value) and 0 <= value < _LIMIT,
    NUMBER: lambda value: is_number(value) and abs(value) < _LIMIT,
    FLAG: lambda value: isinstance(value, bool),
}


def plain_copy(argument: str, value: Any) -> Any:
    """Return a copy of a value as it would come back from a file.

    Args:
        argument (`str`): What the error calls it.
        value (`Any`): What is to be written.

    Raises:
        ArgumentError: If it holds more than plain JSON: other objects, NaN, infinity, or keys that are no strings.

    Example:
        >>> plain_copy("settings", {"sizes": (2, 3)})
        {'sizes': [2, 3]}
    """
    try:
        copied = json.loads(json.dumps(value, allow_nan=False))
        _check_keys(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise ArgumentError(f"`{argument}` must hold plain JSON values; got others ({error}).") from error
    return copied


def _check_keys(value: Any) -> None:
    """Refuse keys that are no strings, which JSON would make strings of."""
    if isinstance(value, Mapping):
        for key, entry in value.items():
            if not isinstance(key, str):
                raise TypeError(f"the key {key!r:.40} is no string")
            _check_keys(entry)
    elif isinstance(value, list | tuple):
        for entry in value:
            _check_keys(entry)


def check_json(argument: str, value: Any, wanted: Any, where: str = "") -> None:
    """Refuse a value that is not as a table says.

    Args:
        argument (`str`): What the error calls the whole that the value is part of.
        value (`Any`): Plain JSON.
        wanted (`Any`): The table, as the module describes it.
        where (`str`, defaults to ""): The value's place in the whole.

    Raises:
        ArgumentError: If an entry is missing or of another kind; the message names its place.

    Example:
        >>> check_json("settings", {"names": ["a", 2]}, {"names": [TEXT]})
        Traceback (most recent call last):
        ...
        gmar_hf.errors.ArgumentError: `settings` must have a string as 'names[1]'; got 2.
    """
    if isinstance(wanted, tuple):
        if value is not None:
            check_json(argument, value, wanted[0], where)
    elif isinstance(wanted, str):
        if not _KINDS[wanted](value):
            raise _wrong(argument, wanted, where, value)
    elif isinstance(wanted, list):
        if not isinstance(value, list):
            raise _wrong(argument, "a list", where, value)
        for place, entry in enumerate(value):
            check_json(argument, entry, wanted[0], f"{where}[{place}]")
    else:
        if not isinstance(value, dict):
            raise _wrong(argument, "an object", where, value)
        for key, kind in wanted.items():
            path = f"{where}.{key}".removeprefix(".")
            if key not in value:
                raise ArgumentError(f"`{argument}` must have {path!r}; it is missing.")
            check_json(argument, value[key], kind, path)


def _wrong(argument: str, kind: str, where: str, value: Any) -> ArgumentError:
    shown = f"{len(value)} entries" if isinstance(value, Sequence) and not isinstance(value, str) else f"{value!r:.80}"
    must = f"have {kind} as {where!r}" if where else f"be {kind}"
    return ArgumentError(f"`{argument}` must {must}; got {shown}.")
