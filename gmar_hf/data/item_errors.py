"""What the user's data raise where an item is asked for, as an error that says which item it was."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gmar_hf.errors import ArgumentError, GMARError, ImageError
from gmar_hf.images.image_file import is_bad_image, reason


def is_unreadable(error: Exception) -> bool:
    """Tell whether an error of the user's data says that an image cannot be read, and nothing else is wrong."""
    return isinstance(error, ImageError) if isinstance(error, GMARError) else is_bad_image(error)


@contextmanager
def item_errors(what: str, unless: Callable[[Exception], bool] = is_unreadable) -> Iterator[None]:
    """Name the item in errors that the block raises.

    Errors of this package and of memory stay of their kind, and get a note; so does a `StopIteration`, which
    `no_stop_iteration` tells of.

    Args:
        what (`str`): What is asked for, such as "item 3 of 6 of the MyData".
        unless (`Callable`): Tells which errors stay of their kind, too, by default those of an image that cannot be
            read.

    Raises:
        ArgumentError: In the place of any other error, which is its cause.

    Example:
        >>> with item_errors("item 3 of 6 of the MyData"):
        ...     raise ValueError("no such label")
        Traceback (most recent call last):
            ...
        gmar_hf.errors.ArgumentError: `data` must give all of its items; item 3 of 6 of the MyData raised ValueError \
(no such label). Mend it or leave it out.
    """
    try:
        yield
    except Exception as error:
        is_end = isinstance(error, StopIteration) or isinstance(error.__cause__, StopIteration)
        if is_end or isinstance(error, GMARError | MemoryError) or unless(error):
            error.add_note(f"This happened in {what}.")
            raise
        raise ArgumentError(
            f"`data` must give all of its items; {what} raised {type(error).__name__} ({reason(error):.200}). Mend it "
            "or leave it out."
        ) from error
