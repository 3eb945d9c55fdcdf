"""A map lies where the patches are, or the model is refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import interpolate, pad

import gmar_hf
from tests.helpers import state, zoo

MEAN = torch.tensor([0.5, 0.4, 0.3]).reshape(3, 1, 1)


class Around(nn.Module):
    """Changes the pixels before its classifier gets them."""

    def __init__(self, model, change):
        super().__init__()
        self.model, self.change = model, change

    @property
    def config(self):
        return self.model.config

    def forward(self, pixel_values):
        return self.model(pixel_values=self.change(pixel_values), interpolate_pos_encoding=True)


MOVED = {
    "flipped": lambda pixels: pixels.flip(-1),
    "rolled": lambda pixels: pixels.roll(8, dims=-2),
    "blurred": lambda pixels: (pixels + pixels.roll(1, dims=-1)) / 2,
    "shuffled": lambda pixels: pixels.flip(0),
}
RESIZED = {
    "padded": lambda pixels: pad(pixels, (8, 8, 8, 8))[..., :40, :40],
    "halved": lambda pixels: pixels[..., ::2, ::2],
    "enlarged": lambda pixels: interpolate(pixels, scale_factor=2),
}
NORMALISED = {
    "as it is": lambda pixels: pixels,
    "mean and deviation": lambda pixels: (pixels - MEAN) / 0.25,
    "other order of channels": lambda pixels: 255 * pixels.flip(1),
    "rounded": lambda pixels: pixels.bfloat16().float(),
}


@pytest.mark.parametrize("name", [*MOVED, *RESIZED])
def test_pixels_changed_before_the_patches(name):
    model = Around(zoo.vit(), {**MOVED, **RESIZED}[name])
    pixels = torch.randn(2, 3, 32, 32)
    before = state.snapshot(model)
    words = "moved or otherwise changed" if name in MOVED else r"resized, cut or padded to \(2, 3, "
    with pytest.raises(gmar_hf.UnsupportedModelError, match=words):
        gmar_hf.explain(model, pixels)
    assert state.snapshot(model) == before


@pytest.mark.parametrize("name", NORMALISED)
def test_pixels_that_are_normalised(name):
    inner, pixels = zoo.vit(), torch.randn(2, 3, 32, 32)
    seen = NORMALISED[name](pixels)
    expected = gmar_hf.explain(inner, seen, method="contribution", interpolate_pos_encoding=True)
    actual = gmar_hf.explain(Around(inner, NORMALISED[name]), pixels, method="contribution")
    assert torch.equal(actual.attribution, expected.attribution)


@pytest.mark.parametrize("name", ["vit", "swin"])
def test_a_hook_on_the_patch_embedding(name):
    model = getattr(zoo, name)()
    embedding = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    embedding.register_forward_pre_hook(lambda module, inputs: inputs[0].flip(-1))
    with pytest.raises(gmar_hf.UnsupportedModelError, match="its patch embedding gets other pixels than"):
        gmar_hf.explain(model, zoo.pixel_values(model), method="contribution")


TOKENS = {
    "behind": lambda hidden: torch.cat([hidden, torch.zeros_like(hidden[:, :2])], dim=1),
    "reversed": lambda hidden: hidden.flip(1),
    "columns first": lambda hidden: torch.cat(
        [hidden[:, :1], hidden[:, 1:].unflatten(1, (4, 4)).transpose(1, 2).flatten(1, 2)], dim=1
    ),
}


@pytest.mark.parametrize("method", ["gmar", "contribution", "attention"])
@pytest.mark.parametrize("name", TOKENS)
def test_tokens_elsewhere(name, method):
    model = zoo.vit()
    model.vit.embeddings.register_forward_hook(lambda module, inputs, output: TOKENS[name](output))
    with pytest.raises(gmar_hf.UnsupportedModelError, match=r"of its 1[79] tokens are not the patches, row by row"):
        gmar_hf.explain(model, zoo.pixel_values(model), method=method)


def test_prompts_before_the_patches():
    model = zoo.vit()
    prompts = torch.randn(1, 3, model.config.hidden_size)
    model.vit.embeddings.register_forward_hook(
        lambda module, inputs, output: torch.cat(
            [output[:, :1], prompts.expand(len(output), -1, -1), output[:, 1:]], 1
        )
    )
    explanation = gmar_hf.explain(model, zoo.pixel_values(model))
    assert explanation.settings["grid"] == {"prefix": 4, "rows": 4, "cols": 4}
