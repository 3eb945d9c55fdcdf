"""Heads taken out of a model, against zeros in the input of the output projections."""

import pytest
import torch

import gmar_hf
from gmar_hf import ArgumentError, ArgumentTypeError, silence_heads
from gmar_hf.models.introspection import heads_by_layer
from tests.helpers import zoo
from tests.helpers.state import make_uneven, snapshot
from tests.models.test_retention import enable_checkpointing


def logits(model, pixel_values):
    with torch.no_grad():
        return model(pixel_values=pixel_values).logits


def without(model, projections, pixel_values, heads):
    """The logits with zeros in place of these heads' channels, where the output projections read them."""
    width = projections[0].in_features // zoo.vision_config(model).num_attention_heads

    def hook(layer):
        def zero(module, inputs):
            (hidden,) = inputs
            hidden = hidden.clone()
            for _, head in (pair for pair in heads if pair[0] == layer):
                hidden[..., head * width : (head + 1) * width] = 0
            return (hidden,)

        return zero

    handles = [projection.register_forward_pre_hook(hook(layer)) for layer, projection in enumerate(projections)]
    try:
        return logits(model, pixel_values)
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("name", ["vit", "deit_teacher", "beit_relative", "clip"])
def test_silent_heads_are_zeros_before_the_output_projection(name):
    model = zoo.MODELS[name]()
    projections = [module for path, module in model.named_modules() if path.endswith((".o_proj", ".out_proj"))]
    assert len(projections) == zoo.vision_config(model).num_hidden_layers
    images = zoo.pixel_values(model, batch=2)
    heads = [(0, 1), (2, 0), (2, 2)]
    with silence_heads(model, heads):
        ours = logits(model, images)
        again = logits(model, images)
    theirs = without(model, projections, images, heads)
    assert torch.allclose(ours, theirs, atol=1e-5)
    assert torch.equal(ours, again)
    assert (ours - logits(model, images)).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["swin_padded", "swinv2", "hiera", "segformer", "pvt", "pvt_v2"])
def test_silent_heads_inside_windows(name):
    """The rows of the output projection that read a head are zero: its bias alone is left."""
    model, without_heads = zoo.STAGED[name](), zoo.STAGED[name]()
    paths = (".o_proj", ".attention.output.dense", ".attn.proj", ".attention.proj")
    projections = [module for path, module in without_heads.named_modules() if path.endswith(paths)]
    images = zoo.pixel_values(model)
    heads = [(0, 0), (len(projections) - 1, 1)]
    for layer, head in heads:
        weight = projections[layer].weight.data
        size = weight.shape[1] // heads_by_layer(model)[layer]
        weight[:, head * size : (head + 1) * size] = 0
    with silence_heads(model, heads):
        ours = logits(model, images)
    torch.testing.assert_close(ours, logits(without_heads, images), rtol=1e-4, atol=1e-5)


def test_none_silent_changes_nothing():
    model = zoo.vit()
    images = zoo.pixel_values(model, batch=2)
    with silence_heads(model, []):
        ours = logits(model, images)
    assert torch.allclose(ours, logits(model, images), atol=1e-6)


def test_gradients_pass_the_other_heads_only():
    model = zoo.vit()
    images = zoo.pixel_values(model, batch=1)
    with silence_heads(model, [(1, 0)]):
        model(pixel_values=images).logits.sum().backward()
    weights = model.vit.layers[1].attention.v_proj.weight.grad.unflatten(0, (3, 8))
    assert weights[0].abs().max() == 0
    assert weights[1].abs().max() > 0


def test_the_model_is_as_it_was_also_after_an_exception():
    model = zoo.beit_relative()
    make_uneven(model)
    before = snapshot(model)
    with pytest.raises(ZeroDivisionError), silence_heads(model, [(0, 0)]):
        raise ZeroDivisionError
    assert snapshot(model) == before


@pytest.mark.parametrize("head", [(3, 0), (0, 3), (-1, 0), (0, -1)])
def test_heads_that_are_not_there(head):
    with pytest.raises(ArgumentError, match=r"`heads` must be pairs of a layer in \[0, 2\] and a head in \[0, 2\]"):
        silence_heads(zoo.vit(), [head]).__enter__()


@pytest.mark.parametrize(("name", "head"), [("swin", (3, 0)), ("swin", (1, 2)), ("swin", (2, 4)), ("hiera", (1, 2))])
def test_heads_that_a_layer_lacks(name, head):
    with pytest.raises(ArgumentError, match=r"a layer in \[0, [23]\] and a head in \[0, [13]\]; got "):
        silence_heads(zoo.STAGED[name](), [head]).__enter__()


