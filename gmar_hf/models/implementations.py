"""Which attention a model computes by itself: transformers' own, which is what recorders compute, or another."""

import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

from torch import nn
from transformers import PreTrainedConfig
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from gmar_hf.errors import UnsupportedModelError
from gmar_hf.models.wrappers import class_name
from gmar_hf.utils.text import shown

_KNOWN = ("transformers", "torch", "gmar_hf")  # torch's are decorators around transformers'


def check_implementations(model: nn.Module) -> None:
    """Refuse a model whose attention somebody else than transformers computes: a recorder would compute another.

    Transformers' own implementations (eager, sdpa, flash and flex attention) are one function of queries, keys, values
    and mask. One that a user has registered under a name of its own, or in the place of theirs, may be any.

    Args:
        model (`nn.Module`): What is going to be recorded.

    Raises:
        UnsupportedModelError: With the name of the implementation.
    """
    seen = set()
    for module in model.modules():
        config = getattr(module, "config", None)
        place = (type(module).__module__, getattr(config, "_attn_implementation", None))
        if not isinstance(config, PreTrainedConfig) or place in seen:
            continue
        seen.add(place)
        function = _function(*place)
        if any(_home(part) not in _KNOWN for part in _parts(function)):
            name = getattr(function, "__qualname__", type(function).__name__)
            home = getattr(function, "__module__", "unknown")
            raise UnsupportedModelError(
                f"{class_name(model)} cannot be explained: its attention implementation {shown(place[1])!r} is none "
                f"of transformers' own, but {shown(name)} of {shown(home)}, and may compute another attention. Call "
                '`model.set_attn_implementation("sdpa")` if that gives the same logits.'
            )


def _function(namespace: str, name: str | None) -> Any:
    """Return what modules of this Python module call under an implementation's name; None where they call nothing."""
    # A module that was loaded from a file by hand need not be among those that are known.
    of_module = getattr(sys.modules.get(namespace), "__dict__", {})
    interface = of_module.get("ALL_ATTENTION_FUNCTIONS", ALL_ATTENTION_FUNCTIONS)
    default = of_module.get("eager_attention_forward")
    return default if name is None else interface.get(name.removeprefix("paged|"), default)


def _parts(function: Any) -> Iterator[Any]:
    """Yield the functions that a function is made of: what a decorator or `partial` has put around another, and it."""
    while function is not None:
        if isinstance(function, partial):
            function = function.func
        else:
            yield function
            function = getattr(function, "__wrapped__", None)


def _home(function: Any) -> str:
    """Return the package that a function's code stands in, whatever name a decorator has given it."""
    module = getattr(function, "__globals__", {}).get("__name__") or getattr(function, "__module__", None)
    return str(module).partition(".")[0]
