"""Tiny seeded image classifiers, one per family, built from configurations alone: no network, no weights.

Every parameter carries noise. Transformers starts biases, class tokens, relative-position tables and layer scales at
zero or at one constant, and a model of that kind hides mistakes: a bias that is dropped or a transposed table changes
nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from transformers import (
    BeitConfig,
    BeitForImageClassification,
    CLIPConfig,
    CLIPForImageClassification,
    ConvNextConfig,
    ConvNextForImageClassification,
    Data2VecVisionConfig,
    Data2VecVisionForImageClassification,
    DeiTConfig,
    DeiTForImageClassification,
    DeiTForImageClassificationWithTeacher,
    Dinov2Config,
    Dinov2ForImageClassification,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersForImageClassification,
    DonutSwinConfig,
    HieraConfig,
    HieraForImageClassification,
    IJepaConfig,
    IJepaForImageClassification,
    PreTrainedConfig,
    PreTrainedModel,
    PvtConfig,
    PvtForImageClassification,
    PvtV2Config,
    PvtV2ForImageClassification,
    ResNetConfig,
    ResNetForImageClassification,
    SegformerConfig,
    SegformerForImageClassification,
    SiglipConfig,
    SiglipForImageClassification,
    SwinConfig,
    SwinForImageClassification,
    Swinv2Config,
    Swinv2ForImageClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTMSNConfig,
    ViTMSNForImageClassification,
)
from transformers.models.donut.modeling_donut_swin import DonutSwinForImageClassification

from gmar_hf.models.tiny_models import DINO, NARROW, SQUARE, TEXT, WIDE, build
from gmar_hf.models.tiny_models import perturb as perturb  # for the tests

NUM_LABELS = 5
NUM_REGISTERS = 2

TALL_PATCHES = {"image_size": 32, "patch_size": (8, 4)}  # 4 x 8 patches of a square image
LANDSCAPE = {"image_size": (24, 40), "patch_size": 8}  # 3 x 5 patches


def vit() -> PreTrainedModel:
    """ViT, 4 x 4 patches."""
    return build(ViTForImageClassification, ViTConfig(**NARROW, **SQUARE, num_labels=NUM_LABELS))


def vit_landscape() -> PreTrainedModel:
    """ViT on 24 x 40 pixels, 3 x 5 patches."""
    return build(ViTForImageClassification, ViTConfig(**WIDE, **LANDSCAPE, num_labels=NUM_LABELS))


def deit() -> PreTrainedModel:
    """DeiT with patches of 8 x 4 pixels, 4 x 8 of them: CLS and distillation token, only CLS is read."""
    return build(DeiTForImageClassification, DeiTConfig(**WIDE, **TALL_PATCHES, num_labels=NUM_LABELS))


def deit_teacher() -> PreTrainedModel:
    """DeiT whose logits average the heads of the CLS and of the distillation token, 3 x 5 patches."""
    return build(DeiTForImageClassificationWithTeacher, DeiTConfig(**NARROW, **LANDSCAPE, num_labels=NUM_LABELS))


def beit_absolute() -> PreTrainedModel:
    """BEiT with absolute positions, mean pooling (these positions need a square image)."""
    config = BeitConfig(**NARROW, **SQUARE, num_labels=NUM_LABELS, use_absolute_position_embeddings=True)
    return build(BeitForImageClassification, config)


def beit_relative() -> PreTrainedModel:
    """BEiT with a relative bias in every layer, mean pooling, 3 x 5 patches."""
    config = BeitConfig(**WIDE, **LANDSCAPE, num_labels=NUM_LABELS, use_relative_position_bias=True)
    return build(BeitForImageClassification, config)


def beit_shared() -> PreTrainedModel:
    """BEiT with one relative bias that all layers share, mean pooling, 4 x 4 patches."""
    config = BeitConfig(**WIDE, **SQUARE, num_labels=NUM_LABELS, use_shared_relative_position_bias=True)
    return build(BeitForImageClassification, config)


def beit_relative_cls() -> PreTrainedModel:
    """BEiT with a relative bias in every layer whose head reads the CLS token, 4 x 4 patches."""
    config = BeitConfig(
        **NARROW, **SQUARE, num_labels=NUM_LABELS, use_relative_position_bias=True, use_mean_pooling=False
    )
    return build(BeitForImageClassification, config)


def beit_both_cls() -> PreTrainedModel:
    """BEiT with absolute positions, the shared bias and one more per layer, CLS pooling, 4 x 4 patches."""
    config = BeitConfig(
        **WIDE,
        **SQUARE,
        num_labels=NUM_LABELS,
        use_absolute_position_embeddings=True,
        use_shared_relative_position_bias=True,
        use_relative_position_bias=True,
        use_mean_pooling=False,
    )
    return build(BeitForImageClassification, config)


def dinov2() -> PreTrainedModel:
    """DINOv2 with patches of 8 x 4 pixels: the head reads CLS and the mean of the patches."""
    return build(Dinov2ForImageClassification, Dinov2Config(**DINO, **TALL_PATCHES, num_labels=NUM_LABELS))


def dinov2_registers() -> PreTrainedModel:
    """DINOv2 with two register tokens between CLS and the patches, 4 x 4 patches."""
    config = Dinov2WithRegistersConfig(
        **DINO, **SQUARE, num_labels=NUM_LABELS, num_register_tokens=NUM_REGISTERS, use_swiglu_ffn=True
    )
    return build(Dinov2WithRegistersForImageClassification, config)


def siglip() -> PreTrainedModel:
    """SigLIP image classifier: no prefix token, mean of all tokens."""
    config = SiglipConfig(vision_config={**WIDE, **SQUARE}, text_config=TEXT, num_labels=NUM_LABELS)
    return build(SiglipForImageClassification, config)


def clip() -> PreTrainedModel:
    """CLIP image classifier: a CLS token that the head does not read, mean of the patches."""
    config = CLIPConfig(vision_config={**WIDE, **SQUARE}, text_config=TEXT, projection_dim=8, num_labels=NUM_LABELS)
    return build(CLIPForImageClassification, config)


def ijepa() -> PreTrainedModel:
    """I-JEPA: no prefix token, mean of all tokens, 3 x 5 patches."""
    return build(IJepaForImageClassification, IJepaConfig(**NARROW, **LANDSCAPE, num_labels=NUM_LABELS))


def vit_msn() -> PreTrainedModel:
    """ViT-MSN with patches of 8 x 4 pixels."""
    return build(ViTMSNForImageClassification, ViTMSNConfig(**NARROW, **TALL_PATCHES, num_labels=NUM_LABELS))


def data2vec_vision() -> PreTrainedModel:
    """Data2VecVision with a relative bias in every layer, mean pooling: its attention is off the interface."""
    config = Data2VecVisionConfig(**NARROW, **SQUARE, num_labels=NUM_LABELS, use_relative_position_bias=True)
    return build(Data2VecVisionForImageClassification, config)


def data2vec_vision_both_cls() -> PreTrainedModel:
    """Data2VecVision with the shared bias and one more per layer, CLS pooling, 4 x 4 patches."""
    config = Data2VecVisionConfig(
        **WIDE,
        **SQUARE,
        num_labels=NUM_LABELS,
        use_shared_relative_position_bias=True,
        use_relative_position_bias=True,
        use_mean_pooling=False,
    )
    return build(Data2VecVisionForImageClassification, config)


WINDOWS = {"patch_size": 4, "embed_dim": 16, "num_labels": NUM_LABELS}
# 8 x 8 patches in windows of 4 x 4, the second layer's shifted; then 4 x 4 merged tokens in one window.
EVEN_WINDOWS = {**WINDOWS, "image_size": 32, "depths": (2, 1), "num_heads": (2, 4), "window_size": 4}
# 7 x 9 patches, 4 x 5 and 2 x 3 merged tokens, padded to windows of 2 x 2 and, for the merging, to even numbers.
PADDED_WINDOWS = {
    **WINDOWS, "image_size": (28, 36), "depths": (2, 2, 1), "num_heads": (1, 2, 4), "window_size": 2,
}  # fmt: skip


def swin() -> PreTrainedModel:
    """Swin: attention inside windows, tokens merged between stages, layers of 2 and of 4 heads."""
    return build(SwinForImageClassification, SwinConfig(**EVEN_WINDOWS))


def swin_padded() -> PreTrainedModel:
    """Swin whose maps are padded to whole windows, layers of 1, 2 and 4 heads."""
    return build(SwinForImageClassification, SwinConfig(**PADDED_WINDOWS))


def swinv2() -> PreTrainedModel:
    """Swin v2: cosine attention inside windows, off the attention interface."""
    return build(Swinv2ForImageClassification, Swinv2Config(**EVEN_WINDOWS))


def swinv2_padded() -> PreTrainedModel:
    """Swin v2 whose maps are padded to whole windows, which were of other sizes when it was trained first."""
    config = Swinv2Config(**PADDED_WINDOWS, pretrained_window_sizes=(4, 4, 4))
    return build(Swinv2ForImageClassification, config)


def donut_swin() -> PreTrainedModel:
    """Donut's Swin, off the attention interface, with padding."""
    return build(DonutSwinForImageClassification, DonutSwinConfig(**PADDED_WINDOWS))


