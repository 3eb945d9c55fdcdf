"""Writing files so that a reader never sees half of one."""

import errno
import glob
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from gmar_hf.errors import ArgumentError, ArgumentTypeError

_PREFIX = ".gmar_hf-"  # a hidden folder of somebody else is not called so
_FULL = (errno.ENOSPC, errno.EDQUOT)


def checked_path(argument: str, path: object) -> Path:
    """Refuse what names no file or folder on any disk.

    Args:
        argument (`str`): The argument's name, which the error shows.
        path (`object`): What was given.

    Raises:
        ArgumentError: If no name can have such characters.
        ArgumentTypeError: If it is neither a string nor a path.

    Example:
        >>> checked_path("path", None)
        Traceback (most recent call last):
        ...
        gmar_hf.errors.ArgumentTypeError: `path` must be a path, as a string or a `pathlib.Path`; got None.
    """
    name = os.fspath(path) if isinstance(path, os.PathLike) else path
    if not isinstance(name, str):
        raise ArgumentTypeError(f"`{argument}` must be a path, as a string or a `pathlib.Path`; got {path!r:.80}.")
    try:
        if b"\0" in os.fsencode(name):
            raise ValueError("it holds a NUL byte")
    except ValueError as error:
        raise ArgumentError(f"`{argument}` must be a name that files can have; got {name!r:.80} ({error}).") from error
    return Path(name)


def make_folder(argument: str, folder: Path) -> None:
    """Make a folder, with those above it, unless it is there.

    Args:
        argument (`str`): What the error calls it, backticks and all.
        folder (`Path`): The folder, or a link to one.

    Raises:
        ArgumentError: If it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise folder_error(argument, folder, error) from error


def folder_error(argument: str, folder: Path, error: OSError) -> ArgumentError:
    """Return the error for a folder that cannot be made or written, with the reason.

    Args:
        argument (`str`): What the error calls it, backticks and all.
        folder (`Path`): The folder.
        error (`OSError`): What the system said.
    """
    reason = error.strerror or str(error)
    if isinstance(error, FileExistsError):
        place = Path(error.filename or folder)
        is_link = place.is_symlink() and not place.exists()
        reason = f"{str(place)!r} is a link to {os.readlink(place)!r}, which is not there" if is_link else "a file"
    advice = "Make room there, or choose another." if _is_full(error) else "Choose another."
    return ArgumentError(f"{argument} must be a folder that can be written; got {str(folder)!r} ({reason}). {advice}")


def _is_full(error: Exception) -> bool:
    """Tell whether a disk is full; safetensors says so by text alone."""
    return getattr(error, "errno", None) in _FULL or "No space left" in str(error)


@contextmanager
def made_folder(argument: str, folder: Path) -> Iterator[None]:
    """Make a folder that can be written, for the block, which may leave something in it; else it goes again.

    Args:
        argument (`str`): What the error calls it, backticks and all.
        folder (`Path`): The folder, or a link to one.

    Raises:
        ArgumentError: If it cannot be made or written.
    """
    new = [place for place in (folder, *folder.parents) if not os.path.lexists(place)]
    try:
        make_folder(argument, folder)
        try:
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            raise folder_error(argument, folder, error) from error
        yield
    finally:
        with suppress(OSError):  # of folders that are not empty, or not there
            for place in new:
                place.rmdir()


@contextmanager
def replacing(path: str | os.PathLike[str], *, durable: bool = False) -> Iterator[Path]:
    """Give a temporary name beside `path` to write to; it takes the place of `path` when the block succeeds.

    Args:
        path (`str` or `os.PathLike`): The file to write. Of a link it is what it leads to, also if that is not there
            yet: the link stays. The new file has the rights of an old one.
        durable (`bool`, defaults to False): Whether the file must also survive the machine's sudden end.

    Raises:
        ArgumentError: If the folder does not exist or cannot be written, or a device or pipe has the name.
        ArgumentTypeError: If `path` is no path.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "result.txt")
        >>> with replacing(path) as temporary:
        ...     _ = temporary.write_text("complete")
        >>> path.read_text()
        'complete'
    """
    given = checked_path("path", path)
    target = given
    try:
        target = _behind_links(given)
        with tempfile.TemporaryDirectory(prefix=f"{_PREFIX}{target.stem[:40]}-", dir=target.parent) as folder:
            temporary = Path(folder) / target.name
            yield temporary
            if durable:  # or the new name may reach the disk before what it names
                with open(temporary, "rb+") as file:
                    os.fsync(file.fileno())
            if target.exists():
                shutil.copymode(target, temporary)
            os.replace(temporary, target)
    except (OSError, SafetensorError) as error:  # safetensors has no other word for a full disk
        reason = getattr(error, "strerror", None) or error
        advice = (
            "Make room there, or choose another place."
            if _is_full(error)
            else "Choose another place, or make the folder."
        )
        raise ArgumentError(
            f"`path` must be a file that can be written; got {os.fspath(path)!r} ({reason}). {advice}"
        ) from error


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Let no two processes into the block at once for one folder; where the system has no such locks, nobody waits.

    Args:
        folder (`Path`): It is there.
    """
    with _lock_of(folder) as take:
        take(True)
        yield


