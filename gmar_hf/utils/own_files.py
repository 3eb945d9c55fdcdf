"""Whose a file is. The rule: of files whose names we choose, we replace none but those that we have made ourselves.

Where another name will do (`gmar-hf explain`) another is taken; where readers look for the very name (reports,
evaluations, the demo), the folder is refused before work begins. Who names a file in Python, as in
`write_page("page.html")`, has it replaced.
"""

import hashlib
import json
import os
import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from gmar_hf.errors import ArgumentError

PNG_MARK = ("Software", "gmar_hf")
"""PNG's own word for what made a picture."""

IMAGE = "image_path_sha256"
"""Under which name pictures, tensors and JSON of an explanation say of which image they are."""

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PAGE_MARK = re.compile(rb'<meta name="generator" content="gmar_hf(?: ([a-z]+))?">')
_PAGE_IMAGES = re.compile(rb"<!-- images ([0-9a-f ]*) -->\s*\Z")
_PAGE_START, _PAGE_END = 1 << 10, 1 << 22  # bytes in which a page says what it is, and of which images
# With the mark by which Excel knows UTF-8.
_TABLE_STARTS = (b"\xef\xbb\xbfmethod,metric,baseline,", b"\xef\xbb\xbfimage,label,target,score,labels_first,method,")
_DEMO_ENTRY = {"scene", "energy_on_target", "logit_drop_without_target", "file"}
_LARGEST_JSON = 1 << 28  # bytes


@dataclass(frozen=True)
class Made:
    """A file that this package has made.

    Args:
        noun (`str`, *optional*): Of a page: what it shows, such as "report".
        images (`frozenset[str]`): Which images it explains, as [`image_digest`] tells them apart; none of a report, an
            evaluation or a demo, and of files of versions before 0.3.
    """

    noun: str | None = None
    images: frozenset[str] = frozenset()


def look_at(path: Path) -> Made | None:
    """Look what a file says of itself.

    Returns:
        [`Made`], or None for whatever this package has not made, or nobody can read: a folder, a pipe, a file that is
        damaged.

    Example:
        >>> look_at(Path(__file__)) is None
        True
    """
    reader = _READERS.get(path.suffix.lower())
    try:
        if reader is None or not path.is_file():
            return None
        with open(path, "rb") as file:
            return reader(file)
    except (OSError, ValueError, LookupError, RecursionError, AttributeError, TypeError, struct.error):
        return None


def check_replaceable(argument: str, folder: Path, names: Iterable[str], noun: str) -> None:
    """Refuse a folder that holds something else under the names of files that are to be written.

    Args:
        argument (`str`): What the error calls the folder, backticks and all.
        folder (`Path`): Where the files go; it need not be there.
        names (`Iterable[str]`): What they are called.
        noun (`str`): What their page shows, such as "report".

    Raises:
        ArgumentError: If one is there that this package has not made, or that is of other results.
    """
    for name in names:
        path = folder / name
        made = look_at(path)
        is_same = made is not None and not made.images and made.noun in (None, noun)
        if not is_same and (path.exists() or path.is_symlink()):
            of = "is of other results" if made is not None else "this version of gmar_hf has not written"
            raise ArgumentError(
                f"{argument} must be a folder without files that would be lost; {str(folder)!r} holds {name}, which "
                f"{of}. Choose another folder, or move the file."
            )


def image_digest(source: str) -> str:
    """Return what tells an image from others of its name: the hash of its whole path, or of its address.

    Args:
        source (`str`): A file, which need not be there, a URL, or an image in base64.
    """
    is_text = source.startswith(("http://", "https://", "data:"))
    name = source if is_text else os.path.realpath(source)
    return hashlib.sha256(os.fsencode(name)).hexdigest()[:32]


def page_images(digests: Sequence[str]) -> str:
    """Return what stands at the end of a page, which nobody sees: the images that are on it."""
    return f"\n<!-- images {' '.join(digests)} -->\n" if digests else ""


def _png(file: IO[bytes]) -> Made | None:
    texts = dict(_texts(file))
    mark, maker = PNG_MARK
    return Made(images=_images(texts.get(IMAGE))) if texts.get(mark) == maker else None


def _texts(file: IO[bytes]) -> Iterator[tuple[str, str]]:
    """Yield the words of a PNG that stand before its pixels."""
    if file.read(len(_PNG_SIGNATURE)) != _PNG_SIGNATURE:
        return
    # Chunks: length, kind, content, checksum.
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind == b"IDAT":
            return
        start = file.tell()
        if kind == b"tEXt" and length < 1000:
            key, _, text = file.read(length).partition(b"\0")
            yield key.decode("latin-1"), text.decode("latin-1")
        file.seek(start + length + 4)


def _safetensors(file: IO[bytes]) -> Made | None:
    (length,) = struct.unpack("<Q", file.read(8))
    metadata = json.loads(file.read(min(length, _LARGEST_JSON))).get("__metadata__", {})
    if "gmar_hf" in metadata:
        content = json.loads(metadata["gmar_hf"])["content"]
        return Made(images=_images(content.get(IMAGE) if isinstance(content, dict) else None))
    return Made() if str(metadata.get("format")).startswith("gmar_hf.") else None


def _json(file: IO[bytes]) -> Made | None:
    text = file.read(_LARGEST_JSON + 1)
    if len(text) > _LARGEST_JSON:
        return None
    content = json.loads(text)
    if isinstance(content, list):
        return Made() if content and all(entry.keys() >= _DEMO_ENTRY for entry in content) else None
    # Reports tell the versions at the top, evaluations and explanations among their settings.
    is_own = any("gmar_hf" in part.get("versions", {}) for part in (content, content.get("settings", {})))
    return Made(images=_images(content.get(IMAGE))) if is_own or "tensors_sha256" in content else None


def _page(file: IO[bytes]) -> Made | None:
    mark = _PAGE_MARK.search(file.read(_PAGE_START))
    if mark is None:
        return None
    file.seek(max(file.seek(0, os.SEEK_END) - _PAGE_END, 0))
    images = _PAGE_IMAGES.search(file.read(_PAGE_END))
    noun = mark[1].decode() if mark[1] else None
    return Made(noun, frozenset(images[1].decode().split()) if images else frozenset())


def _table(file: IO[bytes]) -> Made | None:
    start = file.read(max(map(len, _TABLE_STARTS)))
    return Made() if start.startswith(_TABLE_STARTS) else None


def _images(digest: Any) -> frozenset[str]:
    return frozenset() if digest is None else frozenset({str(digest)})


_READERS = {".png": _png, ".safetensors": _safetensors, ".json": _json, ".html": _page, ".csv": _table}
