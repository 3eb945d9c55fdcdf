"""An attention of the user's own is never taken for one of transformers'."""

from __future__ import annotations

import functools
import importlib.util
import itertools

import pytest
import torch
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.models.vit import modeling_vit

import gmar_hf
from tests.helpers import state, zoo

OWN = "test_implementations_own"


def half_as_sharp(module, query, key, value, attention_mask, scaling=None, **kwargs):
    return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling / 2, **kwargs)


@functools.wraps(sdpa_attention_forward)
def disguised(module, query, key, value, attention_mask, scaling=None, **kwargs):
    return half_as_sharp(module, query, key, value, attention_mask, scaling, **kwargs)


@pytest.fixture(autouse=True)
def registered():
    AttentionInterface.register(OWN, half_as_sharp)
    yield
    del AttentionInterface._global_mapping[OWN]


def silence(model, pixels):
    with gmar_hf.silence_heads(model, [(0, 0)]):
        model(pixel_values=pixels)


def retain(model, pixels):
    with gmar_hf.retain_attention(model):
        model(pixel_values=pixels)


DOORS = {
    "explain": gmar_hf.explain,
    "describe_heads": gmar_hf.describe_heads,
    "silence_heads": silence,
    "retain_attention": retain,
    "head_ablation": lambda model, pixels: gmar_hf.metrics.head_ablation(model, pixels, torch.tensor([1, 1])),
    "centred": lambda model, pixels: gmar_hf.centred_head_contribution(model, pixels, reference=pixels),
    "survey": lambda model, pixels: gmar_hf.survey(model, [{"pixel_values": image} for image in pixels]),
    "evaluate": lambda model, pixels: gmar_hf.evaluate(
        model, [{"pixel_values": image} for image in pixels], methods=["gmar"], metrics=["deletion"]
    ),
}


@pytest.mark.parametrize("door", DOORS)
def test_refused_at_every_door(door):
    model = zoo.MODELS["vit"]()
    pixels = zoo.pixel_values(model)
    model.set_attn_implementation(OWN)
    before = state.snapshot(model)
    with pytest.raises(gmar_hf.UnsupportedModelError) as caught:
        DOORS[door](model, pixels)
    assert str(caught.value) == (
        "ViTForImageClassification cannot be explained: its attention implementation 'test_implementations_own' is "
        "none of transformers' own, but half_as_sharp of tests.models.test_implementations, and may compute another "
        'attention. Call `model.set_attn_implementation("sdpa")` if that gives the same logits.'
    )
    assert state.snapshot(model) == before


@pytest.mark.parametrize(
    ("name", "function"),
    [*itertools.product(("sdpa", "eager"), (half_as_sharp, disguised, functools.partial(disguised)))],
)
def test_under_the_name_of_transformers_own(name, function, monkeypatch):
    model = zoo.MODELS["vit"]()
    model.set_attn_implementation(name)
    monkeypatch.setitem(AttentionInterface._global_mapping, name, function)
    with pytest.raises(gmar_hf.UnsupportedModelError, match=f"its attention implementation '{name}' is none of"):
        gmar_hf.explain(model, zoo.pixel_values(model))


def test_eager_attention_replaced_in_its_module(monkeypatch):
    model = zoo.MODELS["vit"]()
    monkeypatch.setattr(modeling_vit, "eager_attention_forward", half_as_sharp)
    gmar_hf.explain(model, zoo.pixel_values(model))  # it is not called
    model.set_attn_implementation("eager")
    with pytest.raises(gmar_hf.UnsupportedModelError, match="'eager' is none of transformers' own, but half_as_sharp"):
        gmar_hf.explain(model, zoo.pixel_values(model))


@pytest.mark.parametrize("implementation", ["sdpa", "eager", "flash_attention_2", "flex_attention", "paged|eager"])
def test_transformers_own(implementation):
    model = zoo.MODELS["vit"]()
    pixels = zoo.pixel_values(model)
    expected = gmar_hf.explain(model, pixels).attribution
    model.config._attn_implementation_internal = implementation  # without a look for devices and packages
    assert torch.equal(gmar_hf.explain(model, pixels).attribution, expected)


def test_a_forward_replaced_in_a_class_off_the_interface(monkeypatch):
    model = zoo.data2vec_vision()
    attention = next(module for module in model.modules() if type(module).__name__.endswith("SelfAttention"))
    own = type(attention).forward
    monkeypatch.setattr(type(attention), "forward", lambda self, *args, **kwargs: own(self, *args, **kwargs))
    with pytest.raises(gmar_hf.UnsupportedModelError, match="cannot be explained"):
        gmar_hf.explain(model, zoo.pixel_values(model))


def test_a_class_of_a_file_that_was_loaded_by_hand(tmp_path):
    path = tmp_path / "own_model.py"
    path.write_text(
        "from transformers import ViTForImageClassification\n"
        "class Own(ViTForImageClassification):\n"
        "    def forward(self, pixel_values=None, **kwargs):\n"
        "        return super().forward(pixel_values=pixel_values, **kwargs)\n"
    )
    spec = importlib.util.spec_from_file_location("own_model_of_a_test", path)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    model = zoo.vit()
    own = loaded.Own(model.config).eval()
    own.load_state_dict(model.state_dict())
    images = zoo.pixel_values(model)
    assert torch.equal(gmar_hf.explain(own, images, 1).attribution, gmar_hf.explain(model, images, 1).attribution)