HIERA = {"embed_dim": 16, "num_labels": NUM_LABELS}
# 8 x 8 patches in mask units of 4 x 4, then merged by 2 x 2.
TWO_STAGES = {
    "image_size": (32, 32), "depths": (1, 1), "num_heads": (2, 4), "num_query_pool": 1, "masked_unit_size": (4, 4),
}  # fmt: skip


def hiera() -> PreTrainedModel:
    """Hiera: 8 x 12 patches in mask units of 4 x 4, merged by 2 x 2 twice, then attention over all tokens."""
    config = HieraConfig(
        **HIERA,
        image_size=(32, 48),
        depths=(1, 2, 1),
        num_heads=(1, 2, 4),
        num_query_pool=2,
        masked_unit_size=(4, 4),
        masked_unit_attention=(True, True, False),
    )
    return build(HieraForImageClassification, config)


def hiera_unmerged() -> PreTrainedModel:
    """Hiera of 8 x 8 patches, merged by 2 x 1 half as often as they are put in order for, with windows at its end."""
    config = HieraConfig(
        **HIERA,
        image_size=(24, 16),
        patch_size=(3, 2),
        patch_stride=(3, 2),
        patch_padding=(0, 0),
        depths=(2, 1, 2),
        num_heads=(2, 2, 4),
        num_query_pool=1,
        query_stride=(2, 1),
        masked_unit_size=(4, 2),
        masked_unit_attention=(True, False, True),
    )
    return build(HieraForImageClassification, config)


