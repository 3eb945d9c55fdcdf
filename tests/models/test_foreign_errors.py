"""What torch or Python would say in words of its own, said in ours."""

from __future__ import annotations

import copy
import io
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import gmar_hf
from gmar_hf.explanation.parity import check_parity
from tests.helpers import zoo
from tests.helpers.state import snapshot


class Around(nn.Module):
    def __init__(self):
        super().__init__()
        self.model = zoo.vit()
        self.config = self.model.config


class TakesImages(Around):
    def forward(self, images):
        return self.model(pixel_values=images)


class WithoutGradients(Around):
    def forward(self, pixel_values):
        with torch.inference_mode():
            return self.model(pixel_values=pixel_values)


class WithAnErrorOfItsOwn(Around):
    """Its config has no `image_size`, as that of a model of any size may."""

    def __init__(self):
        super().__init__()
        self.config = SimpleNamespace(patch_size=8, num_hidden_layers=3, num_attention_heads=4)

    def forward(self, pixel_values):
        raise ValueError("only at night")


def test_errors_of_a_module_are_not_about_sizes():
    with pytest.raises(ValueError, match=r"^only at night$"):
        gmar_hf.explain(WithAnErrorOfItsOwn(), torch.randn(2, 3, 32, 32))


@pytest.mark.parametrize("ask", [gmar_hf.explain, gmar_hf.describe_heads, gmar_hf.metrics.head_ablation])
@pytest.mark.parametrize("name", ["TakesImages", "Sequential"])
def test_no_pixel_values(name, ask):
    model = TakesImages() if name == "TakesImages" else nn.Sequential(zoo.vit())
    taken = "images" if name == "TakesImages" else "input"
    with pytest.raises(gmar_hf.ArgumentTypeError, match=f"is called with `pixel_values` .*; {name} takes `{taken}`"):
        ask(model, torch.randn(2, 3, 32, 32))


def test_inference_mode_inside():
    with pytest.raises(gmar_hf.UnsupportedModelError, match=r"\(Conv2d\) computes inside `torch.inference_mode`"):
        gmar_hf.explain(WithoutGradients(), torch.randn(2, 3, 32, 32))


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (lambda logits: None, "got NoneType"),
        (lambda logits: logits.detach().numpy()[:, 0], "got ndarray"),
    ],
)
def test_targets_that_are_no_scores(target, words):
    with pytest.raises(gmar_hf.ArgumentError, match=words):
        gmar_hf.explain(zoo.vit(), torch.randn(2, 3, 32, 32), target)


@pytest.mark.parametrize("block", [gmar_hf.retain_attention, lambda model: gmar_hf.silence_heads(model, [(0, 0)])])
def test_pickled_inside_a_block(block):
    model, pixels = zoo.vit(), torch.randn(2, 3, 32, 32)
    with block(model):
        with pytest.raises(gmar_hf.ArgumentError, match=r"`model` must not be pickled \(as by `torch.save`\) inside"):
            torch.save(model, io.BytesIO())
        copied = copy.deepcopy(model)
    assert torch.equal(copied(pixel_values=pixels).logits, model(pixel_values=pixels).logits)
    torch.save(model, io.BytesIO())


def test_noise_that_is_always_on():
    model, pixels = zoo.vit(), torch.randn(2, 3, 32, 32)
    assert check_parity(model, pixels).is_steady
    model.vit.layernorm.register_forward_hook(lambda module, inputs, output: nn.functional.dropout(output, 0.2))
    parity = check_parity(model, pixels)
    assert parity.noise > 0.01
    assert not parity.agrees


class ReadsItsAttention(nn.Module):
    """Adds to the logits what it reads of the last layer's probabilities, or fails by itself."""

    def __init__(self, model, *, fails=False):
        super().__init__()
        self.model, self.config, self.fails = model, model.config, fails

    def forward(self, pixel_values):
        output = self.model(pixel_values=pixel_values, output_attentions=True)
        output.logits = output.logits + output.attentions[-1].mean()
        return output.attentions[7] if self.fails else output


def test_a_module_that_reads_its_attention():
    """By itself it computes; recorded, it finds no probabilities, and so has no explanation."""
    model, pixels = zoo.vit(), torch.randn(2, 3, 32, 32)
    model.set_attn_implementation("eager")
    ReadsItsAttention(model)(pixels)  # for which transformers adds hooks of its own
    before = snapshot(model)
    with pytest.raises(gmar_hf.UnsupportedModelError, match="it may read attention probabilities, which are not made"):
        gmar_hf.explain(ReadsItsAttention(model), pixels)
    with pytest.raises(IndexError):  # its author's
        gmar_hf.explain(ReadsItsAttention(model, fails=True), pixels)
    assert snapshot(model) == before
