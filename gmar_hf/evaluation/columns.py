"""Which figures there are, and how a batch of maps gets them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from gmar_hf import metrics
from gmar_hf.errors import ArgumentError
from gmar_hf.evaluation.results import Metric
from gmar_hf.metrics.perturbation import Curve
from gmar_hf.models.freezing import frozen
from gmar_hf.utils.text import did_you_mean

BASELINES = ("blur", "zero", "other")  # by default: they disagree
KNOWN_BASELINES = (*BASELINES, "mean", "black")
CURVES = ("insertion", "deletion")


@dataclass(frozen=True, eq=False)
class Subject:
    """What maps are measured on; a row is one explained class of one image.

    Args:
        model (`nn.Module`): The classifier.
        function (`str`): What makes scores of its logits, "softmax" or "sigmoid".
        pixel_values (`torch.Tensor` of shape (rows, channels, height, width)): The images.
        target (`torch.LongTensor` of shape (rows,)): The classes.
        fillings (`Mapping[str, torch.Tensor]`): What hidden patches show, of the images' shape, by baseline; a
            baseline that these images do not have is missing.
        masks, other_masks (`torch.Tensor` of shape (rows, height, width), bool): Where the class's object is, and
            that of the other class; empty where that is not known.
        patch_size (`tuple[int, int]`, *optional*): Of the model, in pixels; None where patches divide the images.
        num_steps (`int`): Of insertion and deletion.
        max_rows (`int`): Images that the model gets at once.
    """

    model: nn.Module
    function: str
    pixel_values: torch.Tensor
    target: torch.Tensor
    fillings: Mapping[str, torch.Tensor]
    masks: torch.Tensor
    other_masks: torch.Tensor
    patch_size: tuple[int, int] | None = None
    num_steps: int = 16
    max_rows: int = 256

    @property
    def ways(self) -> dict[str, Any]:
        """Arguments that all metrics which ask the model share."""
        return {"patch_size": self.patch_size, "max_rows": self.max_rows}

    def score(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Of each row's class, as [`score_function`] makes them."""
        return metrics.score_function(self.model, self.target, self.function)(pixel_values)  # type: ignore[arg-type]

    def predict(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """The class that the model ranks first, of each row."""
        with torch.no_grad(), frozen(self.model):
            return self.model(pixel_values=pixel_values).logits.argmax(dim=-1)


Maps = torch.Tensor  # (rows, grid rows, grid columns)

_HIDING: dict[str, Callable[[Subject, Maps, torch.Tensor], torch.Tensor]] = {
    "positive_perturbation": lambda on, maps, filling: (
        metrics.positive_perturbation(on.predict, on.pixel_values, maps, baseline=filling, **on.ways).auc
    ),
    "negative_perturbation": lambda on, maps, filling: (
        metrics.negative_perturbation(on.predict, on.pixel_values, maps, baseline=filling, **on.ways).auc
    ),
    "saco": lambda on, maps, filling: metrics.saco(on.score, on.pixel_values, maps, baseline=filling, **on.ways),
}
_WHOLE: dict[str, Callable[[Subject, Maps, Maps], torch.Tensor]] = {
    "average_drop": lambda on, maps, other: metrics.average_drop(on.score, on.pixel_values, maps, **on.ways),
    "average_increase": lambda on, maps, other: metrics.average_increase(on.score, on.pixel_values, maps, **on.ways),
    "average_gain": lambda on, maps, other: metrics.average_gain(on.score, on.pixel_values, maps, **on.ways),
    "sparseness": lambda on, maps, other: metrics.sparseness(maps),
    "class_sensitivity": lambda on, maps, other: metrics.class_sensitivity(maps, other).correlation,
}
_PLACED: dict[str, Callable[[Maps, torch.Tensor], torch.Tensor]] = {
    "pointing_game": metrics.pointing_game,
    "energy_pointing_game": metrics.energy_pointing_game,
    "pixel_average_precision": metrics.pixel_average_precision,
    "iou": metrics.iou,
}
_ON_OTHER = "energy_on_other"  # the second part of class_sensitivity, where masks are known

UNDER_BASELINES = (*CURVES, "insertion_minus_deletion", *_HIDING)
NEED_MASKS = (*_PLACED, _ON_OTHER)
FUNCTIONS = (*UNDER_BASELINES, *NEED_MASKS, *_WHOLE)
DEFAULT_FUNCTIONS = (*CURVES, "insertion_minus_deletion", *NEED_MASKS, "class_sensitivity", "sparseness")


def choose_metrics(
    names: Sequence[str] | None, baselines: Sequence[str], has_masks: bool, has_class_masks: bool
) -> list[Metric]:
    """The columns of a table.

    Args:
        names (`Sequence[str]`, *optional*): Of metrics; by default those of `DEFAULT_FUNCTIONS` that the data allow.
        baselines (`Sequence[str]`): Each metric that hides patches is measured under all of them.
        has_masks, has_class_masks (`bool`): Whether it is known where objects are, and of which class each is.

    Raises:
        ArgumentError: If a name is unknown or given twice, or needs masks that there are not.
    """
    _check_names("baselines", baselines, KNOWN_BASELINES)
    without = [*(_PLACED if not has_masks else ()), *((_ON_OTHER,) if not has_class_masks else ())]
    if names is not None:
        _check_names("metrics", names, FUNCTIONS)
        needy = [name for name in names if name in without]
        if needy and needy[0] == _ON_OTHER:
            raise ArgumentError(
                f"`metrics` must not name {_ON_OTHER} for data without masks by class (it asks where the other "
                "class's object is). Leave it out, or give items with `masks`, a dict from classes to masks."
            )
        if needy:
            raise ArgumentError(
                f"`metrics` must not name {needy[0]} for data without masks (it asks where the object is). "
                "Leave it out, or give masks."
            )
    found = []
    for function in names or [name for name in DEFAULT_FUNCTIONS if name not in without]:
        higher = metrics.HIGHER_IS_BETTER[function]
        if function not in UNDER_BASELINES:
            found.append(Metric(function, function, None, higher))
            continue
        for number, baseline in enumerate(baselines):
            found.append(Metric(f"{function}_{baseline}" if number else function, function, baseline, higher))
    return found


def measure(
    subject: Subject, maps: torch.Tensor, other_maps: torch.Tensor, columns: Sequence[Metric]
) -> tuple[torch.Tensor, dict[str, Curve]]:
    """Measure one method's maps.

    Args:
        subject ([`Subject`]): What they are of.
        maps (`torch.Tensor` of shape (rows, grid rows, grid columns)): For the rows' classes.
        other_maps (`torch.Tensor` of the same shape): For another class of the same images.
        columns (`Sequence` of [`Metric`]): What is measured.

    Returns:
        `torch.DoubleTensor` of shape (rows, columns) on the CPU, NaN where there is no figure; and the curves by
            metric key.

    Raises:
        ArgumentError, NonFiniteError: As the metrics.
    """
    values = torch.full((len(maps), len(columns)), torch.nan, dtype=torch.double)
    curves = _curves(subject, maps, columns)
    for place, column in enumerate(columns):
        name = column.function
        if name in UNDER_BASELINES and column.baseline not in subject.fillings:
            continue
        if name in CURVES:
            found = curves[column.key].auc
        elif name == "insertion_minus_deletion":
            found = curves[_key(columns, "insertion", column)].auc - curves[_key(columns, "deletion", column)].auc
        elif name in _HIDING:
            found = _HIDING[name](subject, maps, subject.fillings[column.baseline or ""])
        elif name in _WHOLE:
            found = _WHOLE[name](subject, maps, other_maps)
        else:
            masks = subject.other_masks if name == _ON_OTHER else subject.masks
            if subject.patch_size is not None:  # beyond the last whole patch a map says nothing
                masks = masks[:, : maps.shape[1] * subject.patch_size[0], : maps.shape[2] * subject.patch_size[1]]
            figure = metrics.energy_pointing_game if name == _ON_OTHER else _PLACED[name]
            known = masks.flatten(1).any(dim=1)
            found = torch.full((len(maps),), torch.nan, device=maps.device)
            if known.any():
                found[known] = figure(maps[known], masks[known]).to(found)
        values[:, place] = found.double().cpu()
    wanted = {column.key for column in columns if column.function in CURVES}
    return values, {key: curve for key, curve in curves.items() if key in wanted}


def _curves(subject: Subject, maps: torch.Tensor, columns: Sequence[Metric]) -> dict[str, Curve]:
    """Insertion and deletion by metric key under every baseline that some column asks for, each scored once."""
    found: dict[str, Curve] = {}
    for column in columns:
        keys = [_key(columns, name, column) for name in CURVES]
        filling = subject.fillings.get(column.baseline or "")
        if column.function not in (*CURVES, "insertion_minus_deletion") or keys[0] in found or filling is None:
            continue
        pair = metrics.insertion_and_deletion(
            subject.score,
            subject.pixel_values,
            maps,
            num_steps=subject.num_steps,
            baseline=filling,
            **subject.ways,
        )
        found.update(zip(keys, pair, strict=True))
    return found


def _key(columns: Sequence[Metric], name: str, column: Metric) -> str:
    """The key of the curve `name` under the baseline of `column`."""
    return name + column.key.removeprefix(column.function)


def _check_names(argument: str, names: Sequence[str], known: Sequence[str]) -> None:
    if isinstance(names, str) or not names:
        raise ArgumentError(f"`{argument}` must be a list of names; got {names!r}. There are: {', '.join(known)}.")
    for number, name in enumerate(names):
        if name not in known:
            hint = did_you_mean(str(name), known)
            if argument == "metrics" and str(name) in metrics.__all__:
                hint = f" It is no figure of a map: call `gmar_hf.metrics.{name}` by itself."
            raise ArgumentError(f"`{argument}` must be among {', '.join(known)}; got {name!r}.{hint}")
        if name in names[:number]:
            raise ArgumentError(f"`{argument}` must name each one once; got {name!r} twice. Drop one.")
