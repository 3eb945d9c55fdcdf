"""What tells one list of items, or one torch data set, from another of the same length."""

import hashlib
import os
from collections.abc import Callable, Mapping
from numbers import Number
from typing import Any

import torch
from PIL import Image

from gmar_hf.data.masks import sources_of_masks
from gmar_hf.data.sample import digest, sampled_places
from gmar_hf.images.image_file import file_content
from gmar_hf.images.mask_reading import to_mask
from gmar_hf.images.reading import read_image

_READ_AGAIN = 8
_NUM_FACETS = 3  # texts of an item that are not of its masks


def items_fingerprints(items: Any, *, with_masks: bool) -> tuple[str, str]:
    """Return digests of up to 16 items, the first and the last and some between: labels, sizes and content of images.

    Eight of them are read twice, unless the items give the very same object again: what differs between two readings,
    as pixels do under random augmentation, says nothing of the data, and is left out. Of a file the content counts,
    not its place. What cannot be read is noted as such.

    Args:
        items: With `__len__` and `__getitem__`, not empty.
        with_masks (`bool`): Whether to look at masks.

    Returns:
        Of the items without their masks, and of the masks (empty if nobody looks at them): 32 hexadecimal digits, the
            same in every process.
    """
    sampled = _sampled(items, _all_facets if with_masks else _facets)
    without_masks = digest(
        "items", type(items).__name__, len(items), *(text for facets in sampled for text in facets[:_NUM_FACETS])
    )
    return without_masks, digest("masks", *(facets[_NUM_FACETS] for facets in sampled)) if with_masks else ""


def _sampled(items: Any, facets_of: Callable[[Any], tuple[str, ...]]) -> list[list[str]]:
    """Return what some of the items are like, each in the same number of texts; what varies is left out."""
    # Up to eight of the sampled items are taken twice; what differs then counts for none of them.
    places = sampled_places(len(items))
    again = set(places[:: -(-len(places) // _READ_AGAIN)])
    steady: list[bool] = []
    sampled = []
    for place in places:
        item = _item(items, place)
        facets = facets_of(item)
        steady = steady or [True] * len(facets)
        if place in again and (second := _item(items, place)) is not item:
            steady = [
                is_steady and old == new for is_steady, old, new in zip(steady, facets, facets_of(second), strict=True)
            ]
        sampled.append(facets)
    return [[text if keep else "varies" for text, keep in zip(facets, steady, strict=True)] for facets in sampled]


def _item(items: Any, place: int) -> Any:
    try:
        return items[place]
    except Exception:  # the survey itself will say which, and why
        return None


def _facets(item: Any) -> tuple[str, str, str]:
    """Return label, image size and image content of an item, as texts."""
    try:
        label = _plain(next((item[key] for key in ("label", "labels") if item.get(key) is not None), None))
    except Exception:
        return ("unreadable",) * 3
    try:
        return label, *_image_facets(item)
    except Exception:
        return label, "unreadable", "unreadable"


def _all_facets(item: Any) -> tuple[str, ...]:
    """Return the same, and the masks of an item as one more text."""
    try:
        masks = ((key, to_mask(source, "")) for key, source in sources_of_masks(item).items())
        text = "; ".join(f"{key!r} {mask.shape} {_hash(mask.tobytes())}" for key, mask in masks)
    except Exception:
        text = "unreadable"
    return *_facets(item), text


def _image_facets(item: Mapping[str, Any]) -> tuple[str, str]:
    source = item.get("image")
    if source is None and isinstance(item.get("pixel_values"), torch.Tensor):
        # The very bytes: NumPy lacks some of torch's types.
        values = item["pixel_values"].detach().cpu().contiguous()
        return f"{values.dtype} {tuple(values.shape)}", _hash(values.reshape(-1).view(torch.uint8).numpy().tobytes())
    if isinstance(source, Image.Image):
        image = read_image(source)
        return str(source.size), _hash(image.tobytes())
    if isinstance(source, str | os.PathLike):
        # An address is not fetched: the network may be there at one time and not at another.
        text = os.fspath(source)
        content = file_content(text, "") if os.path.isfile(text) else os.fsencode(text)
        return str(len(content)), _hash(content)
    return type(source).__name__, ""


def _plain(label: Any) -> str:
    """Return a label as a text; of objects whose text may hold an address in memory only the kind."""
    if hasattr(label, "tolist"):
        label = label.tolist()
    if isinstance(label, set | frozenset):
        return f"{{{', '.join(sorted([_plain(entry) for entry in label]))}}}"
    if isinstance(label, list | tuple):
        return f"[{', '.join([_plain(entry) for entry in label])}]"
    return repr(label) if label is None or isinstance(label, str | Number) else type(label).__name__


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