@contextmanager
def alone_in(argument: str, folder: Path, patience: float = 10.0) -> Iterator[None]:
    """Let one process at a time into the block for a folder; where the system has no such locks, all are.

    Args:
        argument (`str`): What the error calls the folder, backticks and all.
        folder (`Path`): It is there.
        patience (`float`, defaults to 10.0): Seconds that helpers of a killed process are given to end.

    Raises:
        ArgumentError: If another process is in it.
    """
    end = time.monotonic() + patience
    with _lock_of(folder) as take:
        while not take(False):
            if time.monotonic() > end:
                raise ArgumentError(
                    f"{argument} must be a folder that no other run writes to now; got one that a run does. Wait "
                    "for it, or choose another."
                )
            time.sleep(0.2)
        yield


@contextmanager
def _lock_of(folder: Path) -> Iterator[Callable[[bool], bool]]:
    """Give a function that takes the folder's lock until the block ends: whether it waits in, whether it has it out.

    Where the system has no such locks, everybody has it.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield lambda waits: True
        return
    handle = os.open(folder, os.O_RDONLY)

    def take(waits: bool) -> bool:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX if waits else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # some network's folders cannot be locked
            return True
        return True

    try:
        yield take
    finally:
        os.close(handle)


@contextmanager
def staged(argument: str, folder: Path) -> Iterator[Path]:
    """Give a hidden folder in a folder, in which files are made before they are moved to their place; it goes again.

    Args:
        argument (`str`): What the error calls the folder, backticks and all.
        folder (`Path`): It is there.

    Raises:
        ArgumentError: If a file cannot be written.
    """
    try:
        with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=folder, ignore_cleanup_errors=True) as place:
            yield Path(place)
    except (ArgumentError, OSError) as error:  # of a file in the hidden folder, which is none of the user's concern
        cause = error if isinstance(error, OSError) else error.__cause__
        if isinstance(cause, OSError) and (error is not cause or _is_full(cause)):
            raise folder_error(argument, folder, cause) from error
        raise


def remove_leftovers(path: str | os.PathLike[str]) -> None:
    """Remove what [`replacing`] of this path has left beside it in a process that was killed.

    Args:
        path (`str` or `os.PathLike`): A file that nobody writes meanwhile; of all in a folder that nobody writes to it
            is the folder's `"*"`.
    """
    target = Path(path)
    pattern = "*" if target.name == "*" else glob.escape(target.stem[:40])
    for leftover in target.parent.glob(f"{_PREFIX}{pattern}-{'?' * 8}"):
        shutil.rmtree(leftover, ignore_errors=True)


def _behind_links(path: Path) -> Path:
    """Return the file that a path leads to, which need not be there.

    Raises:
        OSError: If links lead to each other, or to what is neither a file nor a folder.
    """
    target = Path(os.path.realpath(path)) if path.is_symlink() else path
    if target.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    if target.exists() and not (target.is_file() or target.is_dir()):
        raise OSError(errno.EINVAL, "a device or a pipe")
    return target
