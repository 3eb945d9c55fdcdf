"""Tiny configs of the architectures of transformers, a row a model type, and random models made from them.

With these an architecture can be tried without weights and without network. Nothing here knows which are explained.
"""

from typing import Any

import torch
from torch import nn

# 3 heads of 8 channels and 4 heads of 8: an exchange of heads, layers or channels changes a shape somewhere.
NARROW = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 40}
WIDE = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
DINO = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4, "mlp_ratio": 2}
SQUARE = {"image_size": 32, "patch_size": 8}  # 4 x 4 patches
# Classifiers of SigLIP and CLIP build no text tower, but their configs have one.
TEXT = {**NARROW, "vocab_size": 16, "max_position_embeddings": 4, "bos_token_id": 0, "eos_token_id": 1}

_TOWERS = {"vision_config": {**WIDE, **SQUARE}, "text_config": TEXT}
_PROJECTED = {**_TOWERS, "projection_dim": 8}
_BERT = {**TEXT, "pad_token_id": 0, "max_position_embeddings": 8}
_STAGES = {"hidden_sizes": [8, 8, 8, 8], "depths": [1, 1, 1, 1]}
_WINDOWS = {
    "image_size": 32, "patch_size": 4, "embed_dim": 16, "depths": [2, 1], "num_heads": [2, 4], "window_size": 4,
}  # fmt: skip
_EFFICIENT = {"width_coefficient": 0.1, "depth_coefficient": 0.1, "image_size": 64, "hidden_dim": 128}

TINY_CONFIGS: dict[str, dict[str, Any]] = {
    **{name: {**NARROW, **SQUARE} for name in ("vit", "deit", "vit_msn", "ijepa")},
    # Relative positions in every layer: a bias that is dropped or a transposed table must not go unseen.
    **{name: {**NARROW, **SQUARE, "use_relative_position_bias": True} for name in ("beit", "data2vec-vision")},
    **{name: {**DINO, **SQUARE} for name in ("dinov2", "dinov2_with_registers")},
    **dict.fromkeys(("clip", "metaclip_2", "chinese_clip", "clipseg"), _PROJECTED),
    "siglip": {**_TOWERS, "text_config": {**TEXT, "projection_size": 32}},
    **dict.fromkeys(("swin", "swinv2", "donut-swin"), _WINDOWS),
    **dict.fromkeys(("convnext", "convnextv2", "poolformer", "resnet", "regnet"), _STAGES),
    "bit": {**_STAGES, "hidden_sizes": [32, 32, 32, 32], "embedding_size": 32, "num_groups": 8},
    "cvt": {"embed_dim": [8, 8, 8], "num_heads": [1, 1, 1], "depth": [1, 2, 3]},
    "siglip2": {
        "vision_config": {**WIDE, "patch_size": 8, "num_patches": 16}, "text_config": {**TEXT, "projection_size": 32},
    },
    "shieldgemma2": {
        "vision_config": {**WIDE, **SQUARE},
        "text_config": {**TEXT, "num_key_value_heads": 1, "head_dim": 8, "pad_token_id": 0},
        "mm_tokens_per_image": 4, "image_token_index": 7, "boi_token_index": 6, "eoi_token_index": 8,
    },
    "imagegpt": {"vocab_size": 33, "n_positions": 64, "n_embd": 16, "n_layer": 2, "n_head": 2},
    "perceiver": {
        "num_latents": 4, "d_latents": 16, "d_model": 16, "num_blocks": 1, "num_self_attends_per_block": 1,
        "num_self_attention_heads": 2, "num_cross_attention_heads": 1, "image_size": 32,
    },
    "levit": {
        "image_size": 64, "hidden_sizes": [16, 16, 16], "num_attention_heads": [2, 2, 2], "depths": [1, 1, 1],
        "key_dim": [8, 8, 8],
    },
    "hiera": {
        "embed_dim": 8, "image_size": [32, 32], "depths": [1, 1], "num_heads": [1, 2], "num_query_pool": 1,
        "masked_unit_size": [4, 4],
    },
    "pvt": {**_STAGES, "image_size": 64, "num_attention_heads": [1] * 4, "sequence_reduction_ratios": [8, 4, 2, 1]},
    **{
        name: {**_STAGES, "num_attention_heads": [1, 2, 2, 2], "sr_ratios": [4, 2, 1, 1]}
        for name in ("pvt_v2", "segformer")
    },
    "focalnet": {
        "image_size": 32, "embed_dim": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "focal_levels": [1, 1],
        "focal_windows": [3, 3],
    },
    "mobilevit": {"image_size": 64, "hidden_sizes": [8] * 3, "neck_hidden_sizes": [8] * 7, "num_attention_heads": 2},
    "mobilevitv2": {"image_size": 64, "base_attn_unit_dims": [8, 8, 8], "width_multiplier": 0.25},
    "swiftformer": {"image_size": 64, "depths": [1] * 4, "embed_dims": [8] * 4},
    "efficientnet": _EFFICIENT,
    "timm_wrapper": {
        "architecture": "vit_tiny_patch16_224",
        "model_args": {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 3},
    },
    "align": {"vision_config": _EFFICIENT, "text_config": _BERT, "projection_dim": 8},
    "altclip": {"vision_config": {**WIDE, **SQUARE}, "text_config": {**_BERT, "project_dim": 8}, "projection_dim": 8},
    "blip": {**_PROJECTED, "text_config": {**_BERT, "encoder_hidden_size": 32}, "image_text_hidden_size": 8},
    "tipsv2": {"vision_config": {**DINO, **SQUARE}, "text_config": _BERT},
    "videoprism": {
        "vision_config": {
            "hidden_size": 24, "num_attention_heads": 3, "intermediate_size": 40, "image_size": 32, "num_frames": 2,
            "tubelet_size": [1, 8, 8], "num_spatial_layers": 1, "num_temporal_layers": 1, "num_auxiliary_layers": 1,
        },
        "text_config": _BERT,
    },
    "blip-2": {
        "vision_config": {**WIDE, **SQUARE}, "qformer_config": {**_BERT, "encoder_hidden_size": 32},
        "text_config": {"model_type": "opt", **TEXT, "ffn_dim": 40, "word_embed_proj_dim": 24},
        "num_query_tokens": 2, "image_text_hidden_size": 8,
    },
}  # fmt: skip
"""Arguments of the config by model type; a type that is not here is small as its config has it."""


