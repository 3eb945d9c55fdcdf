"""Tiny seeded dual encoders of images and texts, a tokenizer of a few words, and their logits without the package."""

from __future__ import annotations

from collections.abc import Callable

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import nn
from transformers import (
    AltCLIPConfig,
    AltCLIPModel,
    ChineseCLIPConfig,
    ChineseCLIPModel,
    CLIPConfig,
    CLIPModel,
    CLIPSegConfig,
    CLIPSegModel,
    MetaClip2Config,
    MetaClip2Model,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Siglip2Config,
    Siglip2Model,
    SiglipConfig,
    SiglipModel,
)

from tests.helpers.naflex import VISION, inputs_of
from tests.helpers.zoo import NARROW, SQUARE, WIDE, build

WORDS = ["<pad>", "<bos>", "<eos>", "<unk>", "this", "is", "a", "photo", "of", "cat", "dog", "grey", "garden", "."]
LABELS = ["a cat", "a dog", "a grey garden"]
TEXT = {
    **NARROW, "vocab_size": len(WORDS), "max_position_embeddings": 12, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2, "projection_size": 32,
}  # fmt: skip
BERT = {**TEXT, "max_position_embeddings": 16, "project_dim": 24, "type_vocab_size": 2}


def tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer that knows `WORDS`, and says so of nothing but the ids and which of them are padding."""
    words = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace()])
    words.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", 1), ("<eos>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        model_input_names=["input_ids", "attention_mask"],
    )


def clip() -> PreTrainedModel:
    """CLIP: a CLS token that the projection reads, 4 x 4 patches."""
    return build(CLIPModel, CLIPConfig(vision_config={**WIDE, **SQUARE}, text_config=TEXT, projection_dim=8))


def metaclip_2() -> PreTrainedModel:
    """MetaCLIP 2, 4 x 4 patches."""
    return build(MetaClip2Model, MetaClip2Config(vision_config={**WIDE, **SQUARE}, text_config=TEXT, projection_dim=8))


def siglip() -> PreTrainedModel:
    """SigLIP: no prefix token, a pooling head with attention of its own, a bias, 4 x 4 patches."""
    return build(SiglipModel, SiglipConfig(vision_config={**WIDE, **SQUARE}, text_config=TEXT))


def siglip2() -> PreTrainedModel:
    """SigLIP 2 NaFlex: like SigLIP, of flattened patches."""
    return build(Siglip2Model, Siglip2Config(vision_config=VISION, text_config=TEXT))


def altclip() -> PreTrainedModel:
    """AltCLIP: CLIP with another text tower."""
    return build(AltCLIPModel, AltCLIPConfig(vision_config={**WIDE, **SQUARE}, text_config=BERT, projection_dim=8))


def chinese_clip() -> PreTrainedModel:
    """Chinese-CLIP: CLIP with BERT."""
    config = ChineseCLIPConfig(vision_config={**WIDE, **SQUARE}, text_config=BERT, projection_dim=8)
    return build(ChineseCLIPModel, config)


def clipseg() -> PreTrainedModel:
    """CLIPSeg's CLIP."""
    return build(CLIPSegModel, CLIPSegConfig(vision_config={**WIDE, **SQUARE}, text_config=TEXT, projection_dim=8))


DUAL_ENCODERS: dict[str, Callable[[], PreTrainedModel]] = {
    function.__name__: function for function in (clip, metaclip_2, siglip, siglip2, altclip, chinese_clip, clipseg)
}
"""Models whose image tower is explained for a text."""


class PairLogits(nn.Module):
    """A whole dual encoder with its texts as tokens: `logits_per_image`, as transformers computes them.

    Args:
        model: The dual encoder.
        texts: Whole texts, no template.
    """

    def __init__(self, model: PreTrainedModel, texts: list[str]) -> None:
        super().__init__()
        # SigLIP's texts have one length, that of all its positions.
        length = {"padding": "max_length", "max_length": 12} if "siglip" in model.config.model_type else {}
        self.tokens = tokenizer()(texts, return_tensors="pt", **{"padding": True, **length})
        self.vision_model = model.vision_model  # where the oracle looks for the tower
        self.inner = [model]  # in a list, as the oracle wants a single backbone
        self.config = model.config.vision_config

    def double(self) -> PairLogits:
        self.inner[0].double()
        return super().double()

    def forward(self, pixel_values: torch.Tensor, **kwargs: object) -> object:
        outputs = self.inner[0](**self.tokens, **inputs_of(self.inner[0], pixel_values), **kwargs)
        outputs.logits = outputs.logits_per_image
        return outputs
