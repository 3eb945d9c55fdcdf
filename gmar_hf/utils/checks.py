"""Checks of single arguments: each says in one sentence what the argument must be, what it is, and what to do.

They are for the doors of the package, the public functions; behind a door values are trusted. Each returns the value
as a plain Python number or string, so that what came as a NumPy number can be written as JSON.
"""

import sys
from collections.abc import Iterable, Sequence
from numbers import Integral, Real

from gmar_hf.errors import ArgumentError
from gmar_hf.utils.text import did_you_mean, quoted


def is_whole(value: object) -> bool:
    """Tell whether a value is a whole number: Python's and NumPy's ints are, bools are not.

    Example:
        >>> is_whole(3), is_whole(3.0), is_whole(True)
        (True, False, False)
    """
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """Tell whether a value is a real number that is not NaN: Python's and NumPy's are, bools are not.

    Example:
        >>> is_number(0.5), is_number(float("nan")), is_number(True)
        (True, False, False)
    """
    # No `math.isnan`, which fails for whole numbers beyond all floats.
    return isinstance(value, Real) and not isinstance(value, bool) and bool(value == value)


def check_whole(argument: str, value: object, *, minimum: int = 0, maximum: int | None = None) -> int:
    """Refuse anything but a whole number in a range.

    Args:
        argument (`str`): The argument's name, which the error shows.
        value (`object`): What was given.
        minimum (`int`, defaults to 0): The smallest number allowed.
        maximum (`int`, *optional*): The largest number allowed; there is no limit without it.

    Returns:
        `int`: The value.

    Raises:
        ArgumentError: If the value is no whole number, or outside the range.

    Example:
        >>> check_whole("seed", -1)
        Traceback (most recent call last):
        ...
        gmar_hf.errors.ArgumentError: `seed` must be a whole number of 0 or more; got -1.
    """
    if is_whole(value) and value >= minimum and (maximum is None or value <= maximum):  # type: ignore[operator]
        return int(value)  # type: ignore[call-overload]
    span = f"of {minimum} or more" if maximum is None else f"in [{minimum}, {_power(maximum)}]"
    raise ArgumentError(f"`{argument}` must be a whole number {span}; got {value!r:.40}.")


def check_seed(argument: str, value: object) -> int:
    """Refuse anything but a seed that torch's generators take: a whole number in [0, 2**63 - 1].

    Args:
        argument (`str`): The argument's name, which the error shows.
        value (`object`): What was given.

    Returns:
        `int`: The value.

    Raises:
        ArgumentError: If the value is something else.
    """
    return check_whole(argument, value, maximum=2**63 - 1)


def check_number(argument: str, value: object, *, above: float | None = None, unit: str = "") -> float:
    """Refuse anything but a finite number that is not negative, or that lies above a bound.

    Args:
        argument (`str`): The argument's name, which the error shows.
        value (`object`): What was given.
        above (`float`, *optional*): The bound that the value must exceed; without it the value must be 0 or more.
        unit (`str`, defaults to ""): What the number counts, such as "pixels".

    Returns:
        `float`: The value.

    Raises:
        ArgumentError: If the value is no number, not finite, or too small.

    Example:
        >>> check_number("blur_sigma", 0, above=0, unit="pixels")
        Traceback (most recent call last):
        ...
        gmar_hf.errors.ArgumentError: `blur_sigma` must be a number of pixels above 0; got 0.
    """
    is_large_enough = is_number(value) and (value >= 0 if above is None else value > above)  # type: ignore[operator]
    if is_large_enough and value <= sys.float_info.max:  # type: ignore[operator]
        return float(value)  # type: ignore[arg-type]
    what = f"a number of {unit}" if unit else "a number"
    bound = "that is 0 or more" if above is None else f"above {above:g}"
    raise ArgumentError(f"`{argument}` must be {what} {bound}; got {value!r:.40}.")


def check_share(argument: str, value: object) -> float:
    """Refuse anything but a share, a number in [0, 1].

    Args:
        argument (`str`): The argument's name, which the error shows.
        value (`object`): What was given.

    Returns:
        `float`: The value.

    Raises:
        ArgumentError: If the value is something else.

    Example:
        >>> check_share("ratio", 25)
        Traceback (most recent call last):
        ...
        gmar_hf.errors.ArgumentError: `ratio` must be a share in [0, 1]; got 25.
    """
    if is_number(value) and 0 <= value <= 1:  # type: ignore[operator]
        return float(value)  # type: ignore[arg-type]
    raise ArgumentError(f"`{argument}` must be a share in [0, 1]; got {value!r:.40}.")


def check_flags(**flags: object) -> None:
    """Refuse anything but True and False: of what is not empty Python would take anything for True, "no" too.

    Args:
        **flags: What was given, by the arguments' names.

    Raises:
        ArgumentError: If a value is something else.

    Example:
        >>> check_flags(force=True, resume="no")
        Traceback (most recent call last):
        ...
        gmar_hf.errors.ArgumentError: `resume` must be True or False; got 'no'.
    """
    for argument, value in flags.items():
        if not isinstance(value, bool):
            raise ArgumentError(f"`{argument}` must be True or False; got {value!r:.40}.")


def check_choice(argument: str, value: object, choices: Iterable[str], *, otherwise: str = "") -> None:
    """Refuse anything but one of several names; the error suggests the one that is spelled alike.

    Args:
        argument (`str`): The argument's name, which the error shows.
        value (`object`): What was given.
        choices (`Iterable[str]`): The names there are.
        otherwise (`str`, defaults to ""): What else the argument may be, such as "or a tensor of pixel values".

    Raises:
        ArgumentError: If the value is none of them.

    Example:
        >>> check_choice("method", "rolout", ["gmar", "rollout"])
        Traceback (most recent call last):
        ...
        gmar_hf.errors.ArgumentError: `method` must be one of "gmar", "rollout"; got 'rolout'. Did you mean 'rollout'?
    """
    choices = list(choices)
    if isinstance(value, str) and value in choices:
        return
    listed = ", ".join(filter(None, [quoted(choices), otherwise]))
    hint = did_you_mean(value, choices) if isinstance(value, str) else ""
    raise ArgumentError(f"`{argument}` must be one of {listed}; got {value!r:.80}.{hint}")


def check_names(argument: str, names: Sequence[str], choices: Iterable[str]) -> None:
    """Refuse anything but a list of different names that are known.

    Args:
        argument (`str`): The argument's name, which the error shows.
        names (`Sequence[str]`): What was given.
        choices (`Iterable[str]`): The names there are.

    Raises:
        ArgumentError: If it is no list, empty, or holds an unknown name or one twice.

    Example:
        >>> check_names("metrics", ["saco", "saco"], ["saco", "iou"])
        Traceback (most recent call last):
        ...
        gmar_hf.errors.ArgumentError: `metrics` must name each one once; got 'saco' twice. Drop one.
    """
    choices = list(choices)
    if isinstance(names, str) or not isinstance(names, Sequence) or not names:
        raise ArgumentError(f"`{argument}` must be a list of names; got {names!r:.80}. There are: {quoted(choices)}.")
    for place, name in enumerate(names):
        check_choice(argument, name, choices)
        if name in names[:place]:
            raise ArgumentError(f"`{argument}` must name each one once; got {name!r} twice. Drop one.")


def _power(number: int) -> str:
    """Return the largest seed as people write it, and any smaller number in digits."""
    return "2**63 - 1" if number == 2**63 - 1 else str(number)
