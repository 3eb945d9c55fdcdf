"""Linear layers that leave zeros out of their backward give the same gradients, and are as they were."""

from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import gmar_hf
from gmar_hf.models.sparse_backward import zeros_left_out
from tests.helpers import zoo

ROWS = {"none": [], "one": [3], "few": [0, 7, 9], "most": list(range(1, 10))}


@pytest.fixture
def layers():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(inplace=True), nn.Linear(8, 4, bias=False)).requires_grad_(False)


def gradients(layers, rows, is_worth_it):
    """The gradient of what the rows give in the input (2, 5, 6), and the output."""
    given = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(1)).requires_grad_()
    with zeros_left_out(layers, lambda: is_worth_it):
        output = layers(given)
    upstream = torch.zeros(10, 4)
    upstream[rows] = torch.randn(len(rows), 4, generator=torch.Generator().manual_seed(2))
    return torch.autograd.grad(output, given, upstream.view(2, 5, 4))[0], output


@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS)
def test_gradients_are_those_of_torch(layers, rows):
    expected, same = gradients(layers, rows, False)
    found, output = gradients(layers, rows, True)
    assert "_Product" in output.grad_fn.name()
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    assert torch.equal(output, same)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in layers)


def test_what_others_hook_finds_its_graph(layers):
    seen = []
    layers[0].register_forward_hook(lambda module, args, output: seen.append(output.requires_grad))
    layers[2].register_full_backward_hook(lambda module, inputs, outputs: seen.append(inputs[0].shape))
    gradients(layers, [1], True)
    assert seen == [True, (2, 5, 8)]


def test_what_others_add_in_a_hook_keeps_its_gradient(layers):
    adapter = nn.Linear(8, 4).requires_grad_(False)
    layers[2].register_forward_hook(lambda module, args, output: output + adapter(args[0]))
    expected, found = (gradients(layers, [4], is_worth_it)[0] for is_worth_it in (False, True))
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    assert expected.count_nonzero() > 0


def test_of_other_linear_layers_it_keeps_away(layers):
    """One that is trained, one in autocast, one whose forward is somebody's, and one of a class token alone."""

    def has_own(layer, given):
        with zeros_left_out(layer, lambda: True):
            return "_Product" in layer(given).grad_fn.name()

    given = torch.randn(1, 3, 6, requires_grad=True)
    assert has_own(layers[0], given)
    assert not has_own(layers[0], given[:, 0])
    with torch.autocast("cpu", torch.bfloat16):
        assert not has_own(layers[0], given)
    assert not has_own(nn.Linear(6, 6), given)
    layers[0].forward = layers[0].forward
    assert not has_own(layers[0], given)


def test_of_tokens_that_no_class_token_reads_nothing_is_multiplied(monkeypatch):
    model, batch = zoo.vit(), 2
    pixel_values = zoo.pixel_values(model, batch)

    def products():
        with FlopCounterMode(display=False) as counter:
            gmar_hf.explain(model, pixel_values)
        return counter.get_flop_counts()["Global"][torch.ops.aten.mm]

    found = products()
    monkeypatch.setattr("gmar_hf.explanation.trace.zeros_left_out", lambda model, is_worth_it: nullcontext())
    # Around the last attention are two square products and the two of the MLP, and 4 x 4 patches that nobody reads.
    width, mlp = model.config.hidden_size, model.config.intermediate_size
    assert products() - found == 4 * batch * 16 * (width * width + width * mlp)
