"""A way to draw a map: a name, a function, and what tables say of it. Nothing here needs torch."""

import inspect
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn

MapFunction = Callable[["nn.Module", "torch.Tensor", "torch.Tensor"], "torch.Tensor"]
"""From a model, pixel values (rows, channels, height, width) and classes (rows,) to maps (rows, grid rows, grid
columns)."""


@dataclass(frozen=True)
class MapMethod:
    """A way to draw a map.

    Args:
        name (`str`): The name in tables and on the command line: lower case letters, digits and hyphens.
        draw (`Callable`): From a model, pixel values (rows, channels, height, width) and classes (rows,) to maps
            (rows, grid rows, grid columns), finite, on any device.
        cost (`float` or `Callable[[int], float]`, *optional*): For one class of one image, in forwards, a backward
            counting as one; or a function from the number of patches to it. None if it is not known.
        baseline (`str` or `tuple[str, ...]`, *optional*): What it fills hidden pixels with, if it does: tables mark
            its figures under the same baseline.
        needs (`tuple[str, ...]`): Packages of the optional extra `compare` that it imports.
        about (`str`): In a few words, what it shows.
        is_default (`bool`, defaults to `False`): Whether `evaluate` draws it unless told otherwise.
        is_control (`bool`, defaults to `False`): Whether it is there to be compared with only, as noise is: nobody
            is told to believe it.
        needs_one_map (`bool`, defaults to `False`): Whether it is undefined where layers stand in stages, each on a
            map of its own.
    """

    name: str
    draw: MapFunction
    cost: float | Callable[[int], float] | None = None
    baseline: str | tuple[str, ...] | None = None
    needs: tuple[str, ...] = ()
    about: str = ""
    is_default: bool = False
    is_control: bool = False
    needs_one_map: bool = False

    @property
    def baselines(self) -> tuple[str, ...]:
        """What it fills hidden pixels with, if it does."""
        return (self.baseline,) if isinstance(self.baseline, str) else self.baseline or ()

    @property
    def options(self) -> dict[str, Any] | None:
        """What [`explain`] is asked for to draw the same map; None of a map that it does not draw."""
        if not isinstance(self.draw, partial) or self.draw.func is not _draw_explained:
            return None
        asked: dict[str, Any] = self.draw.keywords["options"]
        return {name: value for name, value in asked.items() if name != "return_logits"}

    def forwards(self, num_patches: int) -> float | None:
        """Return the cost on images of so many patches."""
        return float(self.cost(num_patches)) if callable(self.cost) else self.cost


def explained(**options: Any) -> MapFunction:
    """Return a function that draws what [`explain`] draws with these options."""
    return partial(_draw_explained, options=options)


def _draw_explained(
    model: "nn.Module", pixel_values: "torch.Tensor", target: "torch.Tensor", *, options: dict[str, Any]
) -> "torch.Tensor":
    from gmar_hf.explanation.engine import explain

    attribution = explain(model, pixel_values, target, **options).attribution
    assert attribution is not None
    return attribution


def drawn_by(place: str) -> MapFunction:
    """Return a function that draws by one of this package, "module:function", which is imported when it draws."""

    def draw(model: "nn.Module", pixel_values: "torch.Tensor", target: "torch.Tensor") -> "torch.Tensor":
        maps: torch.Tensor = pkgutil.resolve_name(f"gmar_hf.evaluation.maps.{place}")(model, pixel_values, target)
        return maps

    return draw


def first_line(draw: MapFunction) -> str:
    """Return the first line of a function's docstring; of what is no function, none, as it would be its class's."""
    return (inspect.getdoc(draw) or "").partition("\n")[0] if inspect.isroutine(draw) else ""
