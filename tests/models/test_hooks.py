"""A copy of a model that is made inside a block is the plain model: nothing of the block's, and its own weights."""

import copy
import io

import pytest
import torch

import gmar_hf
from tests.helpers import zoo

BLOCKS = {
    "silence": lambda model: gmar_hf.silence_heads(model, [(0, 0)]),
    "retain": gmar_hf.retain_attention,
}
FAMILIES = {**zoo.MODELS, **zoo.STAGED}


@pytest.mark.parametrize("make", ["vit", "beit_relative", "data2vec_vision", "clip", "swinv2", "hiera"])
@pytest.mark.parametrize("block", BLOCKS)
def test_copies_made_inside_a_block(make, block):
    model = FAMILIES[make]()
    pixels = zoo.pixel_values(model)
    plain = model(pixel_values=pixels).logits
    if block == "retain" and make in zoo.STAGED:
        block = "silence"
    with BLOCKS[block](model):
        copied = copy.deepcopy(model)
        assert torch.equal(copied(pixel_values=pixels).logits, plain)
    assert copied.config._attn_implementation == model.config._attn_implementation
    with torch.no_grad():
        for weight in copied.parameters():
            weight.mul_(0.5)
    halved = copied(pixel_values=pixels).logits
    assert not torch.equal(halved, plain)
    assert torch.equal(model(pixel_values=pixels).logits, plain)
    # It can be saved, loaded, explained and silenced as any model.
    file = io.BytesIO()
    torch.save(copied, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    assert torch.equal(loaded(pixel_values=pixels).logits, halved)
    for each in (copied, loaded):
        explained = gmar_hf.explain(each, pixels, method="contribution")
        assert torch.allclose(explained.logits, halved, atol=1e-5)
        with gmar_hf.silence_heads(each, [(0, 0)]):
            assert not torch.equal(each(pixel_values=pixels).logits, halved)


@pytest.mark.parametrize("make", ["swinv2", "data2vec_vision"])
def test_pickled_inside_a_block(make):
    model = FAMILIES[make]()
    with gmar_hf.silence_heads(model, []), pytest.raises(gmar_hf.ArgumentError, match="`model` must not be pickled"):
        torch.save(model, io.BytesIO())
    torch.save(model, io.BytesIO())
