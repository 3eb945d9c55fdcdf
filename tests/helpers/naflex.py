"""SigLIP 2 NaFlex as it takes images: flattened patches, some of them padding, without the package."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import nn
from transformers import PreTrainedModel, Siglip2Config, Siglip2ForImageClassification, Siglip2Model

if TYPE_CHECKING:
    from tests.helpers.oracle import Reference

from tests.helpers.zoo import NUM_LABELS, TEXT, WIDE, build

PATCH = 8
VISION = {**WIDE, "patch_size": PATCH, "num_patches": 16}
_PADDING = 3  # patches of noise, which the mask is to keep out


def siglip2() -> PreTrainedModel:
    """A classifier of SigLIP 2 NaFlex."""
    config = Siglip2Config(vision_config=VISION, text_config=TEXT, num_labels=NUM_LABELS)
    return build(Siglip2ForImageClassification, config)


def is_naflex(model: nn.Module) -> bool:
    """Tell whether a model takes flattened patches."""
    return isinstance(model, Siglip2ForImageClassification | Siglip2Model)


def inputs_of(model: nn.Module, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return what a model takes of images (B, 3, height, width)."""
    if not is_naflex(model):
        return {"pixel_values": images}
    rows, cols = images.shape[-2] // PATCH, images.shape[-1] // PATCH
    # (B, 3 * pixels, patches), channel by channel; wanted is pixel by pixel.
    patches = nn.functional.unfold(images, PATCH, stride=PATCH).unflatten(1, (3, -1)).permute(0, 3, 2, 1).flatten(2)
    noise = torch.randn(len(images), _PADDING, patches.shape[2], generator=torch.Generator().manual_seed(7))
    mask = torch.ones(len(images), rows * cols + _PADDING, dtype=torch.int32)
    mask[:, rows * cols :] = 0
    return {
        "pixel_values": torch.cat([patches, noise.to(patches)], dim=1),
        "pixel_attention_mask": mask,
        "spatial_shapes": torch.tensor([[rows, cols]] * len(images)),
    }


def without_padding(reference: Reference) -> Reference:
    """Drop the tokens that are padding, which nothing attends to and no logit reads."""
    size = reference.rows * reference.cols
    cut = {name: getattr(reference, name)[..., :size, :size] for name in ("attention", "gradient")}
    names = ("value", "value_gradient", "output", "output_gradient")
    assert not reference.attention[..., :size, size:].any()
    assert not any(getattr(reference, name)[..., size:, :].any() for name in ("value_gradient", "output_gradient"))
    cut |= {name: getattr(reference, name)[..., :size, :] for name in names}
    return replace(reference, readout=reference.readout[:size], **cut)
