"""A batch of images through every method and metric."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from gmar_hf.errors import ArgumentError
from gmar_hf.evaluation.checkpoint import Measured
from gmar_hf.evaluation.columns import measure
from gmar_hf.evaluation.maps.method import MapMethod
from gmar_hf.evaluation.results import Metric, Row
from gmar_hf.images.baselines import baseline_pixels
from gmar_hf.metrics.registry import METRICS
from gmar_hf.metrics.subject import Subject
from gmar_hf.models.freezing import frozen
from gmar_hf.models.inputs import checked_pixels
from gmar_hf.models.introspection import label_names
from gmar_hf.runs.batches import Batch


@dataclass(frozen=True)
class Questions:
    """What is asked of every batch.

    Args:
        methods (`Sequence` of [`MapMethod`]): The maps.
        columns (`Sequence` of [`Metric`]): The figures.
        baselines (`Sequence[str]`): What hidden patches show.
        explains_labels (`bool`): Whether every label of an image is explained, or its top logit.
        function (`str`): "softmax" or "sigmoid".
        blur_sigma (`float`): Of the baseline "blur", in pixels.
        black (`torch.Tensor` of shape (channels, 1, 1), *optional*): Pixel values of black, for the baseline "black".
        patch_size (`tuple[int, int]`, *optional*): Of the model, in pixels; None if its config does not say.
        num_steps, max_rows (`int`): As of [`insertion`].
    """

    methods: Sequence[MapMethod]
    columns: Sequence[Metric]
    baselines: Sequence[str]
    explains_labels: bool
    function: str
    blur_sigma: float
    black: torch.Tensor | None
    patch_size: tuple[int, int] | None
    num_steps: int
    max_rows: int


def measure_batch(model: nn.Module, batch: Batch, questions: Questions, device: torch.device) -> Measured:
    """Draw and measure every method's maps.

    Args:
        model (`nn.Module`): The classifier, on `device`.
        batch ([`Batch`]): Its images.
        questions ([`Questions`]): What is asked.
        device (`torch.device`): Where pixel values go.

    Raises:
        ArgumentError: If a method's maps are not of the shape that the model's patches have, or not finite.
        GMARError: As the methods and metrics.
    """
    found = Measured(batch.number, [], np.zeros((0, len(questions.methods), len(questions.columns))))
    found.tallies["num_unreadable"] = len(batch.unreadable)
    found.unreadable = batch.unreadable
    if batch.pixel_values is None:
        return found
    pixels = checked_pixels(model, batch.pixel_values.to(device))
    with torch.no_grad(), frozen(model):
        logits = model(pixel_values=pixels).logits.float().cpu()
    scores = logits.softmax(dim=-1) if questions.function == "softmax" else logits.sigmoid()
    places: list[int] = []
    others: list[int] = []
    for place, labels in enumerate(batch.labels):
        known = tuple(labels or ())
        if questions.explains_labels and not known:
            found.tallies["num_unlabelled"] += 1
            continue
        found.tallies["num_images"] += 1
        ranking = logits[place].argsort(descending=True, stable=True).tolist()
        first = set(ranking[: len(known)]) == set(known) if known else None
        for target in known if questions.explains_labels else ranking[:1]:
            label = label_names(model)[target]
            row = Row(batch.names[place], target, label, scores[place, target].item(), first, batch.places[place])
            found.rows.append(row)
            places.append(place)
            others.append(next(one for one in [*_by_rank(known, ranking), *ranking] if one != target))
    if found.rows:
        _measure_rows(model, batch, pixels, places, others, questions, found)
    return found


def _measure_rows(
    model: nn.Module,
    batch: Batch,
    pixels: torch.Tensor,
    places: list[int],
    others: list[int],
    questions: Questions,
    found: Measured,
) -> None:
    """Fill in `found`, whose rows are classes of the images at `places`, each beside another class."""
    targets = [row.target for row in found.rows]
    own = list(zip(places, targets, strict=True))
    against = list(zip(places, others, strict=True))
    needs_others = any(METRICS[column.function].needs == "other_maps" for column in questions.columns)
    pairs = list(dict.fromkeys([*own, *against] if needs_others else own))  # each is drawn once
    drawn_pixels = pixels[[place for place, _ in pairs]]
    drawn_targets = torch.tensor([target for _, target in pairs], device=pixels.device)
    subject = Subject(
        model,
        questions.function,
        pixels[places],
        torch.tensor(targets, device=pixels.device),
        _fillings(pixels, places, questions),
        _masks(batch, own, pixels, anything=True),
        _masks(batch, against, pixels, anything=False),
        questions.patch_size,
        questions.num_steps,
        questions.max_rows,
    )
    values = []
    found.num_maps = len(pairs)
    for method in questions.methods:
        start = time.perf_counter()
        maps = _checked(method, _drawn(method, model, drawn_pixels, drawn_targets), len(pairs))
        _check_grid(method, maps, pixels, questions.patch_size)
        found.seconds.append(time.perf_counter() - start)
        found.forwards.append(method.forwards(maps[0].numel()))
        maps = maps.to(pixels.device)
        other_maps = maps[[pairs.index(pair) for pair in against]] if needs_others else maps[: len(own)]
        figures, curves = measure(subject, maps[[pairs.index(pair) for pair in own]], other_maps, questions.columns)
        values.append(figures)
        for key, curve in curves.items():
            total = curve.scores.double().sum(dim=0, keepdim=True).cpu().numpy()
            found.curves[key] = np.concatenate([found.curves[key], total]) if key in found.curves else total
            found.curve_rows[key] = len(own)
    found.values = torch.stack(values, dim=1).numpy()


def _by_rank(labels: Sequence[int], ranking: Sequence[int]) -> list[int]:
    return sorted(labels, key=ranking.index)


def _fillings(pixels: torch.Tensor, places: list[int], questions: Questions) -> dict[str, torch.Tensor]:
    """What hidden patches of every row show; another image's where there is another."""
    found = {}
    for name in questions.baselines:
        filling = questions.black.to(pixels) if name == "black" and questions.black is not None else name
        if name != "other" or len(pixels) > 1:
            found[name] = baseline_pixels(pixels, filling, blur_sigma=questions.blur_sigma)[places]
    return found


