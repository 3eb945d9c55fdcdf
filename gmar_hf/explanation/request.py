"""What a call of `explain` asks for, checked."""

from dataclasses import dataclass, fields
from typing import Any

import torch

from gmar_hf.errors import ArgumentError
from gmar_hf.explanation.head_scores import l1_norm, l2_norm
from gmar_hf.explanation.masking import PATTERNS
from gmar_hf.explanation.methods import get_method
from gmar_hf.explanation.trace import Start
from gmar_hf.images.baselines import Baseline
from gmar_hf.utils.checks import check_choice, check_number, check_seed, check_whole

NORMS = {"l1": l1_norm, "l2": l2_norm}
MASK_BASELINES = ("blur", "zero", "mean")


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a call asks for; what it does not ask for is not computed. [`explain`] says what each field means.

    Args:
        has_head_weights (`bool`, defaults to False): Whether head weights are given in place of the gradient's.
        (the others): The arguments of [`explain`] of these names.
    """

    method: str = "gmar"
    norm: str = "l1"
    residual_weight: float = 1.0
    start_layer: int = 0
    return_maps: bool = True
    return_head_maps: bool = False
    has_head_weights: bool = False
    num_masks: int = 0
    mask_baseline: Baseline = "blur"
    mask_pattern: str = "pairs"
    seed: int = 0

    def __post_init__(self) -> None:
        method = get_method(self.method)
        check_choice("norm", self.norm, NORMS)
        check_number("residual_weight", self.residual_weight)
        check_whole("start_layer", self.start_layer)
        self._check_masks()
        if self.has_head_weights and method.weights != "gradient":
            raise ArgumentError(
                f'`head_weights` must come with a method that weighs heads by their gradient, "gmar"; got method '
                f"{self.method!r}. Drop one of them."
            )

    def _check_masks(self) -> None:
        # First each value alone, then what does not go together.
        check_whole("num_masks", self.num_masks)
        check_seed("seed", self.seed)
        check_choice("mask_pattern", self.mask_pattern, PATTERNS)
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
        if not isinstance(self.mask_baseline, torch.Tensor):
            check_choice("mask_baseline", self.mask_baseline, MASK_BASELINES, otherwise="or a tensor of pixel values")

    @property
    def needs(self) -> str | None:
        """What of the backward the map reads: with weights that are given, nothing."""
        return None if self.has_head_weights else get_method(self.method).needs

    @property
    def start(self) -> Start:
        """Where the graph of the forward has to begin."""
        if self.return_head_maps or (self.needs == "token_contribution" and (self.return_maps or self.num_masks)):
            return "value"
        return "output" if self.needs else "head"

    def settings(self) -> dict[str, Any]:
        """Return the fields as plain JSON values, by name; where given head weights come from is said elsewhere."""
        settings = {field.name: getattr(self, field.name) for field in fields(self)}
        del settings["has_head_weights"]
        if isinstance(self.mask_baseline, torch.Tensor):
            settings["mask_baseline"] = f"tensor of shape {tuple(self.mask_baseline.shape)}"
        return settings