@pytest.mark.parametrize("heads", [[(1, 0, 0.5)], [3], 3, [(0, 0.5)], [("0", "1")], [None], ["ab"]])
def test_what_is_no_pair(heads):
    with pytest.raises(ArgumentTypeError, match=r"`heads` must be pairs of a layer and a head; got .*`top_heads`"):
        silence_heads(zoo.vit(), heads).__enter__()


def test_pairs_of_every_kind():
    model = zoo.vit()
    images = zoo.pixel_values(model, batch=1)
    with silence_heads(model, [(1, 2), (0, 1)]):
        expected = logits(model, images)
    for heads in (torch.tensor([[1, 2], [0, 1]]), [[1, 2], [0, 1], [1, 2]], iter([(1, 2), (0, 1)])):
        with silence_heads(model, heads):
            assert torch.equal(logits(model, images), expected)


def test_no_model():
    with pytest.raises(ArgumentTypeError, match="transformers model"):
        silence_heads(torch.nn.Linear(2, 2), []).__enter__()


def test_contributions_predict_the_change_of_the_logit():
    """What a head is said to add is, in order and sign, what is gone without it."""
    model, image_processor = gmar_hf.demo.load("vit")
    scene = gmar_hf.demo.scenes(1, seed=3)[0]
    images = image_processor(scene["image"], return_tensors="pt")["pixel_values"]
    target = scene["labels"][0]
    said = gmar_hf.explain(model, images, target).head_contribution[0].flatten()
    whole = logits(model, images)[0, target]
    changes = []
    for layer in range(6):
        for head in range(8):
            with silence_heads(model, [(layer, head)]):
                changes.append(whole - logits(model, images)[0, target])
    ranks = torch.stack([said, torch.stack(changes)]).argsort(dim=1).argsort(dim=1).double()
    assert torch.corrcoef(ranks)[0, 1] > 0.8


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("make", ["vit", "dinov2"])
def test_layers_that_are_computed_again_in_the_backward(make, reentrant):
    """Inside the block they are silent again; after it they would not be."""
    model = zoo.MODELS[make]()
    pixels = zoo.pixel_values(model).requires_grad_()

    def score():
        return model(pixel_values=pixels).logits.square().sum()

    with silence_heads(model, [(0, 0)]):
        score().backward()
        expected, pixels.grad = pixels.grad, None
        model.train()
        enable_checkpointing(model, use_reentrant=reentrant)
        score().backward()
        torch.testing.assert_close(pixels.grad, expected)
        late = score()
    with pytest.raises(ArgumentError, match="`model` must not compute its layers again where heads are not silent"):
        late.backward()
    model.eval()
    pixels.grad = None
    with silence_heads(model, [(0, 0)]):
        late = score()
    late.backward()
    torch.testing.assert_close(pixels.grad, expected)


@pytest.mark.parametrize("block", [lambda model: silence_heads(model, [(0, 0)]), gmar_hf.retain_attention])
def test_another_implementation_set_inside_the_block(block):
    """Nothing would be silent any longer, so forwards are refused; what was set stays."""
    model = zoo.vit()
    pixels = zoo.pixel_values(model)
    words = "`model` must keep its attention implementation inside `silence_heads` .*; got 'eager', set meanwhile"
    with block(model):
        logits(model, pixels)
        model.set_attn_implementation("eager")
        with pytest.raises(ArgumentError, match=words):
            logits(model, pixels)
        with pytest.raises(ArgumentError, match=words):
            gmar_hf.explain(model, pixels)
    assert model.config._attn_implementation == "eager"
    logits(model, pixels)


@pytest.mark.parametrize("make", ["vit", "beit_relative", "swinv2", "hiera"])
def test_attentions_that_the_model_returns(make):
    """Those of the model without the heads: the first layer's are as ever, the next see what the first has left."""
    model = {**zoo.MODELS, **zoo.STAGED}[make]()
    model.set_attn_implementation("eager")
    pixels = zoo.pixel_values(model)
    whole = model(pixel_values=pixels, output_attentions=True)
    with silence_heads(model, []):
        same = model(pixel_values=pixels, output_attentions=True)
    with silence_heads(model, [(0, 0)]):
        silent = model(pixel_values=pixels, output_attentions=True)
    assert len(silent.attentions) == len(same.attentions) == len(whole.attentions) > 1
    for ours, theirs in zip(same.attentions, whole.attentions, strict=True):
        torch.testing.assert_close(ours, theirs)
    if make != "swinv2":  # which returns those of each stage's last layer
        torch.testing.assert_close(silent.attentions[0], whole.attentions[0])
    assert not torch.allclose(silent.attentions[1], whole.attentions[1], atol=1e-6)
