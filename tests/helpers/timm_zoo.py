"""Tiny seeded classifiers of timm in transformers' wrapper, one per family, and their explicit run in float64.

Importable without timm; making a model needs it.
"""

from __future__ import annotations

import copy
import math
from typing import Any
from unittest.mock import patch

import torch
from transformers import PreTrainedModel

from tests.helpers import oracle, zoo

NARROW = {"embed_dim": 24, "depth": 3, "num_heads": 3, "mlp_ratio": 2}
WIDE = {"embed_dim": 32, "depth": 3, "num_heads": 4, "mlp_ratio": 2}
SQUARE = {"img_size": 32, "patch_size": 8}  # 4 x 4 patches
LANDSCAPE = {"img_size": (24, 40), "patch_size": 8}  # 3 x 5 patches

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    # Class token, read alone; and its mean and its pooling by attention; registers; a post-norm block.
    "vit": ("vit_tiny_patch16_224", {**NARROW, **LANDSCAPE, "qk_norm": True}),
    "vit_mean_registers": ("vit_base_patch16_reg4_gap_256", {**NARROW, **SQUARE, "reg_tokens": 2}),
    "vit_post_norm": ("vit_relpos_base_patch16_rpn_224", {**WIDE, **SQUARE}),
    # Two convolutions of stride 2 and 2 come before patches of 8: 32 pixels a patch.
    "vit_hybrid": ("vit_tiny_r_s16_p8_224", {**NARROW, "img_size": (64, 96)}),
    "deit": ("deit_tiny_patch16_224", {**WIDE, **SQUARE}),
    "deit_distilled": ("deit_tiny_distilled_patch16_224", {**NARROW, **LANDSCAPE}),
    "deit3": ("deit3_small_patch16_224", {**WIDE, **SQUARE}),
    "clip": ("vit_base_patch32_clip_224", {**NARROW, **SQUARE}),
    "beit": ("beit_base_patch16_224", {**NARROW, **LANDSCAPE}),
    "beitv2": ("beitv2_base_patch16_224", {**WIDE, **SQUARE}),
    "beit_shared": ("beit_base_patch16_224", {**WIDE, **SQUARE, "use_shared_rel_pos_bias": True}),
    "eva": ("eva_giant_patch14_224", {**WIDE, **SQUARE}),
    "eva02": ("eva02_tiny_patch14_224", {**NARROW, **LANDSCAPE}),
    "eva02_mean": ("eva02_base_patch14_448", {**WIDE, **SQUARE}),
    "siglip": ("vit_base_patch16_siglip_224", {**WIDE, **LANDSCAPE}),
    "siglip_mean": ("vit_base_patch16_siglip_gap_224", {**NARROW, **SQUARE}),
    "dinov2": ("vit_small_patch14_dinov2", {**NARROW, **SQUARE}),
    "dinov2_registers": ("vit_small_patch14_reg4_dinov2", {**WIDE, **LANDSCAPE}),
    "dinov3": ("vit_small_patch16_dinov3", {**WIDE, **LANDSCAPE}),
    "rope_mixed": ("vit_small_patch16_rope_mixed_224", {**WIDE, **SQUARE}),
}
"""The name of timm's architecture and what is smaller in it, by our name."""


def make(name: str, **model_args: Any) -> PreTrainedModel:
    """Build one of `MODELS` with seeded, perturbed weights, in evaluation mode."""
    architecture, own_args = MODELS[name]
    return wrap(architecture, **{**own_args, **model_args})


def wrap(architecture: str, **model_args: Any) -> PreTrainedModel:
    """Build a timm architecture in transformers' wrapper, with seeded, perturbed weights, in evaluation mode."""
    from transformers import TimmWrapperConfig, TimmWrapperForImageClassification

    config = TimmWrapperConfig(architecture=architecture, model_args=model_args, num_labels=zoo.NUM_LABELS)
    return zoo.build(TimmWrapperForImageClassification, config)


def set_fused(model: PreTrainedModel, fused: bool) -> None:
    """Set timm's `fused_attn` of every module that has one."""
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = fused


def image_size(model: PreTrainedModel) -> tuple[int, int]:
    """Return the (height, width) that the model takes."""
    return model.timm_model.patch_embed.img_size


def patch_size(model: PreTrainedModel) -> tuple[int, int]:
    """Return the (height, width) of a patch: of its convolutions, one over the other."""
    height, width = 1, 1
    for module in model.timm_model.patch_embed.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.MaxPool2d):
            stride = zoo.pair(module.stride)
            height, width = height * stride[0], width * stride[1]
    return height, width


def pixel_values(model: PreTrainedModel, batch: int = 2) -> torch.Tensor:
    """Make seeded standard normal images of the size that a model takes."""
    return zoo.pixel_values(model, batch, size=image_size(model))


class _Explicit:
    """In place of torch's `scaled_dot_product_attention`: the oracle's, kept where as many queries as keys attend."""

    def __init__(self, scale: float) -> None:
        self.layers, self.pooling = oracle.Tape(scale), oracle.Tape(1.0)

    def __call__(self, query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None):
        assert dropout_p == 0
        assert not is_causal
        tape = self.layers if query.shape[2] == key.shape[2] else self.pooling
        output, _ = tape(None, query, key, value, attn_mask, scale)
        return output.transpose(1, 2)


def explicit_reference(
    model: PreTrainedModel, pixel_values: torch.Tensor, target: Any = None, scale: float = 1.0
) -> list[oracle.Reference]:
    """Do for a timm model what `oracle.explicit_reference` does for those on transformers' attention interface."""
    explicit = copy.deepcopy(model).double().eval()
    set_fused(explicit, True)
    attention = _Explicit(scale)
    with patch("torch.nn.functional.scaled_dot_product_attention", attention), torch.enable_grad():
        images = pixel_values.detach().double().requires_grad_(True)
        hidden = explicit.timm_model.forward_features(images)
        logits = explicit.timm_model.forward_head(hidden)
    if len(attention.layers.attentions) != len(explicit.timm_model.blocks):
        raise AssertionError(f"{len(attention.layers.attentions)} attention calls")
    (height, width), (patch_height, patch_width) = images.shape[-2:], patch_size(explicit)
    grid = (math.floor(height / patch_height), math.floor(width / patch_width))
    return oracle.differentiate(attention.layers, hidden, logits, target, grid)
