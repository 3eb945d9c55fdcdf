"""What maps are measured on."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from gmar_hf.metrics.fillings import Baseline
from gmar_hf.metrics.scores import score_function
from gmar_hf.models.freezing import frozen
from gmar_hf.models.model_inputs import forward


@dataclass(frozen=True, eq=False, kw_only=True)
class Subject:
    """What maps are measured on; a row is one explained class of one image.

    Args:
        model (`nn.Module`): The classifier.
        function (`str`): What makes scores of its logits, "softmax" or "sigmoid".
        pixel_values (`torch.Tensor` of shape (rows, channels, height, width)): The images.
        target (`torch.LongTensor` of shape (rows,)): The classes.
        fillings (`Mapping`): By baseline what hidden patches show, pixel values of the images' shape, or the
            [`Filling`] that hides them; a baseline that these images do not have is missing.
        masks, other_masks (`torch.Tensor` of shape (rows, height, width), bool): Where the class's object is, and
            that of the other class; false everywhere where that is not known.
        patch_size (`tuple[int, int]`, *optional*): Of the model, in pixels; None where patches divide the images.
        num_steps (`int`): Of insertion and deletion.
        max_rows (`int`): Images that the model gets at once.
        cell (`torch.LongTensor` of shape (rows,), *optional*): Of mosaics, where the class's photo is, counted row by
            row; None for other images.
        grid (`tuple[int, int]`): Rows and columns of the mosaics.
    """

    model: nn.Module
    function: str
    pixel_values: torch.Tensor
    target: torch.Tensor
    fillings: Mapping[str, Baseline]
    masks: torch.Tensor
    other_masks: torch.Tensor
    patch_size: tuple[int, int] | None = None
    num_steps: int = 16
    max_rows: int = 256
    cell: torch.Tensor | None = None
    grid: tuple[int, int] = (2, 2)

    @property
    def ways(self) -> dict[str, Any]:
        """Arguments that all metrics which ask the model share."""
        return {"patch_size": self.patch_size, "max_rows": self.max_rows}

    def score(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return the score of each row's class, as [`score_function`] makes it."""
        return score_function(self.model, self.target, self.function)(pixel_values)  # type: ignore[arg-type]

    def logit(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return the logit of each row's class."""
        return score_function(self.model, self.target, "logit")(pixel_values)

    def predict(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return the class that the model ranks first, of each row."""
        with torch.no_grad(), frozen(self.model):
            return forward(self.model, pixel_values).logits.argmax(dim=-1)
