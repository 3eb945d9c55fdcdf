"""Models that explain themselves: the mixin, and four ready classes."""

import copy
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, overload

import torch
from transformers import (
    BeitForImageClassification,
    DeiTForImageClassification,
    DeiTForImageClassificationWithTeacher,
    ViTForImageClassification,
)

from gmar_hf.explanation.engine import explain
from gmar_hf.explanation.result import Explanation
from gmar_hf.models.retention import RetainedAttentions, retain_attention
from gmar_hf.models.targets import Target


class AttentionRetentionMixin:
    """Gives an image classifier of transformers `.retain_attention()` and `.explain()`.

    Checkpoints, configs and forwards are those of the class it is mixed into: a plain checkpoint loads, and what
    [`save_pretrained`] writes is a plain checkpoint, which names that class.

    Example:
        >>> from transformers import ViTForImageClassification
        >>> import gmar_hf
        >>> class MyViT(gmar_hf.AttentionRetentionMixin, ViTForImageClassification): ...
    """

    def retain_attention(self) -> AbstractContextManager[RetainedAttentions]:
        """Keep explicit attention probabilities, with gradients, inside a `with` block: see [`retain_attention`]."""
        return retain_attention(self)  # type: ignore[arg-type]

    @overload
    def explain(
        self, pixel_values: torch.Tensor, target: Target = None, method: str = "gmar", **options: Any
    ) -> Explanation: ...

    @overload
    def explain(
        self, pixel_values: torch.Tensor, target: Target = None, *, method: Sequence[str], **options: Any
    ) -> list[Explanation]: ...

    def explain(self, pixel_values: torch.Tensor, *args: Any, **kwargs: Any) -> Explanation | list[Explanation]:
        """Explain a batch of images: see [`explain`], whose arguments after the model these are."""
        return explain(self, pixel_values, *args, **kwargs)  # type: ignore[call-overload]

    def save_pretrained(self, *args: Any, **kwargs: Any) -> None:
        """Save a plain checkpoint: as in transformers, whose arguments these are."""
        order = type(self).__mro__
        # By a name that transformers does not know, its Auto classes would build the first architecture of the model
        # type: a DeiT with teacher would load as one without, with new weights in the head.
        plain = copy.copy(self)
        plain.__class__ = order[order.index(AttentionRetentionMixin) + 1]
        plain.save_pretrained(*args, **kwargs)


class GMARViTForImageClassification(AttentionRetentionMixin, ViTForImageClassification):
    """ViT that explains itself."""


class GMARDeiTForImageClassification(AttentionRetentionMixin, DeiTForImageClassification):
    """DeiT that explains itself."""


class GMARDeiTForImageClassificationWithTeacher(AttentionRetentionMixin, DeiTForImageClassificationWithTeacher):
    """DeiT with a distillation token that explains itself."""


class GMARBeitForImageClassification(AttentionRetentionMixin, BeitForImageClassification):
    """BEiT that explains itself."""
