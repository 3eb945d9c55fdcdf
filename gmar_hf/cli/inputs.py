"""From what a user typed to images' names."""

import glob
from pathlib import Path

from PIL import Image

from ..errors import ArgumentError


def expand(arguments: list[str]) -> list[str]:
    """Files and URLs as they are, folders as the images in them, globs as what they match; each once, in order.

    Args:
        arguments (`list[str]`): What was typed.

    Raises:
        ArgumentError: If a folder holds no images, or a glob matches nothing.
    """
    found: list[str] = []
    for argument in arguments:
        path = Path(argument)
        if path.is_dir():
            here = sorted(
                str(file) for file in path.iterdir() if file.is_file() and file.suffix.lower() in _suffixes()
            )
            if not here:
                raise ArgumentError(
                    f"`IMAGE` must be an image or a folder with images; got {argument!r}, which has none."
                )
            found += here
        elif not path.exists() and not _is_url(argument) and glob.has_magic(argument):
            here = sorted(match for match in glob.glob(argument, recursive=True) if Path(match).is_file())
            if not here:
                raise ArgumentError(f"`IMAGE` must match at least one file; got {argument!r}, which matches none.")
            found += here
        else:
            found.append(argument)  # what is missing is reported with the other bad images
    return list(dict.fromkeys(found))


def stem(source: str) -> str:
    """A file name's stem, or that of a URL's path."""
    return Path(source.split("?")[0].split("#")[0] if _is_url(source) else source).stem or "image"


def safe(text: str, length: int = 60) -> str:
    """Text as part of a file name on every system.

    Example:
        >>> safe("../tabby, tabby cat")
        'tabby_tabby_cat'
    """
    kept = "".join(letter if letter.isalnum() or letter in "-." else "_" for letter in text)
    while "__" in kept:
        kept = kept.replace("__", "_")
    return kept.strip("._")[:length].rstrip("._") or "label"


def _is_url(text: str) -> bool:
    return text.startswith(("http://", "https://"))


def _suffixes() -> set[str]:
    return {suffix for suffix, name in Image.registered_extensions().items() if name in Image.OPEN}
