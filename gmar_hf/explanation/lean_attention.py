"""Attention whose backward leaves out what nobody asks for: queries that no gradient reaches, gradients of constants.

In the last layer of a model whose head reads the class token, one query is reached. In the first layer of a graph that
begins at the values, queries and keys are constants. The backward of `scaled_dot_product_attention` on a CPU goes
through all of them, which takes two to three times as long as its forward.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from gmar_hf.explanation.rollout import attention_blocks, of_queries
from gmar_hf.models.freezing import full_precision
from gmar_hf.models.recorders import AttentionCall
from gmar_hf.utils.tensors import at_least_float32, is_not_zero, reached_rows


def lean_output(call: AttentionCall) -> torch.Tensor:
    """Compute a layer's output so that its backward leaves out queries whose gradients are zero, and constants.

    Args:
        call ([`AttentionCall`]): The layer's queries, keys, values, bias and scaling.

    Returns:
        `torch.Tensor` of shape (batch, heads, queries, head_dim): As `scaled_dot_product_attention` gives it; on
            another device than a CPU, and with dropout, its backward too is torch's own.
    """
    graded = [tensor for tensor in (call.query, call.key, call.value) if tensor.requires_grad]
    if not graded or call.dropout or call.value.device.type != "cpu":
        return call.compute_output()
    # Where most queries are reached torch's own graph serves; it begins at leaves of its own.
    query, key, value = (
        tensor.detach().requires_grad_(tensor.requires_grad) for tensor in (call.query, call.key, call.value)
    )
    own = replace(call, query=query, key=key, value=value)
    return _with_graph(call.query, call.key, call.value, (own, own.compute_output()))


class _Attention(torch.autograd.Function):
    """The graph of an output that is computed already, from queries, keys and values."""

    @staticmethod
    def forward(ctx: Any, query: Any, key: Any, value: Any, computed: tuple[AttentionCall, torch.Tensor]) -> Any:
        ctx.call, ctx.output = computed
        output = ctx.output.detach()
        ctx.save_for_backward(query, key, value, output)  # torch tells by them whether one was changed in place
        return output

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        call, (*_, output) = ctx.call, ctx.saved_tensors
        inputs = (call.query, call.key, call.value)
        with full_precision(gradient.device):
            if not call.query.requires_grad and not call.key.requires_grad:
                return None, None, _value_gradient(call, gradient), None
            rows = reached_rows(is_not_zero(gradient))
            if rows is not None:
                return *_gradients_of(call, output, gradient, rows), None
        graded = [tensor for tensor in inputs if tensor.requires_grad]
        found = iter(torch.autograd.grad(ctx.output, graded, gradient, retain_graph=True))  # for further targets
        return *(next(found) if tensor.requires_grad else None for tensor in inputs), None


def _value_gradient(call: AttentionCall, gradient: torch.Tensor) -> torch.Tensor:
    """Return the values' gradient alone, `dV = A^T g`."""
    output_grad = at_least_float32(gradient)
    value_grad = output_grad.new_zeros(call.value.shape)
    for piece, attention in attention_blocks(call):
        value_grad[piece[:2]] += attention.transpose(-2, -1) @ output_grad[piece]
    return value_grad.to(call.value.dtype)


def _gradients_of(
    call: AttentionCall, output: torch.Tensor, gradient: torch.Tensor, rows: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the gradients of queries, keys and values; that of the output is zero in all `rows` but these.

    With attention `A`, scores `S` and the output's gradient `g`: `dV = A^T g` and `dS = A * (g V^T - <g, O>)`, as in
    Dao et al., "FlashAttention", NeurIPS 2022, appendix B.2.
    """
    few = of_queries(call, rows)
    query, key, value = map(at_least_float32, (few.query, call.key, call.value))
    output, output_grad = at_least_float32(output[:, :, rows]), at_least_float32(gradient[:, :, rows])
    by_row = (output * output_grad).sum(dim=-1, keepdim=True)
    few_grad, key_grad, value_grad = (tensor.new_zeros(tensor.shape) for tensor in (query, key, value))
    for piece, attention in attention_blocks(few):
        whole, grad = piece[:2], output_grad[piece]
        value_grad[whole] += attention.transpose(-2, -1) @ grad
        slope = (grad @ value[whole].transpose(-2, -1)).sub_(by_row[piece]).mul_(attention).mul_(call.scaling)
        few_grad[piece] = slope @ key[whole]
        key_grad[whole] += slope.transpose(-2, -1) @ query[piece]
    query_grad = call.query.new_zeros(call.query.shape)
    query_grad[:, :, rows] = few_grad.to(query_grad.dtype)
    return query_grad, key_grad.to(call.key.dtype), value_grad.to(call.value.dtype)


_with_graph: Callable[..., torch.Tensor] = _Attention.apply
