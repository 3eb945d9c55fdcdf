"""Heads described, against explicit matrices in float64, written out token by token and module by module."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from gmar_hf import ArgumentError, UnsupportedModelError, describe_heads
from gmar_hf.explanation import blocks
from gmar_hf.explanation.head_description import describe_attention
from gmar_hf.models.patches import Grid
from gmar_hf.models.recorders import AttentionCall
from tests.helpers import oracle, zoo
from tests.helpers.state import make_uneven, snapshot


def looks(reference):
    """Distance, entropy and share on prefix tokens (3, layers, heads), by loops over the patches."""
    attention, prefix = reference.attention, reference.num_prefix_tokens
    places = [(row, col) for row in range(reference.rows) for col in range(reference.cols)]
    found = np.zeros((3, *attention.shape[:2]))
    for query, place in enumerate(places):
        row = attention[:, :, prefix + query]
        distance = np.array([math.dist(place, other) for other in places])
        found[0] += (row[..., prefix:] * distance).sum(-1) / row[..., prefix:].sum(-1)
        found[1] += -(row * np.log(row)).sum(-1)
        found[2] += row[..., :prefix].sum(-1)
    return found / len(places)


def held(norm, hidden):
    """The linear part of a layer norm whose scale is held: (matrix of channels, by token)."""
    centred = hidden - hidden.mean(-1, keepdim=True)
    return norm.weight / (centred.square().mean(-1, keepdim=True) + norm.eps).sqrt()


def written(model, outputs):
    """What each head writes into the residual stream (layers, heads, tokens, channels), by slices of o_proj."""
    projections = [
        module
        for path, module in model.named_modules()
        if path.endswith((".o_proj", ".out_proj", "attention.output.dense")) and ".head." not in path
    ]
    layers = []
    for projection, output in zip(projections, torch.from_numpy(outputs), strict=True):
        weight = projection.weight.unflatten(1, (output.shape[0], output.shape[2]))  # (channels, heads, head_dim)
        layers.append(torch.einsum("htd,chd->htc", output, weight))
    return torch.stack(layers)


def direct(model, images, classes):
    """The direct effects (batch, layers, heads), by each family's own words for what follows the last layer."""
    model = model.double()
    family = type(model).__name__.split("For")[0]
    backbone = oracle.backbone(model)
    norm = {
        "Beit": lambda: backbone.pooler.layernorm,  # of the mean over the patches
        "Siglip": lambda: backbone.post_layernorm,
        "CLIP": lambda: None,  # the classifier reads the last layer as it is
    }.get(family, lambda: backbone.layernorm)()
    # Where the norm stands: what it read, image by image.
    read = []
    handle = (
        None if norm is None else norm.register_forward_hook(lambda module, inputs, output: read.append(inputs[0]))
    )
    with torch.no_grad():
        model(pixel_values=images.double())
    if handle is not None:
        handle.remove()
    effects = []
    for number, reference in enumerate(oracle.explicit_reference(model, images.double(), classes)):
        target, prefix = classes[number], reference.num_prefix_tokens
        writes = written(model, reference.output).detach()
        if family == "Beit":
            writes = writes * torch.stack([layer.lambda_1 for layer in backbone.layers]).detach()[:, None, None]
            writes = writes[:, :, 1:].mean(2)
        if family.startswith("Dinov2"):
            scales = torch.stack([layer.layer_scale1.lambda1 for layer in backbone.encoder.layer]).detach()
            writes = writes * scales[:, None, None]
        if norm is not None:
            writes = (writes - writes.mean(-1, keepdim=True)) * held(norm, read[0][number])
        if family == "DeiT":
            first, second = model.cls_classifier.weight[target], model.distillation_classifier.weight[target]
            effects.append((writes[:, :, 0] @ first + writes[:, :, 1] @ second) / 2)
            continue
        if family == "ViT":
            writes = writes[:, :, 0]
        elif family.startswith("Dinov2"):
            writes = torch.cat([writes[:, :, 0], writes[:, :, prefix:].mean(2)], dim=-1)
        elif family != "Beit":
            writes = writes[:, :, prefix:].mean(2)
        effects.append(writes @ model.classifier.weight[target])
    return torch.stack(effects).detach().numpy()


FAMILIES = ["vit_landscape", "deit_teacher", "beit_relative", "dinov2", "dinov2_registers", "siglip", "clip", "ijepa"]


@pytest.mark.parametrize("name", FAMILIES)
def test_against_explicit_matrices(name):
    model = zoo.MODELS[name]()
    images, classes = zoo.pixel_values(model, batch=2), [1, 4]
    found = describe_heads(model, images, classes)
    references = oracle.explicit_reference(model, images, classes)
    theirs = np.stack([looks(reference) for reference in references])
    for place, key in enumerate(("attention_distance", "attention_entropy", "prefix_attention")):
        ours = getattr(found, key)
        assert ours.dtype == torch.float32
        assert zoo.relative_error(ours, theirs[:, place]) < 1e-5 or theirs[:, place].max() == ours.abs().max() == 0
    assert found.undefined is None
    assert zoo.relative_error(found.direct_effect, direct(model, images, classes)) < 1e-5