PYRAMID = {
    "num_encoder_blocks": 3, "hidden_sizes": (8, 16, 16), "mlp_ratios": (2, 2, 2), "num_labels": NUM_LABELS,
    "depths": (1, 2, 1), "num_attention_heads": (1, 2, 2),
}  # fmt: skip
# 9 x 8 patches, then 5 x 4 and 3 x 2 tokens; of the first two keys are merged from 2 x 2, and the last row is cut.
REDUCED = {**PYRAMID, "patch_sizes": (7, 3, 3), "strides": (4, 2, 2), "sr_ratios": (2, 2, 1)}


def segformer() -> PreTrainedModel:
    """SegFormer: keys merged from squares of tokens, patches that overlap, mean pooling over a map."""
    return build(SegformerForImageClassification, SegformerConfig(**REDUCED, image_size=(36, 32)))


def segformer_in_a_row() -> PreTrainedModel:
    """SegFormer whose last tokens stay in a row."""
    config = SegformerConfig(**REDUCED, image_size=(36, 32), reshape_last_stage=False)
    return build(SegformerForImageClassification, config)


def pvt() -> PreTrainedModel:
    """PVT: a class token in the last stage alone, off the attention interface."""
    sizes = {"patch_sizes": (4, 2, 2), "strides": (4, 2, 2), "sequence_reduction_ratios": (4, 2, 1)}
    names = {label: f"LABEL_{label}" for label in range(NUM_LABELS)}  # which its config does not make by itself
    config = PvtConfig(**PYRAMID, **sizes, image_size=32, id2label=names)
    return build(PvtForImageClassification, config)


def pvt_v2() -> PreTrainedModel:
    """PVT v2: keys merged from squares of tokens, off the attention interface."""
    return build(PvtV2ForImageClassification, PvtV2Config(**REDUCED, image_size=(36, 32)))


def pvt_v2_linear() -> PreTrainedModel:
    """PVT v2 whose keys are means of overlapping parts of the map."""
    return build(PvtV2ForImageClassification, PvtV2Config(**REDUCED, image_size=32, linear_attention=True))


