"""Every class that transformers calls an image classifier is explained, or refused by its name; others are refused."""

from __future__ import annotations

import warnings

import pytest
import torch
import transformers
from torch import nn
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING

import gmar_hf
from gmar_hf.models.introspection import checked_model
from tests.helpers.zoo import DINO, NARROW, SQUARE, TEXT, WIDE, build, pixel_values

TOWERS = {"vision_config": {**WIDE, **SQUARE}, "text_config": TEXT}
STAGES = {"hidden_sizes": [8, 8, 8, 8], "depths": [1, 1, 1, 1]}
WINDOWS = {"image_size": 32, "patch_size": 4, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4}
LATENTS = {
    "num_latents": 4, "d_latents": 16, "d_model": 16, "num_blocks": 1, "num_self_attends_per_block": 1,
    "num_self_attention_heads": 2, "num_cross_attention_heads": 1, "image_size": 32,
}  # fmt: skip
LEVIT = {
    "image_size": 64, "hidden_sizes": [16, 16, 16], "num_attention_heads": [2, 2, 2], "depths": [1, 1, 1],
    "key_dim": [8, 8, 8],
}  # fmt: skip
# Tiny configs by model type; what is not here is built as its config has it.
CONFIGS = {
    **{key: {**NARROW, **SQUARE} for key in ["vit", "beit", "deit", "data2vec-vision", "vit_msn", "ijepa"]},
    **{key: {**DINO, **SQUARE} for key in ["dinov2", "dinov2_with_registers"]},
    **dict.fromkeys(["clip", "siglip", "metaclip_2"], TOWERS),
    **dict.fromkeys(["swin", "swinv2", "donut-swin"], WINDOWS),
    **dict.fromkeys(["convnext", "convnextv2", "poolformer", "resnet", "regnet"], STAGES),
    "siglip2": {"vision_config": {**WIDE, "patch_size": 8, "num_patches": 16}, "text_config": TEXT},
    "shieldgemma2": {
        "vision_config": {**WIDE, **SQUARE},
        "text_config": {**TEXT, "num_key_value_heads": 1, "head_dim": 8, "pad_token_id": 0},
        "mm_tokens_per_image": 4, "image_token_index": 7, "boi_token_index": 6, "eoi_token_index": 8,
    },
    "imagegpt": {"vocab_size": 33, "n_positions": 64, "n_embd": 16, "n_layer": 2, "n_head": 2},
    "perceiver": LATENTS,
    "levit": LEVIT,
    "hiera": {
        "embed_dim": 8, "image_size": [32, 32], "depths": [1, 1], "num_heads": [1, 2], "num_query_pool": 1,
        "masked_unit_size": [4, 4],
    },
    "pvt": {**STAGES, "image_size": 64, "num_attention_heads": [1] * 4, "sequence_reduction_ratios": [8, 4, 2, 1]},
    "pvt_v2": {**STAGES, "num_attention_heads": [1] * 4},
    "segformer": {**STAGES, "num_attention_heads": [1] * 4},
    "focalnet": {
        "image_size": 32, "embed_dim": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "focal_levels": [1, 1],
        "focal_windows": [3, 3],
    },
    "mobilevit": {"image_size": 64, "hidden_sizes": [8] * 3, "neck_hidden_sizes": [8] * 7, "num_attention_heads": 2},
    "mobilevitv2": {"image_size": 64, "base_attn_unit_dims": [8, 8, 8], "width_multiplier": 0.25},
    "swiftformer": {"image_size": 64, "depths": [1] * 4, "embed_dims": [8] * 4},
    "efficientnet": {"width_coefficient": 0.1, "depth_coefficient": 0.1, "image_size": 64, "hidden_dim": 128},
}  # fmt: skip
SERVED = {
    "BeitForImageClassification", "CLIPForImageClassification", "DeiTForImageClassification",
    "DeiTForImageClassificationWithTeacher", "Dinov2ForImageClassification",
    "Dinov2WithRegistersForImageClassification", "IJepaForImageClassification", "MetaClip2ForImageClassification",
    "SiglipForImageClassification", "ViTForImageClassification", "ViTMSNForImageClassification",
}  # fmt: skip
CLASSIFIERS = [
    (config, model)
    for config, models in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING.items()
    for model in (models if isinstance(models, tuple) else (models,))
]


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


@pytest.mark.slow
@pytest.mark.parametrize(("config", "model"), CLASSIFIERS, ids=[model.__name__ for _, model in CLASSIFIERS])
def test_every_image_classifier(config, model):
    try:
        built = build(model, config(**CONFIGS.get(config.model_type, {}), num_labels=5))
    except ImportError as error:
        pytest.skip(str(error).strip().splitlines()[0])
    words = outcome(built)
    if model.__name__ in SERVED:
        assert words == "explained"
    else:
        assert words.startswith(f"{model.__name__} cannot be explained: ")


def encoder_and_decoder() -> nn.Module:
    encoder = transformers.ViTModel(transformers.ViTConfig(**NARROW, **SQUARE))
    decoder = transformers.BertConfig(**TEXT, is_decoder=True, add_cross_attention=True)
    return transformers.VisionEncoderDecoderModel(encoder=encoder, decoder=transformers.BertLMHeadModel(decoder))


VIDEO = transformers.VideoMAEConfig(**NARROW, **SQUARE, num_frames=4)
VIVIT = transformers.VivitConfig(**NARROW, image_size=32, num_frames=4, tubelet_size=[2, 8, 8])
STRANGERS = {
    "ImageGPTForImageClassification": ("it takes `input_ids`, no `pixel_values`", "imagegpt"),
    "Siglip2ForImageClassification": ("it takes flattened patches (NaFlex), no plain images", "siglip2"),
    "BertForSequenceClassification": ("it takes `input_ids`, no `pixel_values`", transformers.BertConfig(**TEXT)),
    "ASTForAudioClassification": (
        "it takes `input_values`, no `pixel_values`",
        transformers.ASTConfig(**NARROW, patch_size=4, max_length=32, num_mel_bins=16),
    ),
    "VideoMAEForVideoClassification": ("it takes videos, no images", VIDEO),
    "VivitForVideoClassification": ("it takes videos, no images", VIVIT),
    "VisionEncoderDecoderModel": ("it decodes texts from images", encoder_and_decoder),
    "CLIPModel": ("its forward fails on images (", transformers.CLIPConfig(**TOWERS)),
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
        config = transformers.AutoConfig.for_model(config, **CONFIGS[config])
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