def perturb(model: nn.Module, seed: int = 0, std: float = 0.2) -> None:
    """Add seeded Gaussian noise to every parameter, in place.

    Transformers starts biases, class tokens, relative-position tables and layer scales at zero or at one constant, and
    a model of that kind hides mistakes: a bias that is dropped or a transposed table changes nothing.

    Args:
        model (`nn.Module`): The model to change.
        seed (`int`, defaults to 0): Seed of the noise.
        std (`float`, defaults to 0.2): Standard deviation of the noise. 0.2 gives projections of 24 to 32 channels a
            gain of about one, so that attention is neither uniform nor one-hot.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator, device="cpu").to(parameter) * std)


def build(model_class: Any, config: Any, seed: int = 0, std: float = 0.2) -> Any:
    """Build a model in evaluation mode with seeded, perturbed weights; the global random state is left as it was.

    Args:
        model_class (`type`): A class such as `ViTForImageClassification`.
        config (`PreTrainedConfig`): One of its own: models that share one also switch their attention together.
        seed (`int`, defaults to 0): Seed of the initial weights and of the noise.
        std (`float`, defaults to 0.2): Standard deviation of the noise.

    Returns:
        `PreTrainedModel`: In float32 on the CPU.

    Raises:
        ImportError: If the architecture needs a package that is not installed.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = model_class(config)
    perturb(model, seed, std)
    return model.eval()


def tiny_model(model_class: Any, config_class: Any, num_labels: int = 5) -> Any:
    """Build a random model of an architecture, tiny where `TINY_CONFIGS` has a row for it.

    Args:
        model_class (`type`): A class such as `ViTForImageClassification`.
        config_class (`type`): The class of its config.
        num_labels (`int`, defaults to 5): How many classes it has.

    Returns:
        `PreTrainedModel`: See [`build`].

    Raises:
        ImportError: If the architecture needs a package that is not installed.
    """
    return build(model_class, config_class(**TINY_CONFIGS.get(config_class.model_type, {}), num_labels=num_labels))
