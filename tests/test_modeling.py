"""The ready classes are the plain models, with two methods more, and leave plain checkpoints behind."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import AutoConfig, AutoModelForImageClassification, ViTForImageClassification

import gmar_hf
from tests.helpers import zoo

CLASSES = {
    "vit": gmar_hf.GMARViTForImageClassification,
    "deit": gmar_hf.GMARDeiTForImageClassification,
    "deit_teacher": gmar_hf.GMARDeiTForImageClassificationWithTeacher,
    "beit_relative": gmar_hf.GMARBeitForImageClassification,
}


@pytest.fixture(params=sorted(CLASSES))
def name(request) -> str:
    return request.param


@pytest.fixture
def plain(name):
    return zoo.MODELS[name]()


@pytest.fixture
def ready(name, plain, tmp_path):
    plain.save_pretrained(tmp_path / "plain")
    model, info = CLASSES[name].from_pretrained(tmp_path / "plain", output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return model


class TestReadyClasses:
    def test_a_plain_checkpoint_loads(self, plain, ready):
        pixels = zoo.pixel_values(plain)
        assert not ready.training
        assert isinstance(ready, type(plain))
        with torch.no_grad():
            assert torch.equal(ready(pixel_values=pixels).logits, plain(pixel_values=pixels).logits)

    def test_explain(self, plain, ready):
        pixels = zoo.pixel_values(plain)
        found = ready.explain(pixels, 1, "contribution", start_layer=1)
        expected = gmar_hf.explain(plain, pixels, 1, "contribution", start_layer=1)
        assert torch.equal(found.attribution, expected.attribution)
        assert found.settings["model_class"] == type(ready).__name__

    def test_retain_attention(self, plain, ready):
        pixels = zoo.pixel_values(plain)
        with ready.retain_attention() as attentions:
            ready(pixel_values=pixels).logits[:, 1].sum().backward()
        with gmar_hf.retain_attention(plain) as expected:
            plain(pixel_values=pixels).logits[:, 1].sum().backward()
        for attention, other in zip(attentions, expected, strict=True):
            assert torch.equal(attention, other)
            assert torch.equal(attention.grad, other.grad)

    def test_what_it_saves_is_plain(self, name, plain, ready, tmp_path):
        """By a name that is not its own, Auto classes build a DeiT with teacher as one without, its head made anew."""
        ready.save_pretrained(tmp_path / "saved")
        assert AutoConfig.from_pretrained(tmp_path / "saved").architectures == [type(plain).__name__]
        config = json.loads((tmp_path / "saved" / "config.json").read_text())
        assert config == json.loads((tmp_path / "plain" / "config.json").read_text())
        expected = type(plain)
        for loader in (AutoModelForImageClassification, expected, CLASSES[name]):
            if name == "deit_teacher" and loader is AutoModelForImageClassification:
                loaded = loader.from_pretrained(tmp_path / "saved")
                assert type(loaded) is expected
            loaded, info = loader.from_pretrained(tmp_path / "saved", output_loading_info=True)
            assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
            assert isinstance(loaded, expected)
            for key, tensor in plain.state_dict().items():
                assert torch.equal(loaded.state_dict()[key], tensor), key

    def test_saving_leaves_the_model_as_it_is(self, name, ready, tmp_path):
        pixels = zoo.pixel_values(ready)
        before = ready.explain(pixels).attribution
        ready.save_pretrained(tmp_path / "saved", max_shard_size="20KB")
        assert type(ready) is CLASSES[name]
        assert len(list((tmp_path / "saved").glob("*.safetensors"))) > 1
        assert torch.equal(ready.explain(pixels).attribution, before)

    def test_trains_like_any_model(self, ready):
        ready.train()
        ready(pixel_values=zoo.pixel_values(ready)).logits.sum().backward()
        assert ready.training
        assert ready.base_model.layers[0].attention.v_proj.weight.grad.abs().max() > 0


class TestMixin:
    def test_of_a_users_own_class(self, tmp_path):
        class Deeper(ViTForImageClassification):
            pass

        class Own(gmar_hf.AttentionRetentionMixin, Deeper):
            pass

        class Further(Own):
            pass

        model = zoo.build(Further, zoo.vit().config)
        model.save_pretrained(tmp_path)
        # What the mixin was mixed into has its own name; without the mixin it would have been the same.
        assert AutoConfig.from_pretrained(tmp_path).architectures == ["Deeper"]
        assert model.explain(zoo.pixel_values(model)).attribution.shape == (2, 4, 4)

    def test_a_class_with_its_own_save(self, tmp_path):
        class Loud(ViTForImageClassification):
            def save_pretrained(self, *args, **kwargs):
                saved.append(type(self).__name__)
                super().save_pretrained(*args, **kwargs)

        class Own(gmar_hf.AttentionRetentionMixin, Loud):
            pass

        saved: list[str] = []
        model = zoo.build(Own, zoo.vit().config)
        model.save_pretrained(tmp_path)
        assert saved == ["Loud"]
        assert (tmp_path / "model.safetensors").is_file()

    def test_docstrings_and_signatures(self):
        for method in ("explain", "retain_attention", "save_pretrained"):
            assert getattr(gmar_hf.AttentionRetentionMixin, method).__doc__
