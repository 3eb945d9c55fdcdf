"""From what a user typed to images, and to names for the files about them."""

import glob
import os
import unicodedata
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from gmar_hf.errors import ArgumentError


def expand(arguments: list[str], *, recursive: bool = False) -> list[str]:
    """Find the images: folders become the images in them and globs what they match; each comes once, in order.

    Pictures that this package has drawn are left out, unless they are named one by one.

    Args:
        arguments (`list[str]`): Files, folders, globs and URLs, as they were typed.
        recursive (`bool`, defaults to False): Whether images in subfolders of folders are taken, too.

    Raises:
        ArgumentError: If a folder holds no images, or there is nothing but globs that match nothing.
    """
    from gmar_hf.images.own_pictures import is_own_picture

    sources: list[str] = []
    unmatched: list[str] = []
    for argument in arguments:
        # A folder, a pattern that matches, or else the name of one image.
        path = Path(argument)
        if argument and path.is_dir():  # an empty name, of an unset variable, is not this folder
            files = _images_in(path) + (_images_below(path) if recursive else [])
            if not files:
                num_below = 0 if recursive else len(_images_below(path))
                deeper = f" but {num_below} in its subfolders. Pass `--recursive`." if num_below else "."
                raise ArgumentError(
                    f"`IMAGE` must be an image or a folder with images; got {argument!r}, which has none{deeper}"
                )
            sources += files
        elif not path.exists() and not _is_url(argument) and glob.has_magic(argument):
            matches = glob.glob(argument, recursive=True)
            files = sorted(match for match in matches if Path(match).is_file() and not is_own_picture(match))
            if files:
                sources += files
            else:
                unmatched.append(argument)
        else:
            sources.append(argument)  # what is missing is reported with the other bad images
    if unmatched and not sources:
        raise ArgumentError(f"`IMAGE` must match at least one file; got {unmatched[0]!r}, which matches none.")
    return list(dict.fromkeys([*sources, *unmatched]))  # which is reported with the other bad images


def num_in_subfolders(arguments: list[str]) -> int:
    """Count the images in subfolders of the folders that were typed, which [`expand`] leaves out."""
    found = {
        file
        for argument in arguments
        if argument and Path(argument).is_dir()
        for file in _images_below(Path(argument))
    }
    return len(found - set(expand(arguments)))


def _images_below(folder: Path) -> list[str]:
    """Return the images in all subfolders, but for hidden ones and links, which may lead in a circle."""
    files: list[str] = []
    for place, folders, _ in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if Path(place) != folder:
            files += _images_in(Path(place))
    return files


def _images_in(folder: Path) -> list[str]:
    from gmar_hf.images.own_pictures import is_own_picture
    from gmar_hf.images.reading import image_suffixes

    suffixes = image_suffixes()
    return sorted(
        str(file)
        for file in folder.iterdir()
        if file.suffix.lower() in suffixes and not file.name.startswith(".") and file.is_file()
        if not is_own_picture(file)
    )


def stem(source: str) -> str:
    """Return a file name's stem, or that of a URL's path."""
    return Path(source.split("?")[0].split("#")[0] if _is_url(source) else source).stem or "image"


def shortest_names(sources: list[str]) -> list[str]:
    """Return as much of the ends of paths as tells them apart.

    Example:
        >>> shortest_names(["photos/cat/1.jpg", "photos/dog/1.jpg"])
        ['cat/1.jpg', 'dog/1.jpg']
    """
    parts = [Path(source).parts for source in sources]
    for length in range(1, max(map(len, parts), default=0)):
        names = ["/".join(each[-length:]) for each in parts]
        if len(set(names)) == len(set(sources)):
            return names
    return sources


def safe(text: str, num_bytes: int = 60) -> str:
    """Make text part of a file name that every system takes, of at most so many bytes in UTF-8.

    Example:
        >>> safe("../tabby, tabby cat")
        'tabby_tabby_cat'
    """
    text = unicodedata.normalize("NFC", text)
    kept = "".join(letter if letter.isalnum() or letter in "-." else "_" for letter in text)
    while "__" in kept:
        kept = kept.replace("__", "_")
    cut = kept.strip("._").encode()[:num_bytes].decode(errors="ignore")
    return cut.rstrip("._") or "unnamed"


def numbered(name: str) -> Iterator[str]:
    """Yield a name, and the same with a number behind it from 2 on, without end."""
    yield name
    for number in count(2):
        yield f"{name}-{number}"


def unique(names: list[str], taken: set[str]) -> list[str]:
    """Put a number behind names that are taken, also in other case, which does not tell files apart everywhere.

    Args:
        names (`list[str]`): What files would be called.
        taken (`set[str]`): Names in use; the new ones are added.

    Example:
        >>> unique(["cat", "dog", "Cat"], set())
        ['cat', 'dog', 'Cat-2']
    """
    free_names = []
    for name in names:
        free = next(free for free in numbered(name) if free.casefold() not in taken)
        taken.add(free.casefold())
        free_names.append(free)
    return free_names


def _is_url(text: str) -> bool:
    return text.startswith(("http://", "https://"))
