"""Attention that leaves out of its backward what nobody asks for gives torch's gradients."""

import pytest
import torch
from torch import nn

from gmar_hf.explanation.lean_attention import lean_output
from gmar_hf.models.recorders import AttentionCall

BATCH, HEADS, TOKENS, WIDTH = 2, 3, 7, 4
ROWS = {"none": [], "one": [0], "few": [0, 2, 5], "all": list(range(TOKENS))}
BIASES = {"plain": (), "of all": (1, 1, 1, TOKENS), "of heads": (1, HEADS, TOKENS, TOKENS)}


def normal(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def make_call(bias_shape=(), wanting=(True, True, True), dtype=torch.float64):
    query, key, value = (
        normal(BATCH, HEADS, TOKENS, WIDTH, seed=seed).to(dtype).requires_grad_(wants)
        for seed, wants in enumerate(wanting)
    )
    bias = normal(*bias_shape, seed=3).to(dtype) if bias_shape else None
    return AttentionCall(module=nn.Module(), query=query, key=key, value=value, bias=bias, scaling=0.3, dropout=0.0)


def upstream(rows):
    """The gradient of an output that some queries alone are read of, not the same ones in both images."""
    gradient = torch.zeros(BATCH, HEADS, TOKENS, WIDTH, dtype=torch.float64)
    gradient[:, :, rows] = normal(BATCH, HEADS, len(rows), WIDTH, seed=4)
    gradient[0, :, rows[:1]] = 0
    return gradient


def gradients(output, call, gradient):
    wanted = [tensor for tensor in (call.query, call.key, call.value) if tensor.requires_grad]
    return torch.autograd.grad(output, wanted, gradient.to(output.dtype), retain_graph=True)


def explicit_output(call):
    return call.output_of(call.compute_probabilities())


@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS)
@pytest.mark.parametrize("bias_shape", BIASES.values(), ids=BIASES)
@pytest.mark.parametrize("wanting", [(True, True, True), (False, False, True)], ids=["all", "values"])
def test_gradients_are_those_of_explicit_attention(rows, bias_shape, wanting):
    call = make_call(bias_shape, wanting)
    output = lean_output(call)
    assert torch.equal(output, call.compute_output())
    expected = gradients(explicit_output(call), call, upstream(rows))
    for _ in range(2):  # as for two targets
        torch.testing.assert_close(gradients(output, call, upstream(rows)), expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("rows", [ROWS["one"], ROWS["all"]], ids=["one", "all"])
def test_queries_that_attend_to_nothing_have_no_gradient(rows):
    call = make_call((1, 1, TOKENS, TOKENS))
    call.bias[:, :, 0] = -torch.inf
    expected = gradients(explicit_output(call), call, upstream(rows))
    found = gradients(lean_output(call), call, upstream(rows))
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("wanting", [(True, True, True), (False, False, True)], ids=["all", "values"])
def test_half_precision_is_reduced_in_float32(dtype, wanting):
    call = make_call(wanting=wanting, dtype=dtype)
    found = gradients(lean_output(call), call, upstream([1]))
    exact = make_call(wanting=wanting)
    for ours, expected in zip(found, gradients(explicit_output(exact), exact, upstream([1])), strict=True):
        assert ours.dtype == dtype
        torch.testing.assert_close(ours.double(), expected, atol=4 * torch.finfo(dtype).eps, rtol=0)


def test_without_a_graph_there_is_none():
    assert lean_output(make_call(wanting=(False, False, False))).grad_fn is None


@pytest.mark.parametrize("name", ["query", "key", "value", "output"])
@pytest.mark.parametrize("rows", [ROWS["one"], ROWS["all"]], ids=["one", "all"])
def test_what_is_changed_in_place_meanwhile_is_an_error(name, rows):
    """As it is of torch's own backward: what came out would be of no model."""
    call = make_call()
    call.query, call.key, call.value = (tensor * 1 for tensor in (call.query, call.key, call.value))
    output = lean_output(call)
    changed = output if name == "output" else getattr(call, name)
    changed.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(output, (call.query, call.key, call.value), upstream(rows))


@pytest.mark.parametrize("wanting", [(True, True, True), (False, False, True)], ids=["all", "values"])
def test_a_backward_in_autocast_keeps_its_precision(wanting):
    call = make_call(wanting=wanting, dtype=torch.float32)
    output = lean_output(call)
    expected = gradients(output, call, upstream([1]))
    with torch.autocast("cpu", torch.bfloat16):
        found = gradients(output, call, upstream([1]))
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, expected, strict=True))
