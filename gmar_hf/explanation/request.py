"""request."""

import math
from dataclasses import dataclass, fields
from typing import Any

import torch

from gmar_hf.errors import ArgumentError, ArgumentTypeError
from gmar_hf.explanation.head_scores import l1_norm, l2_norm
from gmar_hf.explanation.masking import PATTERNS
from gmar_hf.explanation.methods import get_method
from gmar_hf.explanation.trace import Start
from gmar_hf.images.baselines import Baseline
from gmar_hf.report.report import HeadImportanceReport
from gmar_hf.utils.checks import check_seed

NORMS = {"l1": l1_norm, "l2": l2_norm}
MASK_BASELINES = ("blur", "zero", "mean")


@dataclass(frozen=True)
class Request:
    """What a call asks for; what it does not ask for is not computed. Fields as in [`explain`]."""

    method: str = "gmar"
    norm: str = "l1"
    residual_weight: float = 1.0
    start_layer: int = 0
    return_maps: bool = True
    return_head_maps: bool = False
    head_weights: HeadImportanceReport | torch.Tensor | None = None
    num_masks: int = 0
    mask_baseline: Baseline = "blur"
    mask_pattern: str = "pairs"
    seed: int = 0

    def __post_init__(self) -> None:
        get_method(self.method)
        if self.norm not in NORMS:
            raise ArgumentError(f'`norm` must be "l1" or "l2"; got {self.norm!r}.')
        if not _is_number(self.residual_weight) or not 0 <= self.residual_weight < math.inf:
            raise ArgumentError(f"`residual_weight` must be a number of 0 or more; got {self.residual_weight!r}.")
        if not isinstance(self.start_layer, int) or isinstance(self.start_layer, bool) or self.start_layer < 0:
            raise ArgumentError(f"`start_layer` must be a layer's index, 0 or more; got {self.start_layer!r}.")
        self._check_masks()
        if self.head_weights is None:
            return
        if not isinstance(self.head_weights, HeadImportanceReport | torch.Tensor):
            raise ArgumentTypeError(
                f"`head_weights` must be a HeadImportanceReport or a tensor; got {type(self.head_weights).__name__}. "
                "Load it with `HeadImportanceReport.from_pretrained`."
            )
        if get_method(self.method).weights != "gradient":
            raise ArgumentError(
                f'`head_weights` must come with a method that weighs heads by their gradient, "gmar"; got method '
                f"{self.method!r}. Drop one of them."
            )

    def _check_masks(self) -> None:
        if not isinstance(self.num_masks, int) or isinstance(self.num_masks, bool) or self.num_masks < 0:
            raise ArgumentError(f"`num_masks` must be a whole number of 0 or more; got {self.num_masks!r}.")
        check_seed("seed", self.seed)
        if self.mask_pattern not in PATTERNS:
            raise ArgumentError(f'`mask_pattern` must be "pairs" or "partition"; got {self.mask_pattern!r}.')
        if self.mask_pattern == "pairs" and self.num_masks % 2:
            raise ArgumentError(
                f"`num_masks` must be even (masks come in pairs of opposites); got {self.num_masks}. "
                f"Pass {self.num_masks + 1}."
            )
        if self.mask_pattern == "partition" and self.num_masks < 2:
            raise ArgumentError(
                f"`num_masks` must be 2 or more for a partition (each mask hides another part); got {self.num_masks}. "
                "Pass 4."
            )
        if self.num_masks and self.method != "contribution":
            raise ArgumentError(
                f'`num_masks` must come with method "contribution", whose maps are averaged over masked images; got '
                f"method {self.method!r}. Drop one of them."
            )
        if not isinstance(self.mask_baseline, torch.Tensor) and self.mask_baseline not in MASK_BASELINES:
            names = ", ".join(f'"{name}"' for name in MASK_BASELINES)
            raise ArgumentError(
                f"`mask_baseline` must be one of {names}, or a tensor of pixel values; got {self.mask_baseline!r:.80}."
            )

    @property
    def needs(self) -> str | None:
        """What of the backward the map reads: with weights that are given, nothing."""
        return None if self.head_weights is not None else get_method(self.method).needs

    @property
    def start(self) -> Start:
        """Where the graph of the forward has to begin."""
        if self.return_head_maps or (self.needs == "token_contribution" and (self.return_maps or self.num_masks)):
            return "value"
        return "output" if self.needs else "head"

    def settings(self) -> dict[str, Any]:
        """The fields as plain JSON values, by name; `head_weights` apart."""
        found = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "head_weights"}
        if isinstance(self.mask_baseline, torch.Tensor):
            found["mask_baseline"] = f"tensor of shape {tuple(self.mask_baseline.shape)}"
        return found


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
