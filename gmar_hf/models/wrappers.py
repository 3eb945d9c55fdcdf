"""What computes inside the wrappers of a user's model, and what the user knows it as."""

from typing import Any

from torch import nn

from gmar_hf.models.flat_patches import ImagesAsPatches


def class_name(model: nn.Module) -> str:
    """Return the name of the class that the user knows: under PEFT or FSDP, that of the wrapped model."""
    found = unwrapped(model)
    # `fully_shard` makes a class of FSDPModule and the model's own.
    return (type(found).__mro__[2] if shards(found) else type(found)).__name__


def shards(module: nn.Module) -> bool:
    """Tell whether `fully_shard` was called on a module, so that processes have parts of its weights each."""
    return any(base.__name__ == "FSDPModule" for base in type(module).__bases__)


def is_sharded(model: nn.Module) -> bool:
    """Tell whether processes hold a part of the weights each, so that all of them must compute whenever one does."""
    is_spread = any(hasattr(parameter, "full_tensor") for parameter in model.parameters())
    return is_spread or any(shards(module) for module in model.modules())


def runnable(model: Any) -> Any:
    """Return what computes, from inside wrappers that only run it: `torch.compile`, `DataParallel` and its kin."""
    while True:
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        elif "_orig_mod" in getattr(model, "_modules", {}):  # of `torch.compile`
            model = model._orig_mod
        else:
            return model


def unwrapped(model: Any) -> Any:
    """Return the transformers model itself, from inside all wrappers: those of [`runnable`], PEFT's, and ours."""
    model = runnable(model)
    model = model.model if isinstance(model, ImagesAsPatches) else model
    return runnable(model.get_base_model()) if hasattr(model, "get_base_model") else model


def config_of(model: nn.Module) -> Any:
    """Return the config of a model, or of a module inside one; None where it has none."""
    return getattr(unwrapped(model), "config", None)
