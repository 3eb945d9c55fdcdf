"""Seeds that a generator of torch takes."""

from .errors import ArgumentError


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
