"""Images and a model without weights, for cases of metrics that are worked out by hand."""

from types import SimpleNamespace

import torch
from torch import nn

from gmar_hf.metrics.subject import Subject


class _Logits(nn.Module):
    def __init__(self, logits):
        super().__init__()
        self._logits = logits

    def forward(self, pixel_values):
        return SimpleNamespace(logits=self._logits(pixel_values))


def subject_of(logits, pixel_values, target, **more):
    """A subject whose model has the logits (rows, classes) that a function makes of pixel values; no object is known.

    Args:
        logits: The function.
        pixel_values (`torch.Tensor` of shape (rows, channels, height, width)): The images.
        target (`list[int]`): The classes.
        **more: Other fields of the subject.
    """
    nowhere = torch.zeros(len(pixel_values), *pixel_values.shape[-2:], dtype=torch.bool)
    fields = {
        "function": "softmax", "fillings": {"zero": torch.zeros_like(pixel_values)}, "masks": nowhere,
        "other_masks": nowhere,
    }  # fmt: skip
    return Subject(model=_Logits(logits), pixel_values=pixel_values, target=torch.tensor(target), **{**fields, **more})
