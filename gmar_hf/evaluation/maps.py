"""The maps that can be measured side by side: a method is a name and a function in the one registry."""

import importlib
import importlib.util
import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..engine import explain
from ..errors import ArgumentError
from ..labels import did_you_mean
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


def register_map_method(
    name: str,
    draw: MapFunction,
    *,
    cost: float | Callable[[int], float] | None = None,
    baseline: str | None = None,
    about: str | None = None,
) -> MapMethod:
    """Add a method of your own to the registry, under which [`evaluate`] finds it.

    Args:
        name, draw, cost, baseline: As of [`MapMethod`].
        about (`str`, *optional*): In a few words, what it shows; by default the first line of the function's
            docstring.

    Raises:
        ArgumentError: If the name is taken, or not made of lower case letters, digits and hyphens.

    Example:
        >>> import gmar_hf, gmar_hf.demo
        >>> from gmar_hf.evaluation import register_map_method
        >>> def magnitudes(model, pixel_values, target):
        ...     return gmar_hf.explain(model, pixel_values, target, method="contribution").attribution.abs()
        >>> own = register_map_method("magnitudes", magnitudes, cost=2, about="contributions without their sign")
        >>> model, image_processor = gmar_hf.demo.load("vit")
        >>> found = gmar_hf.evaluate(
        ...     model, gmar_hf.demo.scenes(2), image_processor, methods=["magnitudes"], metrics=["sparseness"]
        ... )
        >>> found.methods[0]["name"]
        'magnitudes'
        >>> _ = MAP_METHODS.pop("magnitudes")  # nothing else needs it
    """
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name):
        raise ArgumentError(f"`name` must be of lower case letters, digits and hyphens; got {name!r}.")
    if name in MAP_METHODS:
        raise ArgumentError(f"`name` must not be taken; got {name!r}, which is. Choose another.")
    if not callable(draw):
        raise ArgumentError(f"`draw` must be a function; got {type(draw).__name__}.")
    MAP_METHODS[name] = MapMethod(name, draw, cost, baseline, about=_first_line(draw) if about is None else about)
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
            f"{name!r}.{did_you_mean(str(name), MAP_METHODS)}"
        )
    try:
        imported = importlib.import_module(module)
    except (ImportError, ValueError) as error:
        raise ArgumentError(
            f"`methods` must name a function that can be imported; got {name!r} ({error}). Run the command where the "
            "module is, or with PYTHONPATH."
        ) from error
    draw = getattr(imported, function, None)
    if draw is None:
        raise ArgumentError(f"`methods` must name a function that its module has; got {name!r}. Check its name.")
    if not callable(draw):
        raise ArgumentError(f"`methods` must name a function; got {name!r}, which is none.")
    return MapMethod(function.replace("_", "-").lower(), draw, about=_first_line(draw))


def _first_line(draw: MapFunction) -> str:
    return (inspect.getdoc(draw) or "").partition("\n")[0] if inspect.isroutine(draw) else ""


BUILT_IN = (
    MapMethod(
        "contribution",
        explained(method="contribution"),
        2,
        about="what attention to a patch adds to the class's logit or takes from it, to first order; signed",
    ),
    MapMethod(
        "masked-contribution",
        explained(method="contribution", num_masks=4, mask_baseline="blur"),
        9,  # four passes, and the whole image's logits
        baseline="blur",
        about="contributions averaged over four images of which a random half is blurred, in opposite pairs; signed",
    ),
    MapMethod(
        "partition-contribution",
        explained(method="contribution", num_masks=4, mask_baseline="blur", mask_pattern="partition"),
        9,
        baseline="blur",
        about="contributions averaged over four images, another quarter of the patches blurred in each; signed",
    ),
    MapMethod(
        "gradient-rollout",
        explained(method="gradient-rollout"),
        2,
        about="attention times its gradient, positive parts, rolled out through the layers (Chefer et al. 2021)",
    ),
    MapMethod(
        "gmar-l1",
        explained(method="gmar", norm="l1"),
        2,
        about="rollout of heads weighted by the L1 norm of their attention's gradient (Jo et al. 2025)",
    ),
    MapMethod("gmar-l2", explained(method="gmar", norm="l2"), 2, about="the same with the L2 norm"),
    MapMethod(
        "rollout",
        explained(method="rollout"),
        1,
        about="attention, heads averaged, rolled out through the layers (Abnar and Zuidema 2020); no class in it",
    ),
    MapMethod(
        "attention",
        explained(method="attention"),
        1,
        about="the last layer's attention, heads averaged; no class in it",
    ),
    MapMethod(
        "legrad",
        legrad,
        2,
        about="positive gradients of every layer's attention (Bousselham et al. 2024)",
    ),
    MapMethod(
        "integrated-gradients",
        library_maps.integrated_gradients,
        64,
        baseline="blur",
        needs=("captum",),
        about="pixels' gradients along 32 images from the blurred one to the image (captum); signed",
    ),
    MapMethod(
        "occlusion",
        library_maps.occlusion,
        lambda patches: patches + 1,
        baseline="blur",
        needs=("captum",),
        about="what the logit loses when one patch is blurred (captum); signed",
    ),
    MapMethod(
        "input-x-gradient",
        library_maps.input_x_gradient,
        2,
        baseline="zero",
        needs=("captum",),
        about="pixel values times the logit's gradient (captum); signed",
    ),
    MapMethod(
        "grad-cam",
        library_maps.grad_cam,
        2,
        needs=("torchcam",),
        about="the last layer's features weighted by their mean gradient, positive part (torch-cam)",
    ),
    MapMethod(
        "gmar-shuffled",
        controls.shuffled_weights,
        3,
        about="control: GMAR with each layer's weights dealt out to other heads",
    ),
    MapMethod("gmar-uniform", controls.uniform_weights, 1, about="control: GMAR with equal weights, which is rollout"),
    MapMethod("edges", controls.edges, 0, about="control: where the image has edges; knows no model"),
    MapMethod("centre-blob", controls.centre_blob, 0, about="control: a blob in the middle; knows no image"),
    MapMethod("random", controls.random, 0, about="control: noise"),
)
MAP_METHODS: dict[str, MapMethod] = {method.name: method for method in BUILT_IN}
"""By name, in the order of the tables."""

DEFAULT_METHODS = tuple(method.name for method in BUILT_IN if not method.needs and method.name != "gmar-uniform")
"""Those that need no other package; "gmar-uniform" is rollout."""