def convnext() -> PreTrainedModel:
    """ConvNeXt: no attention at all."""
    config = ConvNextConfig(num_stages=2, hidden_sizes=(8, 16), depths=(1, 1), image_size=32, num_labels=NUM_LABELS)
    return build(ConvNextForImageClassification, config)


def resnet() -> PreTrainedModel:
    """ResNet: no attention, no layer norm."""
    config = ResNetConfig(
        embedding_size=8, hidden_sizes=(8, 16), depths=(1, 1), layer_type="basic", num_labels=NUM_LABELS
    )
    return build(ResNetForImageClassification, config)


MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    function.__name__: function
    for function in (
        vit,
        vit_landscape,
        deit,
        deit_teacher,
        beit_absolute,
        beit_relative,
        beit_shared,
        beit_relative_cls,
        beit_both_cls,
        dinov2,
        dinov2_registers,
        siglip,
        clip,
        ijepa,
        vit_msn,
        data2vec_vision,
        data2vec_vision_both_cls,
    )
}
"""Models that the package explains."""

STAGED: dict[str, Callable[[], PreTrainedModel]] = {
    function.__name__: function
    for function in (
        swin,
        swin_padded,
        swinv2,
        swinv2_padded,
        donut_swin,
        hiera,
        hiera_unmerged,
        segformer,
        segformer_in_a_row,
        pvt,
        pvt_v2,
    )
}
"""Models whose layers stand in stages: explained by contributions, see `window_oracle` and those that it names."""

REFUSED: dict[str, Callable[[], PreTrainedModel]] = {
    function.__name__: function for function in (pvt_v2_linear, convnext, resnet)
}
"""Models that the package has to refuse in words."""


def relative_error(actual: torch.Tensor, expected: object) -> float:
    """Return max|a - b| / max|b| in float64 after checking the shapes; 0 for empty tensors."""
    expected = torch.as_tensor(expected, dtype=torch.float64)
    assert tuple(actual.shape) == tuple(expected.shape)
    if expected.numel() == 0:
        return 0.0
    return ((actual.double() - expected).abs().max() / expected.abs().max()).item()


def explicit(name: str) -> PreTrainedModel:
    """Return a family's model with transformers' own explicit attention."""
    return in_eager(MODELS[name]())


def in_eager(model: PreTrainedModel) -> PreTrainedModel:
    """Return a model with transformers' explicit attention; a copy, where it is chosen at its birth."""
    if isinstance(model, Data2VecVisionForImageClassification):
        config = type(model.config)(**model.config.to_dict(), attn_implementation="eager")
        copy = type(model)(config).to(model.dtype).train(model.training)
        copy.load_state_dict(model.state_dict())
        return copy
    names = {"": "eager", "vision_config": "eager"}
    model.set_attn_implementation(names if "vision_config" in model.config.sub_configs else "eager")
    return model


def pair(size: int | list[int] | tuple[int, int]) -> tuple[int, int]:
    """Return a configuration's size as (height, width)."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def vision_config(model: PreTrainedModel) -> PreTrainedConfig:
    """Return the configuration of the vision part, which is the model's own except for SigLIP and CLIP."""
    return getattr(model.config, "vision_config", model.config)


def image_size(model: PreTrainedModel) -> tuple[int, int]:
    """Return the (height, width) that the model takes; 32 x 32 where its configuration names none."""
    return pair(getattr(vision_config(model), "image_size", 32))


def patch_size(model: PreTrainedModel) -> tuple[int, int]:
    """Return the (height, width) of one patch in pixels."""
    return pair(vision_config(model).patch_size)


def pixel_values(
    model: PreTrainedModel, batch: int = 2, seed: int = 0, size: tuple[int, int] | None = None
) -> torch.Tensor:
    """Make seeded standard normal images for a model.

    Args:
        model: A model of the zoo.
        batch: Number of images.
        seed: Seed; equal seeds give equal pixels whatever the model's dtype.
        size: (height, width), by default the size that the model takes.

    Returns:
        Pixel values (batch, 3, height, width) in the model's dtype, on its device.
    """
    generator = torch.Generator().manual_seed(1000 + seed)
    images = torch.randn(batch, 3, *(size or image_size(model)), generator=generator)
    return images.to(device=model.device, dtype=model.dtype)
