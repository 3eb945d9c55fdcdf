"""The registry of the maps that can be measured side by side, to which everybody can add."""

import importlib
import importlib.util
import inspect
import re
from collections.abc import Callable, Sequence

from gmar_hf.errors import ArgumentError
from gmar_hf.evaluation.maps.built_in import BUILT_IN
from gmar_hf.evaluation.maps.method import MapFunction, MapMethod
from gmar_hf.utils.text import did_you_mean

MAP_METHODS: dict[str, MapMethod] = {method.name: method for method in BUILT_IN}
"""By name, in the order of the tables."""

DEFAULT_METHODS = tuple(method.name for method in BUILT_IN if not method.needs and method.name != "gmar-uniform")
"""Those that need no other package; "gmar-uniform" is rollout."""


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