def test_targets_have_an_axis():
    model = zoo.vit()
    images = zoo.pixel_values(model, batch=2)
    found = describe_heads(model, images, torch.tensor([[0, 3, 1], [4, 2, 1]])).direct_effect
    assert found.shape == (2, 3, 3, 3)
    torch.testing.assert_close(found[:, 1], describe_heads(model, images, [3, 2]).direct_effect)


@pytest.mark.parametrize("elements", [1, 40, 10**6])
def test_blocks_are_of_no_consequence(monkeypatch, elements):
    query, key = torch.randn(2, 2, 3, 14, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    call = AttentionCall(module=nn.Identity(), query=query, key=key, value=key, bias=None, scaling=0.5, dropout=0.0)
    grid = Grid(2, 3, 4)
    whole = describe_attention(call, grid)
    monkeypatch.setattr(blocks, "BLOCK_ELEMENTS", elements)
    torch.testing.assert_close(describe_attention(call, grid), whole)


def test_uniform_attention_by_hand():
    """Two patches side by side behind one prefix token: each row is 1/3, 1/3, 1/3."""
    zeros = torch.zeros(1, 1, 3, 4)
    call = AttentionCall(
        module=nn.Identity(), query=zeros, key=zeros, value=zeros, bias=None, scaling=1.0, dropout=0.0
    )
    distance, entropy, prefix = describe_attention(call, Grid(1, 1, 2))[0, 0].tolist()
    assert distance == pytest.approx(0.5)  # half the attention to patches stays, half goes one patch
    assert entropy == pytest.approx(math.log(3))
    assert prefix == pytest.approx(1 / 3)


def test_patches_that_attend_to_nothing_do_not_count():
    """As above, beside a third patch that nothing attends to and that attends to nothing, in one image of two."""
    zeros, bias = torch.zeros(2, 1, 4, 4), torch.zeros(2, 1, 4, 4)
    bias[0, :, 3] = bias[0, :, :, 3] = -torch.inf
    call = AttentionCall(
        module=nn.Identity(), query=zeros, key=zeros, value=zeros, bias=bias, scaling=1.0, dropout=0.0
    )
    padded, whole = describe_attention(call, Grid(1, 1, 3))[:, 0].tolist()
    assert padded == pytest.approx([0.5, math.log(3), 1 / 3])
    assert whole == pytest.approx([8 / 9, math.log(4), 1 / 4])


class TestUndefined:
    def test_a_head_that_is_not_linear(self):
        model = zoo.vit()
        model.classifier = nn.Sequential(nn.Tanh(), model.classifier)
        found = describe_heads(model, zoo.pixel_values(model), 1)
        assert found.direct_effect is None
        assert "is not linear" in found.undefined
        assert found.attention_distance.shape == (2, 3, 3)

    def test_a_branch_without_a_norm(self):
        model = zoo.vit()
        for layer in model.vit.layers:
            layer.layernorm_after = nn.Identity()
        assert "is not linear" in describe_heads(model, zoo.pixel_values(model), 1).undefined

    def test_a_norm_behind_the_heads(self):
        model = zoo.vit()
        layer = model.vit.layers[1].attention
        layer.o_proj = nn.Sequential(nn.LayerNorm(24), layer.o_proj)
        found = describe_heads(model, zoo.pixel_values(model), 1)
        assert found.direct_effect is None
        assert found.undefined == "some head's output reaches the logit only through a layer norm of its own layer"

    def test_models_that_are_refused(self):
        for name in ("swin", "swinv2", "hiera", "segformer", "pvt"):
            with pytest.raises(UnsupportedModelError, match="its layers stand in stages, each on a map of its own"):
                describe_heads(zoo.STAGED[name](), torch.zeros(1, 3, 32, 32))
        with pytest.raises(ArgumentError, match="`depth` must be an argument that ViTForImageClassification knows"):
            describe_heads(zoo.vit(), torch.zeros(1, 3, 32, 32), depth=3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    model = zoo.vit()
    images = zoo.pixel_values(model)
    exact = describe_heads(model, images, 1)
    found = describe_heads(model.to(dtype), images.to(dtype), 1)
    assert found.direct_effect.dtype == torch.float32
    for key in ("attention_distance", "attention_entropy", "prefix_attention", "direct_effect"):
        assert zoo.relative_error(getattr(found, key), getattr(exact, key).double()) < 0.03


def test_the_model_is_as_it_was():
    model = zoo.deit_teacher()
    make_uneven(model)
    before = snapshot(model)
    with torch.no_grad():
        describe_heads(model, zoo.pixel_values(model))
    with pytest.raises(ArgumentError):
        describe_heads(model, zoo.pixel_values(model), 99)
    assert snapshot(model) == before
