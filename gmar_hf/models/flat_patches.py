"""Models that take patches one after the other (SigLIP 2 NaFlex), as models that take images."""

import inspect
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

ARGUMENTS = frozenset({"pixel_attention_mask", "spatial_shapes"})
"""What such a model takes beside `pixel_values`: which patches are no padding, and rows and columns of each image."""


class ImagesAsPatches(nn.Module):
    """A model of flattened patches, which takes images instead.

    Nothing is padded: images of one batch are of one size, and their patches are all the tokens there are.

    Args:
        model (`nn.Module`): What computes, uncopied.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.config: Any = model.config
        self.training = model.training  # not by `train`, which would reach into the model

    def forward(self, pixel_values: torch.Tensor, **kwargs: Any) -> Any:
        """Compute with the whole patches of images (batch, channels, height, width)."""
        size = getattr(self.config, "vision_config", self.config).patch_size
        rows, cols = pixel_values.shape[-2] // size, pixel_values.shape[-1] // size
        whole = pixel_values[..., : rows * size, : cols * size]
        patches = whole.unflatten(-1, (cols, size)).unflatten(-3, (rows, size))  # (batch, channels, rows, size, ...)
        shapes = torch.tensor([[rows, cols]], device=pixel_values.device).expand(len(pixel_values), 2)
        return self.model(
            pixel_values=patches.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2),
            pixel_attention_mask=None,
            spatial_shapes=shapes,
            **kwargs,
        )


def takes_flat_patches(model: Any) -> bool:
    """Tell whether a model, or the image tower of one, takes flattened patches."""
    return isinstance(model, PreTrainedModel) and "spatial_shapes" in inspect.signature(model.forward).parameters
