"""The most telling images: those on which the methods are furthest apart."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from gmar_hf.data import MapData
from gmar_hf.errors import ArgumentError
from gmar_hf.evaluation.maps.method import MapMethod
from gmar_hf.evaluation.output.page import Picture
from gmar_hf.evaluation.results import Evaluation, Row
from gmar_hf.images.placement import heatmap, image_box
from gmar_hf.models.inputs import checked_pixels
from gmar_hf.models.patches import pair, patch_grid, patch_size
from gmar_hf.plotting import overlay
from gmar_hf.runs.batches import processed

NUM_PICTURES = 12
_SHOWN_BY = "insertion_minus_deletion"
_LEAST_SIDE = 128  # pixels that a small picture is enlarged to


def draw_pictures(
    evaluation: Evaluation,
    model: nn.Module,
    data: MapData,
    image_processor: Any,
    methods: Sequence[MapMethod],
    device: torch.device,
) -> list[Picture]:
    """Draw every method's map over the images on which their figures scatter most; each image once.

    Args:
        evaluation ([`Evaluation`]): What was measured.
        model (`nn.Module`): The classifier, on `device`.
        data ([`MapData`]), image_processor: What it was measured on.
        methods (`Sequence` of [`MapMethod`]): Those of the evaluation.
        device (`torch.device`): Where pixel values go.

    Returns:
        `list` of [`Picture`]: At most twelve, the furthest apart first.
    """
    return [
        _draw(evaluation, place, model, data, image_processor, methods, device) for place in telling_rows(evaluation)
    ]


def telling_rows(evaluation: Evaluation, count: int = NUM_PICTURES) -> list[int]:
    """The rows whose figures scatter most between methods, one of each image."""
    keys = [metric.key for metric in evaluation.metrics]
    figures = evaluation.values[:, :, keys.index(_SHOWN_BY) if _SHOWN_BY in keys else 0]
    known = np.isfinite(figures)
    means = np.where(known, figures, 0).sum(axis=1) / known.sum(axis=1).clip(1)
    scatter = np.where(known, (figures - means[:, None]) ** 2, 0).sum(axis=1)
    found: dict[int, int] = {}
    for place in np.argsort(-scatter, kind="stable"):
        found.setdefault(evaluation.rows[place].index, int(place))
    return list(found.values())[:count]


def _draw(
    evaluation: Evaluation,
    place: int,
    model: nn.Module,
    data: MapData,
    image_processor: Any,
    methods: Sequence[MapMethod],
    device: torch.device,
) -> Picture:
    row: Row = evaluation.rows[place]
    sample = data.read(row.index)
    (seen,) = processed([sample], image_processor)
    if isinstance(seen, Exception):  # it could be read before
        raise ArgumentError(f"`dataset` must not change while it is evaluated; {row.image!r} cannot be read now.")
    pixels = checked_pixels(model, seen[None].to(device))
    target = torch.tensor([row.target], device=device)
    grid, (patch_height, patch_width) = patch_grid(model, pixels), patch_size(model)
    covered = (grid.rows * patch_height, grid.cols * patch_width)
    if isinstance(sample.image, Image.Image):
        image = sample.image
        box = image_box(image.size, image_processor, pair(pixels.shape[-2:]), covered)
    else:
        image, box = _shown(pixels[0]), (0.0, 0.0, float(covered[1]), float(covered[0]))
    overlays = {}
    for method in methods:
        maps = method.draw(model, pixels, target)[0].detach().float().cpu()
        overlays[method.name] = overlay(image, heatmap(maps, box, image.size))
    keys = [metric.key for metric in evaluation.metrics]
    figures = {}
    if _SHOWN_BY in keys:
        found = evaluation.values[place, :, keys.index(_SHOWN_BY)]
        figures = {method.name: float(found[number]) for number, method in enumerate(methods)}
    return Picture(
        image=_enlarged(image), row=row, overlays={k: _enlarged(v) for k, v in overlays.items()}, figures=figures
    )


def _shown(pixels: torch.Tensor) -> Image.Image:
    """Processed pixel values (channels, height, width) as a picture: each from its least to its largest value."""
    values = pixels.float().cpu()
    values = values[:3] if len(values) >= 3 else values[:1].expand(3, -1, -1)
    values = (values - values.min()) / (values.max() - values.min()).clamp_min(1e-12)
    return Image.fromarray((values.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8))


def _enlarged(image: Image.Image) -> Image.Image:
    """At most 256 pixels wide and high, and not tiny."""
    if max(image.size) < _LEAST_SIDE:
        factor = -(-_LEAST_SIDE // max(image.size))
        return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    small = image.copy()
    small.thumbnail((256, 256))
    return small
