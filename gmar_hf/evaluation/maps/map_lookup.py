"""Maps that users name: looked up in the registry, or imported."""

import importlib
import importlib.util
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gmar_hf.errors import ArgumentError
from gmar_hf.evaluation.maps.map_registry import DEFAULT_METHODS, MAP_METHODS, NAMES_IN_EXPLAIN
from gmar_hf.evaluation.maps.method import MapMethod, first_line
from gmar_hf.utils.text import did_you_mean, printable

if TYPE_CHECKING:
    from torch import nn


def shown_name(name: str) -> str:
    """Return a map's name as people read it: safe for a terminal, with what `explain` calls it where that differs.

    Args:
        name (`str`): Of the row among the maps, which files keep.

    Example:
        >>> shown_name("gmar-l1"), shown_name("rollout")
        ('gmar-l1 (gmar)', 'rollout')
    """
    known = next((f" ({explain})" for explain, row in NAMES_IN_EXPLAIN.items() if row == name), "")
    return printable(name) + known


def default_methods(model: "nn.Module") -> list[str]:
    """Return the maps that are drawn by default, those that are defined for the model.

    Args:
        model (`nn.Module`): The classifier.
    """
    from gmar_hf.models.windows import has_stages

    in_stages = has_stages(model)
    return [name for name in DEFAULT_METHODS if not (in_stages and MAP_METHODS[name].needs_one_map)]


def find_map_methods(names: Sequence[str | MapMethod]) -> list[MapMethod]:
    """Look maps up in the registry, or import them.

    Args:
        names (`Sequence`): Names of the registry or methods of [`explain`], "module:function" of a function of your
            own (which is imported; in tables it has the function's name, with hyphens), or rows themselves.

    Returns:
        `list` of [`MapMethod`]: In the order of the names.

    Raises:
        ArgumentError: If there is no such map, one is named twice, a package that it needs is missing, or a map of
            your own has the name of another of the registry.
    """
    if isinstance(names, str) or not names:
        raise ArgumentError(f"`methods` must be a list of names; got {names!r}. There are: {', '.join(MAP_METHODS)}.")
    methods: dict[str, MapMethod] = {}
    for name in names:
        method = name if isinstance(name, MapMethod) else _find_map_method(name)
        if method.name in methods:
            raise ArgumentError(f"`methods` must name each one once; got {method.name!r} twice. Drop one.")
        missing = [package for package in method.needs if importlib.util.find_spec(package) is None]
        if missing:
            raise ArgumentError(
                f"`methods` must be ones whose packages are installed; {method.name!r} needs {', '.join(missing)}. "
                f"Run `pip install {' '.join(missing)}`, or leave the method out."
            )
        known = MAP_METHODS.get(NAMES_IN_EXPLAIN.get(method.name, method.name))
        if known is not None and method.draw is not known.draw:
            raise ArgumentError(
                f"`methods` must not have a map of your own by the name of another; got {method.name!r}. Rename it."
            )
        methods[method.name] = method
    return list(methods.values())


def _find_map_method(name: str) -> MapMethod:
    name = NAMES_IN_EXPLAIN.get(name, name)
    if name in MAP_METHODS:
        return MAP_METHODS[name]
    known = [*NAMES_IN_EXPLAIN, *MAP_METHODS]
    module, colon, function = str(name).partition(":")
    if not colon:
        raise ArgumentError(
            f"`methods` must be among {', '.join(known)}, or a function of your own as 'module:function'; got "
            f"{name!r}.{did_you_mean(str(name), known)}"
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
    return MapMethod(name=function.replace("_", "-").lower(), draw=draw, about=first_line(draw))
