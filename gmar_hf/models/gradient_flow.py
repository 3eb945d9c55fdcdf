"""Modules that no gradient passes, found while a model computes."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

from gmar_hf.errors import UnsupportedModelError
from gmar_hf.models.hooks import of_this_thread
from gmar_hf.models.wrappers import class_name

_QUANTISED = ("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized")


@contextmanager
def gradients_passing(model: nn.Module) -> Iterator[None]:
    """Refuse, in a forward inside the block, a module of the model that cuts the gradient.

    That is one that is handed a tensor which wants gradients and returns one of as many tokens that wants none, though
    it depends on the first: its kernel has no backward, or somebody wrote `torch.no_grad` or `detach` around or into
    it. What else a model adds past such a module still has a gradient, a wrong one. Frozen weights cut nothing, nor do
    modules that return positions or masks.

    Args:
        model (`nn.Module`): What computes inside the block, with gradients on.

    Raises:
        UnsupportedModelError: With the name of the module.
    """
    hook = of_this_thread(partial(_check_output, model))
    with ExitStack() as stack:
        for module in model.modules():
            stack.callback(module.register_forward_hook(hook, with_kwargs=True).remove)
        yield


def _check_output(model: nn.Module, module: nn.Module, args: Any, *rest: Any) -> None:
    # Where another thread takes its hooks away meanwhile, torch hands this one no keyword arguments.
    *keywords, output = rest
    if isinstance(output, torch.Tensor) and output.is_inference():
        raise UnsupportedModelError(
            f"{class_name(model)} cannot be explained: its `{_name_of(model, module)}` ({type(module).__name__}) "
            "computes inside `torch.inference_mode`, where nothing has a gradient. Take that out of its forward."
        )
    kwargs = keywords[0] if keywords else {}
    if not isinstance(output, torch.Tensor) or not output.is_floating_point() or _has_backward(module, output):
        return
    inputs = [each for each in (*args, *kwargs.values()) if isinstance(each, torch.Tensor) and each.requires_grad]
    if any(each.shape[:-1] == output.shape[:-1] for each in inputs) and _depends(module, args, kwargs, output):
        raise _cut(model, module)


def _name_of(model: nn.Module, module: nn.Module) -> str:
    return next(name for name, each in model.named_modules() if each is module)


def _has_backward(module: nn.Module, output: torch.Tensor) -> bool:
    if not output.requires_grad or _is_quantised(module):
        return False
    # Of an operator without a backward torch says only in its backward, by a warning, that it has none.
    return output.grad_fn is None or "NotImplemented" not in output.grad_fn.name()


def _is_quantised(module: nn.Module) -> bool:
    return type(module).__module__.startswith(_QUANTISED)


def _depends(module: nn.Module, args: Any, kwargs: Any, output: torch.Tensor) -> bool:
    """Tell whether a module's output depends on the inputs that want gradients: positions and masks do not."""

    def other(value: Any) -> Any:
        wants = isinstance(value, torch.Tensor) and value.requires_grad
        return value.detach().flip(0).flip(-1) * 2 + 1 if wants else value

    with torch.no_grad():
        again = module.forward(*map(other, args), **{key: other(value) for key, value in kwargs.items()})
    return not torch.equal(again, output)


def _cut(model: nn.Module, module: nn.Module) -> UnsupportedModelError:
    if _is_quantised(module):
        kind = "dynamic" if ".dynamic" in type(module).__module__ else "static"
        dtype = "float16" if "float16" in str(module) else "int8"
        return UnsupportedModelError(
            f"{class_name(model)} is quantised (torch.ao {kind} {dtype}): no gradient passes its linear layers. "
            "Load it in float."
        )
    name, weight = _name_of(model, module), type(getattr(module, "weight", None))
    if weight.__module__.startswith("torchao."):
        return UnsupportedModelError(
            f"{class_name(model)} is quantised (torchao {weight.__name__}, activations too): no gradient passes its "
            f"`{name}`. Quantise weights alone, such as by `Int8WeightOnlyConfig`, or load it in float."
        )
    return UnsupportedModelError(
        f"{class_name(model)} cannot be explained: no gradient passes its `{name}` ({type(module).__name__}), so "
        "what reaches the layers before it would be wrong. Take `torch.no_grad` or `detach` out of it, or load the "
        "model in float."
    )
