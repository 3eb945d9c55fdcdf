"""What the pipeline gives: dicts and lists as ever, which show themselves in notebooks."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, NotRequired, TypedDict, TypeVar, cast, overload

import torch
from PIL import Image

from gmar_hf.explanation.concentration import concentration_note
from gmar_hf.explanation.methods import METHODS
from gmar_hf.explanation.result import Explanation
from gmar_hf.images.placement import Box, heatmap, image_box
from gmar_hf.images.sight import seen_share, sight_note
from gmar_hf.plotting.notebook import card, head_text, map_on, matrix_of_heads, strongest
from gmar_hf.plotting.painting import colour_words
from gmar_hf.plotting.result_words import (
    ROUGH,
    account_of,
    has_amounts,
    is_blind_to_labels,
    path_notes,
    sides_of,
    title_of,
)
from gmar_hf.plotting.values import has_sign, scale_of
from gmar_hf.utils.checks import check_whole

_NUM_SHOWN = 12  # entries of a list that are shown
_SHOWN = (  # an explanation's fields in a result
    "attribution",
    "head_importance",
    "head_contribution",
    "head_contribution_centred",
    "head_maps",
)
_SHARE = "share of attention"
_Text = Literal["label", "predicted_label", "method", "unit", "versus", "note", "head_weights_from"]
_Number = Literal[
    "score", "predicted_score", "versus_score", "explained_logit", "attention_contribution", "completeness_gap"
]
_Heads = Literal["head_importance", "head_contribution", "head_contribution_centred"]
_NO_JSON = ("heatmap", "overlay", "explanation")  # pictures, and what has a file of its own


class HeadEntry(TypedDict):
    """A head, and one of its two numbers."""

    layer: int
    head: int
    head_contribution: NotRequired[float]
    head_importance: NotRequired[float]


class ExplanationResult(dict[str, Any]):
    """One label's explanation by one method: a dict, whose entries [`GMARExplainer`] lists.

    Args:
        entries (`dict[str, Any]`): Those entries.
        thumbnail (PIL image): A small copy of the image, for notebooks, see [`plotting.notebook.thumbnail`].
        image_size (`tuple[int, int]`): Width and height of the image itself, in whose pixels `box` is.
    """

    def __init__(self, entries: dict[str, Any], thumbnail: Image.Image, image_size: tuple[int, int]) -> None:
        super().__init__(entries)
        self._thumbnail, self.image_size = thumbnail, image_size

    if TYPE_CHECKING:  # what each entry is

        @overload
        def __getitem__(self, key: _Text, /) -> str: ...
        @overload
        def __getitem__(self, key: _Number, /) -> float: ...
        @overload
        def __getitem__(self, key: Literal["target"], /) -> int: ...
        @overload
        def __getitem__(self, key: Literal["attribution", "head_maps"], /) -> torch.Tensor: ...
        @overload
        def __getitem__(self, key: _Heads, /) -> torch.Tensor | None: ...
        @overload
        def __getitem__(self, key: Literal["box"], /) -> Box: ...
        @overload
        def __getitem__(self, key: Literal["heatmap", "overlay"], /) -> Image.Image: ...
        @overload
        def __getitem__(self, key: Literal["explanation"], /) -> Explanation: ...
        @overload
        def __getitem__(self, key: str, /) -> Any: ...
        def __getitem__(self, key: str, /) -> Any: ...

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (dict(self), self._thumbnail, self.image_size)

    @property
    def seen_share(self) -> float:
        """Share of the image that the model saw, in [0, 1]: less than 1 where a crop hid the rest."""
        return seen_share(self["box"], self.image_size)

    def to_dict(self) -> dict[str, Any]:
        """Return all entries but pictures and `explanation` as plain JSON: tensors as lists of lists, NaN as None."""
        return {name: _as_json(value) for name, value in self.items() if name not in _NO_JSON}

    def top_heads(self, k: int = 3) -> list[HeadEntry]:
        """Return the heads that contribute most, either way, or where contributions are unknown, weigh most.

        Args:
            k (`int`, defaults to 3): How many heads.

        Returns:
            `list[dict[str, Any]]`: `layer`, `head` and `head_contribution` (logits) or `head_importance` (a share of
            the layer), the largest magnitude first; empty where neither is known. Dicts, since a result is of plain
            names; those of a report are tuples.

        Raises:
            ArgumentError: If `k` is no whole number of 1 or more.
        """
        check_whole("k", k, minimum=1)
        key = "head_contribution" if self.get("head_contribution") is not None else "head_importance"
        values = self.get(key)
        heads = [] if values is None else strongest(values, k)
        return [cast(HeadEntry, {"layer": layer, "head": head, key: value}) for layer, head, value in heads]

    def _repr_html_(self) -> str:
        pictures = [map_on(self._thumbnail, self, self.image_size)]
        attribution, unit = self["attribution"].numpy(), self["unit"]
        words = colour_words("signed", has_sign(attribution, unit), sides_of(self))
        lines = [f"{self['method']}, {'; '.join(words)}"]
        lines += [scale_of(attribution, "signed", unit)] if has_amounts(self) else []
        lines += [line for line in (account_of(self), self.get("note"), sight_note(self.seen_share)) if line]
        for key, is_signed in (("head_contribution", True), ("head_importance", False)):
            if self.get(key) is not None:
                pictures.append(matrix_of_heads(self[key], is_signed=is_signed))
                mark = "" if has_amounts(self) else f": {ROUGH}"
                lines.append(f"{head_text(self[key], is_signed=is_signed)}{mark}")
                break
        return card(pictures, title_of(self), *lines)


Item = TypeVar("Item", bound="ExplanationResult | ResultList[Any]")


class ResultList(list[Item]):
    """A list of [`ExplanationResult`], or of such lists."""

    def _repr_html_(self) -> str:
        """Show a label's or method's results beside each other, and images below each other."""
        shown = "".join(
            item._repr_html_() if isinstance(item, ExplanationResult) else f"<div>{item._repr_html_()}</div>"
            for item in self[:_NUM_SHOWN]
        )
        return shown + (f"<div>... and {len(self) - _NUM_SHOWN} more</div>" if len(self) > _NUM_SHOWN else "")


def describe_target(
    explanation: Explanation,
    number: int,
    target: int,
    scores: torch.Tensor,
    labels: Mapping[int, str],
    box: Box,
    heatmap_size: tuple[int, int] | None,
) -> dict[str, Any]:
    """Return what is said of one target by one method: copies, so that no result keeps the batch alive.

    Args:
        explanation ([`Explanation`]): Of one image, with an axis of targets.
        number (`int`): The target's place on that axis.
        target (`int`): Its class.
        scores (`torch.Tensor` of shape (classes,)): What the model says of all classes.
        labels (`Mapping[int, str]`): The model's.
        box (`tuple[float, float, float, float]`): What the map covers, in pixels of the image.
        heatmap_size (`tuple[int, int]`, *optional*): The image's width and height; None for no heatmap.
    """
    tensors, settings = explanation.tensors(), explanation.settings
    best, versus, logits = int(scores.argmax()), settings["versus"], tensors["logits"][0]
    fields = {name: tensors[name][0, number].clone() for name in _SHOWN if name in tensors}
    result = {
        "label": labels[target],
        "score": scores[target].item(),
        "target": target,
        "predicted_label": labels[best],
        "predicted_score": scores[best].item(),
        "explained_logit": (logits[target] - (0 if versus is None else logits[versus])).item(),
        "method": settings["method"],
        "attribution": fields["attribution"],
        "unit": _SHARE if METHODS[settings["method"]].from_readout else "logits",
        "box": box,
        **({} if heatmap_size is None else {"heatmap": heatmap(fields["attribution"], box, heatmap_size)}),
        "head_importance": fields.get("head_importance"),
        "head_contribution": fields.get("head_contribution"),
        "head_contribution_centred": fields.get("head_contribution_centred"),
    }
    # Entries that come only when they were asked for.
    if settings["head_weights"] is not None:
        is_fallback = target in settings["head_weights"]["all_images_for"]
        result["head_weights_from"] = "all images" if is_fallback else "class"
    if versus is not None:
        result["versus"], result["versus_score"] = labels[versus], scores[versus].item()
    if "head_maps" in fields:
        result["head_maps"] = fields["head_maps"]
    if "completeness_gap" in tensors:
        gap = result["completeness_gap"] = tensors["completeness_gap"][0, number].item()
        result["attention_contribution"] = fields["head_contribution"].nan_to_num(0.0).sum().item() - gap
    if note := _note(result):
        result["note"] = note
    return result


def _note(result: Mapping[str, Any]) -> str | None:
    """Say what to beware of in a result; None of one that can be read as it is."""
    if "completeness_gap" in result:
        return " ".join(path_notes(result)) or None
    if is_blind_to_labels(result):
        return (
            f'The map of method "{result["method"]}" is nearly the same for every label, and so it is for two of '
            'them: ask method "recommended" why this one and not that.'
        )
    return concentration_note(result["attribution"]) if METHODS[result["method"]].from_readout else None


def covered_box(image_size: tuple[int, int], settings: Mapping[str, Any], image_processor: Any) -> Box:
    """Return what the patches cover of an image (width, height) that was explained with these settings."""
    grid, (patch_height, patch_width) = settings["grid"], settings["patch_size"]
    covered = (grid["rows"] * patch_height, grid["cols"] * patch_width)
    return image_box(image_size, image_processor, tuple(settings["pixel_size"]), covered)


def _as_json(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_as_json(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
