"""Attention past transformers' interface: modules that call torch's `scaled_dot_product_attention` themselves.

Such a module's call is answered by somebody else for a while. What else it does (projections, rotations, gates) stays
its own.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from gmar_hf.models.freezing import Undo
from gmar_hf.models.hooks import BorrowedMethod

Answer = Callable[..., torch.Tensor]
"""Gets a module and the arguments of its call of `scaled_dot_product_attention`; returns what that would return."""


class _Answering(TorchFunctionMode):
    """Lets the calls of `scaled_dot_product_attention` that this thread makes for a module be answered."""

    def __init__(self, module: nn.Module, answer: Answer) -> None:
        super().__init__()
        self._module, self._answer = module, answer

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is scaled_dot_product_attention:
            return self._answer(self._module, *args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def answer_calls(module: nn.Module, answer: Answer) -> Undo:
    """Let a module's calls of `scaled_dot_product_attention` be answered, until what is returned is called.

    Args:
        module (`nn.Module`): It makes them in its `forward`, of timm's modules where `fused_attn` is on, as it is
            meanwhile: else they compute a softmax of their own.
        answer (`Callable`): What answers, see [`Answer`].
    """

    def forward(self: nn.Module, own: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        with _Answering(self, answer):
            return own(*args, **kwargs)

    undo_forward, undo_flag = replace_method(module, "forward", forward), replace(module, "fused_attn", True)

    def undo() -> None:
        undo_forward()
        undo_flag()

    return undo


def replace_method(module: nn.Module, name: str, method: Callable[..., Any]) -> Undo:
    """Replace a method of one module, until what is returned is called.

    Args:
        module (`nn.Module`): Whose method it is.
        name (`str`): The method's.
        method (`Callable`): Gets the module, its method as it was, and the arguments.
    """
    own = getattr(module, name)

    def instead(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return method(self, own, *args, **kwargs)

    return replace(module, name, BorrowedMethod(module, instead, own))


def replace(module: nn.Module, name: str, value: Any) -> Undo:
    """Set an attribute of one module that is neither a module nor a tensor, until what is returned is called."""
    had_own, before = name in vars(module), vars(module).get(name)

    def undo() -> None:
        if had_own:
            setattr(module, name, before)
        else:
            delattr(module, name)

    setattr(module, name, value)
    return undo
