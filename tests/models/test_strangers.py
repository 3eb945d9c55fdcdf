"""Models for something else than classifying images are refused by their name; modules of one's own are not."""

from __future__ import annotations

import warnings

import pytest
import torch
import transformers
from torch import nn

import gmar_hf
from gmar_hf.models.model_check import checked_model
from gmar_hf.models.tiny_models import TINY_CONFIGS
from tests.helpers.zoo import DINO, NARROW, SQUARE, TEXT, WIDE, build, pixel_values

TOWERS = {"vision_config": {**WIDE, **SQUARE}, "text_config": TEXT}


def outcome(model: nn.Module) -> str:
    """Explain an image of the first size that the model takes: "explained", or in which words it was refused."""
    reason = ""
    for size in (32, 64, 224):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                gmar_hf.explain(model, torch.rand(1, 3, size, size))
        except gmar_hf.UnsupportedModelError as error:
            return str(error)
        except gmar_hf.ArgumentError as error:
            reason = str(error)
            assert "must be" in reason  # another size
        else:
            return "explained"
    return reason


def encoder_and_decoder() -> nn.Module:
    encoder = transformers.ViTModel(transformers.ViTConfig(**NARROW, **SQUARE))
    decoder = transformers.BertConfig(**TEXT, is_decoder=True, add_cross_attention=True)
    return transformers.VisionEncoderDecoderModel(encoder=encoder, decoder=transformers.BertLMHeadModel(decoder))


VIDEO = transformers.VideoMAEConfig(**NARROW, **SQUARE, num_frames=4)
VIVIT = transformers.VivitConfig(**NARROW, image_size=32, num_frames=4, tubelet_size=[2, 8, 8])
STRANGERS = {
    "ImageGPTForImageClassification": ("it takes `input_ids`, no `pixel_values`", "imagegpt"),
    "BertForSequenceClassification": ("it takes `input_ids`, no `pixel_values`", transformers.BertConfig(**TEXT)),
    "ASTForAudioClassification": (
        "it takes `input_values`, no `pixel_values`",
        transformers.ASTConfig(**NARROW, patch_size=4, max_length=32, num_mel_bins=16),
    ),
    "VideoMAEForVideoClassification": ("it takes videos, no images", VIDEO),
    "VivitForVideoClassification": ("it takes videos, no images", VIVIT),
    "VisionEncoderDecoderModel": ("it decodes texts from images", encoder_and_decoder),
    "ViTModel": ("it returns no logits of shape (batch, classes)", transformers.ViTConfig(**NARROW, **SQUARE)),
    "Dinov2Model": ("it returns no logits of shape (batch, classes)", transformers.Dinov2Config(**DINO, **SQUARE)),
    "ViTMAEForPreTraining": (
        "its attention is not over one grid",
        transformers.ViTMAEConfig(
            **NARROW, **SQUARE, decoder_hidden_size=16, decoder_num_attention_heads=2, decoder_num_hidden_layers=1
        ),
    ),
}


@pytest.mark.parametrize("name", STRANGERS)
def test_models_for_something_else(name):
    reason, config = STRANGERS[name]
    if isinstance(config, str):
        config = transformers.AutoConfig.for_model(config, **TINY_CONFIGS[config])
    model = config().eval() if callable(config) else build(getattr(transformers, name), config)
    words = outcome(model)
    assert words.startswith(f"{name} cannot be explained: {reason}")
    assert words.endswith("Use a model like ViT, DeiT, BEiT, DINOv2, SigLIP, CLIP, I-JEPA and their kin.")
    # At the doors that have more to do first, too.
    if reason.startswith("it takes"):
        for ask in (gmar_hf.survey, gmar_hf.evaluate):
            with pytest.raises(gmar_hf.UnsupportedModelError, match=f"{name} cannot be explained: it takes"):
                ask(model, [{"pixel_values": torch.rand(3, 32, 32)}])


class Own(nn.Module):
    """A module of the user's."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, **inputs: torch.Tensor) -> object:
        if inputs["pixel_values"].min() < -100:
            raise KeyError("mine")
        return self.model(**inputs)


def test_modules_of_ones_own():
    model = build(transformers.ViTForImageClassification, transformers.ViTConfig(**NARROW, **SQUARE))
    pixels = pixel_values(model)
    own = Own(model)
    assert checked_model(own) is own
    assert torch.equal(gmar_hf.explain(own, pixels, 1).attribution, gmar_hf.explain(model, pixels, 1).attribution)
    with pytest.raises(KeyError, match="mine"):  # whose author wants to know where
        gmar_hf.explain(own, pixels - 1000, 1)
    with pytest.raises(gmar_hf.ArgumentTypeError, match="must be a transformers model or hold one; got Linear"):
        gmar_hf.explain(nn.Linear(3, 2), pixels, 1)
