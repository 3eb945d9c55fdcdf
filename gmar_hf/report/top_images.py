"""The images of a survey on which each head adds most."""

import heapq
import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch

TopImages = dict[str, Any]
"""Plain JSON values: `k`, and `heads`, by layer and head a list of at most `k` explanations, the largest contribution
first, each with `image` (its name), `class` (index) and `contribution` (logits)."""


def empty_top_images(k: int, num_layers: int, num_heads: int) -> TopImages:
    """Return the top images before the first one.

    Args:
        k (`int`): How many explanations a head keeps.
        num_layers, num_heads (`int`): Of the model.
    """
    return {"k": k, "heads": [[[] for _ in range(num_heads)] for _ in range(num_layers)]}


def add_images(top: TopImages, images: Sequence[str], classes: Sequence[int], contribution: torch.Tensor) -> TopImages:
    """Return the top images with those of a batch among them.

    Args:
        top (`TopImages`): Of the images before.
        images (`Sequence[str]`), classes (`Sequence[int]`): Name and explained class of every explanation.
        contribution (`torch.Tensor` of shape (explanations, layers, heads)): Signed, in logits.

    Example:
        >>> top = add_images(empty_top_images(1, 1, 1), ["a", "b"], [3, 4], torch.tensor([[[1.0]], [[2.0]]]))
        >>> top["heads"]
        [[[{'image': 'b', 'class': 4, 'contribution': 2.0}]]]
    """
    by_head = contribution.permute(1, 2, 0).tolist()
    batch = [
        [
            [
                {"image": image, "class": index, "contribution": value}
                for image, index, value in zip(images, classes, values, strict=True)
                if not math.isnan(value)  # of a head that the layer lacks
            ]
            for values in layer
        ]
        for layer in by_head
    ]
    return _best(top["k"], [top["heads"], batch])


def merge_top_images(parts: Iterable[TopImages | None]) -> TopImages | None:
    """Return the top images of all parts together, as many a head as the shortest of the lists is meant to hold.

    Args:
        parts (`Iterable` of `TopImages`): Of different images; None is a part of which nothing was kept.

    Returns:
        `TopImages`, *optional*: None where some part has none, or there are no parts.
    """
    parts = list(parts)
    known = [part for part in parts if part is not None]
    if not known or len(known) < len(parts):
        return None
    return _best(min(part["k"] for part in known), [part["heads"] for part in known])


def _best(k: int, parts: Sequence[Any]) -> TopImages:
    heads = [
        [
            heapq.nlargest(k, (entry for part in of_head for entry in part), key=lambda entry: entry["contribution"])
            for of_head in zip(*of_layer, strict=True)
        ]
        for of_layer in zip(*parts, strict=True)
    ]
    return {"k": k, "heads": heads}
