"""A batch of a survey, explained; nothing of it is kept yet."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import torch
from torch import nn

from gmar_hf.report.head_means import HeadMeans
from gmar_hf.report.statistics import OUTCOMES
from gmar_hf.report.traits import HeadTraits
from gmar_hf.runs.batches import Batch
from gmar_hf.surveys.scoring import score_heads, traits_of
from gmar_hf.surveys.survey_checkpoint import COUNTS


@dataclass
class ExplainedBatch:
    """What a batch gave.

    Args:
        counts (`dict[str, int]`): Numbers of images, by the names in `COUNTS`.
        values (`list` of `torch.Tensor` of shape (explanations, 6, layers, heads)): Of images explained in one go.
        groups (`list[int]`): Of every explanation: its class and how the model did on the image, as one number.
        images (`list[str]`), classes (`list[int]`): Of every explanation: its image's name, and its class.
        means (`list` of [`HeadMeans`]), traits (`list` of [`HeadTraits`]): Of images explained in one go.
    """

    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTS, 0))
    values: list[torch.Tensor] = field(default_factory=list)
    groups: list[int] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    classes: list[int] = field(default_factory=list)
    means: list[HeadMeans] = field(default_factory=list)
    traits: list[HeadTraits] = field(default_factory=list)


def explain_batch(
    model: nn.Module, batch: Batch, *, target: str, device: torch.device, describe: bool
) -> ExplainedBatch:
    """Score the heads for every image of a batch.

    Args:
        model (`nn.Module`): The classifier, on `device`.
        batch ([`Batch`]): Its images.
        target (`str`): "predicted", or "label" for each of an image's labels.
        device (`torch.device`): Where pixel values go.
        describe (`bool`): Whether to describe the heads as well.

    Raises:
        GMARError: As [`score_heads`] and [`traits_of`] do.
    """
    found = ExplainedBatch()
    found.counts["num_unreadable"] = len(batch.unreadable)
    for pixels, targets, rows in _explainable(batch, target, device, found.counts):
        scores = score_heads(model, pixels, targets)
        if describe:
            found.traits.append(traits_of(model, pixels, scores.target))
        # Every explanation goes to the group of its class and of how the model did on the image.
        for row, predicted in enumerate(scores.logits.argmax(dim=-1).tolist()):
            known = batch.labels[rows[row]]
            outcome = "unlabelled" if not known else "correct" if predicted in known else "wrong"
            found.counts["num_images"] += 1
            found.counts[f"num_{outcome}"] += 1
            explained = scores.target[row].reshape(-1).tolist()
            found.groups += [index * len(OUTCOMES) + OUTCOMES.index(outcome) for index in explained]
            found.images += [batch.names[rows[row]]] * len(explained)
            found.classes += explained
        found.means.append(scores.means)
        found.values.append(scores.values.reshape(-1, *scores.values.shape[-3:]).double().cpu())
    return found


def _explainable(
    batch: Batch, target: str, device: torch.device, counts: dict[str, int]
) -> Iterator[tuple[torch.Tensor, Any, list[int]]]:
    """Yield pixel values, targets and places in the batch of images explained in one go; count the unlabelled."""
    if batch.pixel_values is None:
        return
    pixels = batch.pixel_values.to(device)
    if target == "predicted":
        yield pixels, None, list(range(len(pixels)))
        return
    # Images with equally many labels go together: their targets make a rectangle.
    rows = sorted(range(len(batch.labels)), key=lambda row: len(batch.labels[row] or ()))
    for num_labels, members in groupby(rows, key=lambda row: len(batch.labels[row] or ())):
        alike = list(members)
        if num_labels == 0:
            counts["num_unlabelled"] += len(alike)
            continue
        yield pixels[alike], torch.tensor([batch.labels[row] for row in alike]), alike
