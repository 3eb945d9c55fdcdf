"""What a call of `explain` asks for, checked."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch

from gmar_hf.errors import ArgumentError
from gmar_hf.explanation.layer import NORMS, OUTPUT
from gmar_hf.explanation.masking import PATTERNS
from gmar_hf.explanation.methods import METHODS, Method, get_method
from gmar_hf.explanation.trace import Start
from gmar_hf.images.baselines import Baseline
from gmar_hf.utils.checks import (
    check_choice,
    check_flags,
    check_names,
    check_number,
    check_seed,
    check_share,
    check_whole,
)
from gmar_hf.utils.tensors import described

MAX_POINTS = 64
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
    return_logits: bool = True
    has_head_weights: bool = False
    num_masks: int = 0
    mask_baseline: Baseline = "blur"
    mask_pattern: str = "pairs"
    seed: int = 0
    num_points: int | None = None
    value_reference: float | str | None = None

    def __post_init__(self) -> None:
        method = self.describes
        check_choice("norm", self.norm, NORMS)
        check_flags(
            return_maps=self.return_maps, return_head_maps=self.return_head_maps, return_logits=self.return_logits
        )
        check_number("residual_weight", self.residual_weight)
        check_whole("start_layer", self.start_layer)
        self._check_masks()
        self._settle_contributions()
        if self.has_head_weights and method.weights != "gradient":
            raise ArgumentError(
                f'`head_weights` must come with a method that weighs heads by their gradient, "gmar"; got method '
                f"{self.method!r}. Drop one of them."
            )

    def _settle_contributions(self) -> None:
        """Check where the gradient is taken and what is summed, and fill in the method's own where neither is said."""
        method = self.describes
        if self.num_points is None:
            object.__setattr__(self, "num_points", method.num_points)
        elif method.num_points is None:
            raise ArgumentError(
                f'`num_points` must come with method "path" or "recommended", whose gradients are taken at so many '
                f"points; got method {self.method!r}. Drop one of them."
            )
        else:
            check_whole("num_points", self.num_points, minimum=1, maximum=MAX_POINTS)
        if self.value_reference is None:
            object.__setattr__(self, "value_reference", method.value_reference)
        elif method.value_reference is None or (method.value_reference == OUTPUT and self.value_reference != OUTPUT):
            raise ArgumentError(
                f'`value_reference` must come with method "contribution" or "path"; got method {self.method!r}. Drop '
                "one of them."
            )
        elif self.value_reference != OUTPUT:
            object.__setattr__(self, "value_reference", _check_reference(self.value_reference))

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
        if self.num_masks and self.describes.value_reference is None:
            raise ArgumentError(
                f'`num_masks` must come with method "contribution", "removal" or "path", whose maps are averaged over '
                f"masked images; got method {self.method!r}. Drop one of them."
            )
        if not isinstance(self.mask_baseline, torch.Tensor):
            check_choice("mask_baseline", self.mask_baseline, MASK_BASELINES, otherwise="or a tensor of pixel values")

    @property
    def describes(self) -> Method:
        """The method's row."""
        return get_method(self.method)

    @property
    def has_passes(self) -> bool:
        """Whether the map is made of passes of its own, and not of the one over the whole image as it is."""
        return bool(self.num_masks) or self.num_points is not None

    @property
    def needs_whole_images(self) -> bool:
        """Whether a forward over the whole images as they are is asked for, or needed before the first pass."""
        return self.return_logits or self.num_points is None or bool(self.num_masks)

    @property
    def has_gap(self) -> bool:
        """Whether the result tells how far the contributions are from complete."""
        return self.return_logits and self.num_points is not None and not self.num_masks

    @property
    def needs(self) -> str | None:
        """What of the backward the map reads: with weights that are given, nothing."""
        return None if self.has_head_weights else self.describes.needs

    @property
    def start(self) -> Start:
        """Where the graph of the forward has to begin."""
        if self.return_head_maps or (self.needs == "token_contribution" and (self.return_maps or self.num_masks)):
            return "value"
        return "output" if self.needs else "head"

    def settings(self) -> dict[str, Any]:
        """Return the fields as plain JSON values, by name; where given head weights come from is said elsewhere."""
        settings = {field.name: getattr(self, field.name) for field in fields(self)}
        del settings["has_head_weights"], settings["return_logits"]
        if isinstance(self.mask_baseline, torch.Tensor):
            settings["mask_baseline"] = described(self.mask_baseline)
        return settings


def requests_of(method: str | Sequence[str], **options: Any) -> list[Request]:
    """Make a request for every method that is named; an option that not all of them take goes to those that do.

    Args:
        method (`str` or `Sequence[str]`): A method, or several different ones.
        **options: The other fields of [`Request`].

    Raises:
        ArgumentError: If a value cannot be used, or no method takes an option.
    """
    if isinstance(method, str) or not isinstance(method, Sequence):  # what is neither is refused as a name
        return [Request(method=method, **options)]
    for name in method:
        get_method(name)  # which says more of an unknown name than the next line
    check_names("method", method, METHODS)
    rows = [METHODS[name] for name in method]
    takes = {
        "has_head_weights": [row.weights == "gradient" for row in rows],
        "num_masks": [row.value_reference is not None for row in rows],
        "num_points": [row.num_points is not None for row in rows],
        "value_reference": [row.value_reference not in (None, OUTPUT) for row in rows],
    }
    requests = []
    for place, name in enumerate(method):
        # Where no method takes an option, the first one's request says so.
        dropped = {option for option, by_method in takes.items() if any(by_method) and not by_method[place]}
        requests.append(Request(method=name, **{key: value for key, value in options.items() if key not in dropped}))
    return requests


def _check_reference(value: object) -> float:
    if isinstance(value, str):
        raise ArgumentError(f'`value_reference` must be a share in [0, 1] or "output"; got {value!r}.')
    return float(check_share("value_reference", value))
