"""Seeds that a generator of torch takes."""

from gmar_hf.errors import ArgumentError


def check_count(name: str, count: int) -> None:
    """Raise if an argument is no positive int.

    Raises:
        ArgumentError: Then.
    """
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise ArgumentError(f"`{name}` must be a positive int; got {count!r}.")


def check_seed(name: str, value: object) -> None:
    """Raise if an argument is no whole number in [0, 2**63 - 1].

    Raises:
        ArgumentError: Then.

    Example:
        >>> check_seed("seed", -1)
        Traceback (most recent call last):
        ...
        gmar_hf.errors.ArgumentError: `seed` must be a whole number in [0, 2**63 - 1]; got -1.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63:
        raise ArgumentError(f"`{name}` must be a whole number in [0, 2**63 - 1]; got {value!r:.40}.")


def _check_share(name: str, value: object) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
        raise ArgumentError(f"`{name}` must be a share in [0, 1]; got {value!r}.")


def _check_whole(name: str, value: object, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ArgumentError(f"`{name}` must be a whole number of {least} or more; got {value!r}.")
