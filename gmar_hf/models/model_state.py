"""What a model computes beyond its weights: which heads are silenced now, and which adapters of PEFT take part."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Any

from torch import nn

from gmar_hf.models.recorders import silenced_heads
from gmar_hf.utils.text import quantity

WHOLE = "no silenced heads and no adapters"


def describe_state(model: nn.Module) -> str | None:
    """Say what a model computes otherwise than its weights alone would tell; equal words mean an equal state.

    Args:
        model (`nn.Module`): What is going to be explained, with all that is around it.

    Returns:
        `str` or None: Such as "silenced heads 5.0 5.3 (layer.head)" or "adapters default (scaling 2.0) in 24 modules";
            None of a model without either. An adapter that is merged has no scaling: it stands in the weights.

    Example:
        >>> import gmar_hf, gmar_hf.demo
        >>> model, _ = gmar_hf.demo.load("vit")
        >>> with gmar_hf.silence_heads(model, [(5, 3), (5, 0)]):
        ...     print(describe_state(model))
        silenced heads 5.0 5.3 (layer.head)
    """
    silent = " ".join(f"{layer}.{head}" for layer, head in sorted(silenced_heads(model)))
    parts = [f"silenced heads {silent} (layer.head)"] if silent else []
    of_modules = {name: _used(module) for name, module in model.named_modules() if _has_adapters(module)}
    if of_modules:
        parts.append(_adapters_in_words(of_modules))
    return "; ".join(parts) or None


def has_disabled_adapters(model: nn.Module) -> bool:
    """Tell whether a module of the model has adapters of PEFT that are disabled."""
    return any(_has_adapters(module) and module.disable_adapters for module in model.modules())


def _adapters_in_words(of_modules: Mapping[str, str]) -> str:
    """Count the modules of each state; a digest tells which they are, where not all are alike."""
    numbers: dict[str, int] = defaultdict(int)
    for used in of_modules.values():
        numbers[used] += 1
    told = ", ".join(f"{used} in {quantity(count, 'module')}" for used, count in sorted(numbers.items()) if used)
    if not told:
        return "all adapters off"
    if len(numbers) == 1:
        return f"adapters {told}"
    return f"adapters {told}, arranged as {sha256(repr(sorted(of_modules.items())).encode()).hexdigest()[:8]}"


def _has_adapters(module: Any) -> bool:
    # Asked of the class: wrappers of PEFT answer for the modules in them, too.
    return isinstance(getattr(type(module), "adapter_layer_names", None), tuple)


def _used(module: Any) -> str:
    """Return the adapters that a module of PEFT takes part with, with their scaling; nothing where none does."""
    if module.disable_adapters:
        return ""
    if merged := getattr(module, "merged_adapters", None):
        return " + ".join(f"{name} (merged)" for name in sorted(merged))
    active, there = module.active_adapters, _adapters_there(module)
    used: Iterable[str] = [name for name in active if name in there]
    if "original_module" in module._modules:  # one copy of the module an adapter, the first of which stands for all
        used = active[:1] if there.issuperset(active) else []
    scaling = getattr(module, "scaling", None)
    scaling = scaling if isinstance(scaling, Mapping) else {}
    return " + ".join(
        f"{name} (scaling {float(scaling[name])!r})" if name in scaling else name for name in sorted(used)
    )


def _adapters_there(module: Any) -> set[str]:
    """Return the names of the adapters that a module of PEFT has."""
    holders = [getattr(module, name, None) for name in type(module).adapter_layer_names]
    return {key for holder in holders if isinstance(holder, nn.ModuleDict | nn.ParameterDict) for key in holder}
