"""Rows and columns of an evaluation's figures: which class of which image, and which metric."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Metric:
    """A column of figures.

    Args:
        key (`str`): Its name in files: that of the function, and of the baseline where it is not the first one.
        function (`str`): In `gmar_hf.metrics`; "energy_on_other" and "class_sensitivity" are parts of
            `class_sensitivity`.
        baseline (`str`, *optional*): What hidden patches showed.
        higher_is_better (`bool`, *optional*): None where neither end is better.
    """

    key: str
    function: str
    baseline: str | None
    higher_is_better: bool | None


def is_made_with(method: Mapping[str, Any], baseline: str | None) -> bool:
    """Tell whether a method's maps are made with what hidden patches show: then they shine under it.

    Args:
        method (`Mapping`): What the results say of it, one of `Evaluation.methods`.
        baseline (`str`, *optional*): What hidden patches show, if any are hidden.
    """
    return baseline is not None and baseline in (method["baseline"] or "").split(", ")


@dataclass(frozen=True)
class Row:
    """One explained class of one image.

    Args:
        image (`str`): The image's name in the data.
        target (`int`), label (`str`): The class.
        score (`float`): What the model gives it, in [0, 1].
        labels_first (`bool`, *optional*): Whether the model ranks the image's labels before all others; None where
            they are not known.
        index (`int`): The image's place in the data.
    """

    image: str
    target: int
    label: str
    score: float
    labels_first: bool | None
    index: int
