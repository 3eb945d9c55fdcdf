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
from gmar_hf.evaluation.results import Evaluation
from gmar_hf.evaluation.rows_and_columns import Row
from gmar_hf.images.image_file import reason
from gmar_hf.images.placement import image_box, scale_box
from gmar_hf.models.model_inputs import checked_pixels
from gmar_hf.models.patches import pair, patch_grid, patch_size
from gmar_hf.plotting import overlay
from gmar_hf.runs.batches import processed
from gmar_hf.runs.progress import say

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
        `list` of [`Picture`]: At most twelve, the furthest apart first. An image that cannot be drawn is named and
            left out: the figures, which took hours, do without.
    """
    pictures = []
    for place in telling_rows(evaluation):
        try:
            pictures.append(_draw(evaluation, place, model, data, image_processor, methods, device))
        except Exception as error:
            say(f"No picture of {evaluation.rows[place].image!r}: {reason(error)}")
    return pictures


def telling_rows(evaluation: Evaluation) -> list[int]:
    """Return the places of the rows whose figures scatter most between methods, one of each image, twelve at most."""
    keys = [metric.key for metric in evaluation.metrics]
    figures = evaluation.values[:, :, keys.index(_SHOWN_BY) if _SHOWN_BY in keys else 0]
    # Scatter of the figures that there are, by row.
    known = np.isfinite(figures)
    means = np.where(known, figures, 0).sum(axis=1) / known.sum(axis=1).clip(1)
    scatter = np.where(known, (figures - means[:, None]) ** 2, 0).sum(axis=1)
    places: dict[int, int] = {}
    for place in np.argsort(-scatter, kind="stable"):
        places.setdefault(evaluation.rows[place].index, int(place))
    return list(places.values())[:NUM_PICTURES]


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
    values = sample.error if sample.image is None else processed([sample], image_processor)[0]
    if not isinstance(values, torch.Tensor):  # it could be read before
        raise ArgumentError(f"`dataset` must not change while it is evaluated; {row.image!r} cannot be read now.")
    pixels = checked_pixels(model, values[None].to(device))
    target = torch.tensor([row.target], device=device)

    # The maps lie over the image itself; without one, over its pixel values.
    grid, (patch_height, patch_width) = patch_grid(model, pixels), patch_size(model)
    covered = (grid.rows * patch_height, grid.cols * patch_width)
    if isinstance(sample.image, Image.Image):
        image = sample.image
        box = image_box(image.size, image_processor, pair(pixels.shape[-2:]), covered)
    else:
        image, box = _as_image(pixels[0]), (0.0, 0.0, float(covered[1]), float(covered[0]))
    overlays, small = {}, _resized(image)
    small_box = scale_box(box, image.size, small.size)
    for method in methods:
        maps = method.draw(model, pixels, target)[0].detach().float().cpu()
        overlays[method.name] = overlay(small, maps, box=small_box)

    # The figure that stands below each map.
    figures = {}
    if any(metric.key == _SHOWN_BY for metric in evaluation.metrics):
        figures = {method.name: float(evaluation.of(method.name, _SHOWN_BY)[place]) for method in methods}
    return Picture(image=small, row=row, overlays=overlays, figures=figures)


def _as_image(pixels: torch.Tensor) -> Image.Image:
    """Make an image of pixel values (channels, height, width): black the least of them, white the largest."""
    values = pixels.float().cpu()
    values = values[:3] if len(values) >= 3 else values[:1].expand(3, -1, -1)
    values = (values - values.min()) / (values.max() - values.min()).clamp_min(1e-12)
    return Image.fromarray((values.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8))


def _resized(image: Image.Image) -> Image.Image:
    """Bring an image to at most 256 pixels in width and height, and enlarge a tiny one."""
    if max(image.size) < _LEAST_SIDE:
        factor = -(-_LEAST_SIDE // max(image.size))
        return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    small = image.copy()
    small.thumbnail((256, 256))
    return small