def _masks(batch: Batch, pairs: list[tuple[int, int]], pixels: torch.Tensor, *, anything: bool) -> torch.Tensor:
    """Where the classes' objects are; empty where that is not known.

    Args:
        anything (`bool`): Whether a mask of no class in particular will do.
    """
    empty = torch.zeros(pixels.shape[-2:], dtype=torch.bool)
    found = []
    for place, target in pairs:
        masks = batch.masks[place] if batch.masks else {}
        found.append(masks.get(target, masks.get(None, empty) if anything else empty))
    return torch.stack(found).to(pixels.device)


def _drawn(method: MapMethod, model: nn.Module, pixels: torch.Tensor, targets: torch.Tensor) -> object:
    try:
        return method.draw(model, pixels, targets)
    except Exception as error:
        error.add_note(f'This happened in the function of the map "{method.name}".')
        raise


def _check_grid(
    method: MapMethod, maps: torch.Tensor, pixels: torch.Tensor, patch_size: tuple[int, int] | None
) -> None:
    """Refuse maps of another resolution: they would be measured by other patches than all the rest."""
    if patch_size is None:
        return
    grid = tuple(side // size for side, size in zip(pixels.shape[-2:], patch_size, strict=True))
    if maps.shape[1:] != grid:
        raise ArgumentError(
            f"`methods` must give one value for each of the model's {grid[0]} x {grid[1]} patches; "
            f'"{method.name}" gave {maps.shape[1]} x {maps.shape[2]}. Average its map over patches.'
        )


def _checked(method: MapMethod, maps: object, rows: int) -> torch.Tensor:
    if not isinstance(maps, torch.Tensor):
        got = type(maps).__name__
    elif maps.ndim != 3 or len(maps) != rows or maps.numel() == 0:
        got = f"shape {tuple(maps.shape)}"
    elif not maps.isfinite().all():
        got = "NaN or infinity"
    else:
        return maps.detach().float()
    raise ArgumentError(
        f"`methods` must give finite maps of shape (rows, grid rows, grid columns), here of {rows} rows; "
        f'"{method.name}" gave {got}. Mend its function.'
    )
