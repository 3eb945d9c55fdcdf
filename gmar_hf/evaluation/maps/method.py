"""A way to a map: a name, a function, and what tables say of it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from gmar_hf.explanation.engine import explain

MapFunction = Callable[[nn.Module, torch.Tensor, torch.Tensor], torch.Tensor]
"""From a model, pixel values (rows, channels, height, width) and classes (rows,) to maps (rows, grid rows, grid
columns)."""


@dataclass(frozen=True)
class MapMethod:
    """A way to a map.

    Args:
        name (`str`): As in tables and on the command line: lower case letters, digits and hyphens.
        draw (`Callable`): From a model, pixel values (rows, channels, height, width) and classes (rows,) to maps
            (rows, grid rows, grid columns), finite, on any device.
        cost (`float` or `Callable[[int], float]`, *optional*): For one class of one image, in forwards, a backward
            counting as one; or from the number of patches. None if it is not known.
        baseline (`str`, *optional*): What it fills hidden pixels with, if it does: tables mark its figures under the
            same baseline.
        needs (`tuple[str, ...]`): Packages of the optional extra `compare` that it imports.
        about (`str`): In a few words, what it shows.
    """

    name: str
    draw: MapFunction
    cost: float | Callable[[int], float] | None = None
    baseline: str | None = None
    needs: tuple[str, ...] = ()
    about: str = ""

    def forwards(self, num_patches: int) -> float | None:
        """The cost on images of so many patches."""
        return float(self.cost(num_patches)) if callable(self.cost) else self.cost


def explained(**options: Any) -> MapFunction:
    """A map of [`explain`] with these options."""

    def draw(model: nn.Module, pixel_values: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        attribution = explain(model, pixel_values, target, **options).attribution
        assert attribution is not None
        return attribution

    return draw
