"""Linear layers whose backward multiplies no zeros: those of tokens that no gradient reaches.

Behind the last attention every token goes its own way. Where the head reads the class token alone, the gradients of
all other tokens are zero up to that attention, and those of its other queries: with the last MLP that is most of a
layer's backward.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from gmar_hf.models.hooks import of_this_thread
from gmar_hf.utils.tensors import is_not_zero, reached_rows


@contextmanager
def zeros_left_out(model: nn.Module, is_worth_it: Callable[[], bool]) -> Iterator[None]:
    """Let backwards of forwards inside the block leave zero rows out of the products of linear layers, on a CPU.

    Rows that are multiplied are so with fewer others: the last digit of a sum may differ. Elsewhere finding the rows
    would make the CPU wait for the device, which costs more than the products.

    Args:
        model (`nn.Module`): What computes inside the block, its parameters frozen.
        is_worth_it (`Callable`): Asked at every call whether zeros are to be expected.
    """

    def leave(linear: nn.Linear, args: tuple[Any, ...], output: torch.Tensor) -> Any:
        if output.requires_grad and len(args) == 1 and _can_serve(linear, args[0]) and is_worth_it():
            return _with_graph(args[0], (output, linear.weight))
        return None

    hook = of_this_thread(leave)
    with ExitStack() as stack:
        for module in model.modules():
            if type(module) is nn.Linear:
                # Before all other hooks: what these make of the output has our graph behind it.
                stack.callback(module.register_forward_hook(hook, prepend=True).remove)
        yield


def _can_serve(linear: nn.Linear, given: torch.Tensor) -> bool:
    """Tell whether a layer is torch's own product of plain tensors, of several tokens an image, and nobody's else."""
    weight = linear.weight
    return (
        given.requires_grad
        and given.ndim > 2
        and given.device.type == "cpu"
        and type(weight) is nn.Parameter
        and not weight.requires_grad
        and weight.dtype == given.dtype
        and not torch.is_autocast_enabled("cpu")
        and "forward" not in vars(linear)  # accelerate's, which takes weights away when it has returned
    )


class _Product(torch.autograd.Function):
    """The graph of a product that is computed already: `x W^T + b`, of which `x` alone wants a gradient."""

    @staticmethod
    def forward(ctx: Any, given: torch.Tensor, computed: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        output, ctx.weight = computed
        return output.detach()  # without the graph that it has; it may be changed in place, other than a view

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        by_token = gradient.flatten(0, -2)
        reached = reached_rows(is_not_zero(by_token))
        if reached is None:
            return gradient @ ctx.weight, None
        product = by_token.new_zeros(len(by_token), ctx.weight.shape[1])
        product[reached] = by_token[reached] @ ctx.weight
        return product.unflatten(0, gradient.shape[:-1]), None


_with_graph: Callable[..., torch.Tensor] = _Product.apply
