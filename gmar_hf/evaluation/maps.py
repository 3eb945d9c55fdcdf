"""The maps that can be measured side by side: a method is a name and a function in the one registry."""

import importlib
import importlib.util
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..engine import explain
from ..errors import ArgumentError
from ..legrad import legrad
from . import controls, library_maps

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
    """

    name: str
    draw: MapFunction
    cost: float | Callable[[int], float] | None = None
    baseline: str | None = None
    needs: tuple[str, ...] = ()

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


def register_map_method(
    name: str,
    draw: MapFunction,
    *,
    cost: float | Callable[[int], float] | None = None,
    baseline: str | None = None,
) -> MapMethod:
    """Add a method of your own to the registry, under which [`evaluate`] finds it.

    Args:
        name, draw, cost, baseline: As of [`MapMethod`].

    Raises:
        ArgumentError: If the name is taken, or not made of lower case letters, digits and hyphens.
    """
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name):
        raise ArgumentError(f"`name` must be of lower case letters, digits and hyphens; got {name!r}.")
    if name in MAP_METHODS:
        raise ArgumentError(f"`name` must not be taken; got {name!r}, which is. Choose another.")
    if not callable(draw):
        raise ArgumentError(f"`draw` must be a function; got {type(draw).__name__}.")
    MAP_METHODS[name] = MapMethod(name, draw, cost, baseline)
    return MAP_METHODS[name]


def find_map_methods(names: Sequence[str | MapMethod]) -> list[MapMethod]:
    """Look methods up.

    Args:
        names (`Sequence`): Names of the registry, "module:function" of a function of your own (which is imported; in
            tables it has the function's name, with hyphens), or methods themselves.

    Raises:
        ArgumentError: If there is no such method, one is named twice, or a package that it needs is missing.
    """
    if isinstance(names, str) or not names:
        raise ArgumentError(f"`methods` must be a list of names; got {names!r}. There are: {', '.join(MAP_METHODS)}.")
    found: list[MapMethod] = []
    for one in names:
        method = one if isinstance(one, MapMethod) else _find(one)
        if method.name in (other.name for other in found):
            raise ArgumentError(f"`methods` must name each one once; got {method.name!r} twice. Drop one.")
        missing = [package for package in method.needs if importlib.util.find_spec(package) is None]
        if missing:
            raise ArgumentError(
                f"`methods` must be ones whose packages are installed; {method.name!r} needs {', '.join(missing)}. "
                'Install with `pip install "gmar-hf[compare]"`, or leave the method out.'
            )
        found.append(method)
    return found


def _find(name: str) -> MapMethod:
    if name in MAP_METHODS:
        return MAP_METHODS[name]
    module, colon, function = str(name).partition(":")
    if not colon:
        raise ArgumentError(
            f"`methods` must be among {', '.join(MAP_METHODS)}, or a function of your own as 'module:function'; got "
            f"{name!r}."
        )
    try:
        draw = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ArgumentError(
            f"`methods` must name a function that can be imported; got {name!r} ({error}). Run the command where the "
            "module is, or with PYTHONPATH."
        ) from error
    if not callable(draw):
        raise ArgumentError(f"`methods` must name a function; got {name!r}, which is none.")
    return MapMethod(function.replace("_", "-").lower(), draw)


_ALL = (
    MapMethod("contribution", explained(method="contribution"), 2),
    MapMethod(
        "masked-contribution",
        explained(method="contribution", num_masks=4, mask_baseline="blur"),
        9,  # four passes, and the whole image's logits
        baseline="blur",
    ),
    MapMethod(
        "partition-contribution",
        explained(method="contribution", num_masks=4, mask_baseline="blur", mask_pattern="partition"),
        9,
        baseline="blur",
    ),
    MapMethod("gradient-rollout", explained(method="gradient-rollout"), 2),
    MapMethod("gmar-l1", explained(method="gmar", norm="l1"), 2),
    MapMethod("gmar-l2", explained(method="gmar", norm="l2"), 2),
    MapMethod("rollout", explained(method="rollout"), 1),
    MapMethod("attention", explained(method="attention"), 1),
    MapMethod("legrad", legrad, 2),
    MapMethod("integrated-gradients", library_maps.integrated_gradients, 64, baseline="blur", needs=("captum",)),
    MapMethod("occlusion", library_maps.occlusion, lambda patches: patches + 1, baseline="blur", needs=("captum",)),
    MapMethod("input-x-gradient", library_maps.input_x_gradient, 2, baseline="zero", needs=("captum",)),
    MapMethod("grad-cam", library_maps.grad_cam, 2, needs=("torchcam",)),
    MapMethod("gmar-shuffled", controls.shuffled_weights, 3),
    MapMethod("gmar-uniform", controls.uniform_weights, 1),
    MapMethod("edges", controls.edges, 0),
    MapMethod("centre-blob", controls.centre_blob, 0),
    MapMethod("random", controls.random, 0),
)
MAP_METHODS: dict[str, MapMethod] = {method.name: method for method in _ALL}
"""By name, in the order of the tables."""

DEFAULT_METHODS = tuple(method.name for method in _ALL if not method.needs and method.name != "gmar-uniform")
"""Those that need no other package; "gmar-uniform" is rollout."""
