"""Writing files so that a reader never sees half of one."""

import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from gmar_hf.errors import ArgumentError


@contextmanager
def replacing(path: str | os.PathLike[str], *, durable: bool = False) -> Iterator[Path]:
    """Give a temporary name beside `path` to write to; it takes the place of `path` when the block succeeds.

    Args:
        path (`str` or `os.PathLike`): The file to write.
        durable (`bool`, defaults to False): Whether the file must also survive the machine's sudden end.

    Raises:
        ArgumentError: If the folder does not exist or cannot be written.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "result.txt")
        >>> with replacing(path) as temporary:
        ...     _ = temporary.write_text("complete")
        >>> path.read_text()
        'complete'
    """
    target = Path(path)
    try:
        with tempfile.TemporaryDirectory(prefix=_prefix(target), dir=target.parent) as folder:
            temporary = Path(folder) / target.name
            yield temporary
            if durable:  # or the new name may reach the disk before what it names
                with open(temporary, "rb+") as file:
                    os.fsync(file.fileno())
            os.replace(temporary, target)
    except (OSError, SafetensorError) as error:  # safetensors has no other word for a full disk
        reason = getattr(error, "strerror", None) or error
        raise ArgumentError(
            f"`path` must be a file that can be written; got {str(path)!r} ({reason}). "
            "Choose another place, or make the folder."
        ) from error


def remove_leftovers(path: str | os.PathLike[str]) -> None:
    """Remove what [`replacing`] of this path has left beside it in a process that was killed.

    Args:
        path (`str` or `os.PathLike`): A file that nobody writes meanwhile.
    """
    target = Path(path)
    for leftover in target.parent.glob(glob.escape(_prefix(target)) + "?" * 8):
        shutil.rmtree(leftover, ignore_errors=True)


def _prefix(target: Path) -> str:
    return f".{target.stem[:40]}-"
