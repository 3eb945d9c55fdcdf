"""A batch of images through every method and metric."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn.functional import adaptive_avg_pool2d

from gmar_hf.evaluation.evaluation_checkpoint import Measured
from gmar_hf.evaluation.maps.drawing import draw_maps
from gmar_hf.evaluation.maps.method import MapMethod
from gmar_hf.evaluation.metric_columns import measure
from gmar_hf.evaluation.rows_and_columns import Metric, Row
from gmar_hf.explanation.finiteness import check_logits
from gmar_hf.images.baselines import baseline_pixels
from gmar_hf.metrics.fillings import Baseline, TokenRemoval
from gmar_hf.metrics.registry import METRICS
from gmar_hf.metrics.subject import Subject
from gmar_hf.models.freezing import frozen
from gmar_hf.models.introspection import label_names
from gmar_hf.models.labels import check_label_names
from gmar_hf.models.model_inputs import checked_pixels, forward
from gmar_hf.runs.batches import Batch


@dataclass(frozen=True, kw_only=True)
class Questions:
    """What is asked of every batch.

    Args:
        methods (`Sequence` of [`MapMethod`]): The maps.
        columns (`Sequence` of [`Metric`]): The figures.
        baselines (`Sequence[str]`): What becomes of hidden patches.
        explains_labels (`bool`): Whether every label of an image is explained, or its top logit.
        function (`str`): "softmax" or "sigmoid", which makes scores of logits.
        blur_sigma (`float`): Of the baseline "blur", in pixels.
        black (`torch.Tensor` of shape (channels, 1, 1), *optional*): Pixel values of black, for the baseline "black".
        patch_size (`tuple[int, int]`, *optional*): Of the model, in pixels; None if its config does not say.
        num_steps (`int`): Of the insertion and deletion curves.
        max_rows (`int`): Images with hidden patches that the model gets at once, at most.
        mosaic_side (`int`, *optional*): Photos in a row, and in a column, of every image; None where it is no mosaic.
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
    mosaic_side: int | None = None


class _Explained(NamedTuple):
    """A class of an image that is explained: a row of the results.

    Args:
        place (`int`): The image's place in the batch.
        target (`int`): The class.
        rival (`int`): The class whose map this one is compared with: the image's best other label, or without one
            the best other class.
        labels_first (`bool`, *optional*): Whether the model ranks the image's labels before all others; None where
            they are not known.
    """

    place: int
    target: int
    rival: int
    labels_first: bool | None


def measure_batch(
    model: nn.Module,
    batch: Batch,
    questions: Questions,
    device: torch.device,
    begun: Measured | None = None,
    after_method: Callable[[Measured], None] = lambda measured: None,
    after_forward: Callable[[float], None] = lambda seconds: None,
) -> Measured:
    """Draw and measure every method's maps.

    Args:
        model (`nn.Module`): The classifier, on `device`.
        batch ([`Batch`]): Its images.
        questions ([`Questions`]): What is asked.
        device (`torch.device`): Where pixel values go.
        begun ([`Measured`], *optional*): What an earlier call has found for the first methods.
        after_method (`Callable`): Gets what there is whenever one more method is done.
        after_forward (`Callable`): Gets the seconds of one forward of an image, times its explained classes, at once.

    Returns:
        [`Measured`]: A row for every explained class of an image; none if nothing could be read or explained.

    Raises:
        ArgumentError: If a method's maps are not of the shape that the model's patches have.
        NonFiniteError: If logits or maps are not finite.
        GMARError: If a method or metric raises it.
    """
    measured = Measured(
        number=batch.number,
        rows=[],
        values=np.zeros((0, len(questions.methods), len(questions.columns))),
        unreadable=batch.unreadable,
    )
    measured.counts["num_unreadable"] = len(batch.unreadable)
    if batch.pixel_values is None:
        return measured

    pixels = checked_pixels(model, batch.pixel_values.to(device))
    start = time.perf_counter()
    with torch.no_grad(), frozen(model):
        logits = forward(model, pixels).logits.float().cpu()
    check_logits(logits)
    seconds = time.perf_counter() - start
    check_label_names(model, logits.shape[1])
    explained = _choose_explained(batch, logits, questions.explains_labels)
    num_images = len({row.place for row in explained})
    measured.counts |= {"num_images": num_images, "num_unlabelled": len(batch.labels) - num_images}
    if not explained:
        return measured
    after_forward(seconds / len(pixels) * len(explained) / len(pixels))

    scores = logits.softmax(dim=-1) if questions.function == "softmax" else logits.sigmoid()
    names = label_names(model)
    measured.rows = [
        Row(
            image=batch.names[row.place],
            target=row.target,
            label=names[row.target],
            score=scores[row.place, row.target].item(),
            labels_first=row.labels_first,
            index=batch.places[row.place],
        )
        for row in explained
    ]
    if begun is not None and begun.rows == measured.rows:
        measured = begun
    else:
        measured.values = np.zeros((len(explained), 0, len(questions.columns)))
    _measure_methods(model, batch, pixels, explained, questions, measured, after_method)
    return measured


def _choose_explained(batch: Batch, logits: torch.Tensor, explains_labels: bool) -> list[_Explained]:
    """Choose the rows: every label of an image, none if it has none; or its top logit."""
    explained = []
    for place, known_labels in enumerate(batch.labels):
        labels = tuple(known_labels or ())
        ranking = logits[place].argsort(descending=True, stable=True).tolist()
        labels_first = set(ranking[: len(labels)]) == set(labels) if labels else None
        rivals = [*sorted(labels, key=ranking.index), *ranking]
        for target in labels if explains_labels else ranking[:1]:
            rival = next(label for label in rivals if label != target)
            explained.append(_Explained(place, target, rival, labels_first))
    return explained


def _measure_methods(
    model: nn.Module,
    batch: Batch,
    pixels: torch.Tensor,
    explained: Sequence[_Explained],
    questions: Questions,
    measured: Measured,
    after_method: Callable[[Measured], None],
) -> None:
    """Fill in what the maps of the explained classes come to, of those methods that are missing."""
    targets = [(row.place, row.target) for row in explained]
    rivals = [(row.place, row.rival) for row in explained]
    # A map is drawn once, also where one row's rival is another row's target; rivals' only where a metric compares.
    compares = any(METRICS[column.function].needs == "other_maps" for column in questions.columns)
    drawn = list(dict.fromkeys([*targets, *rivals] if compares else targets))
    drawn_pixels = pixels[[place for place, _ in drawn]]
    drawn_classes = torch.tensor([label for _, label in drawn], device=pixels.device)
    measured.num_maps = len(drawn)

    # What the maps are measured on is the same for all methods.
    places = [row.place for row in explained]
    masks = _masks(batch, targets, pixels, of_any_class=True)
    side = questions.mosaic_side
    subject = Subject(
        model=model,
        function=questions.function,
        pixel_values=pixels[places],
        target=torch.tensor([row.target for row in explained], device=pixels.device),
        fillings=_fillings(model, pixels, places, questions),
        masks=masks,
        other_masks=_masks(batch, rivals, pixels, of_any_class=False),
        patch_size=questions.patch_size,
        num_steps=questions.num_steps,
        max_rows=questions.max_rows,
        cell=None if side is None else _cells(masks, side),
        grid=(side or 1, side or 1),
    )
    for method in questions.methods[len(measured.seconds) :]:
        start = time.perf_counter()
        maps = draw_maps(method, model, drawn_pixels, drawn_classes, questions.patch_size)
        seconds, forwards = time.perf_counter() - start, method.forwards(maps[0].numel())
        maps = maps.to(pixels.device)
        rival_maps = maps[[drawn.index(pair) for pair in rivals]] if compares else None

        def draw(pixel_values: torch.Tensor, method: MapMethod = method) -> torch.Tensor:
            return draw_maps(method, model, pixel_values, subject.target, questions.patch_size)

        values, curves = measure(
            subject, maps[[drawn.index(pair) for pair in targets]], rival_maps, questions.columns, draw
        )
        # The methods' figures stand side by side; of curves the sum over the rows is kept.
        measured.values = np.concatenate([measured.values, values.numpy()[:, None]], axis=1)
        for key, curve in curves.items():
            summed = curve.scores.cpu().double().sum(dim=0).numpy()[None]
            before = measured.curves.get(key, summed[:0])
            measured.curves[key] = np.concatenate([before, summed])
            measured.curve_rows[key] = len(explained)
        measured.seconds.append(seconds)
        measured.forwards.append(forwards)
        after_method(measured)


def _fillings(
    model: nn.Module, pixels: torch.Tensor, places: Sequence[int], questions: Questions
) -> dict[str, Baseline]:
    """Make what becomes of the rows' hidden patches, by baseline; "other" only where there is another image.

    Args:
        places: Each row's image in the batch.
    """
    fillings: dict[str, Baseline] = {}
    for name in questions.baselines:
        if name in ("removed", "road"):
            fillings[name] = TokenRemoval(model) if name == "removed" else name
        elif name != "other" or len(pixels) > 1:
            baseline = questions.black.to(pixels) if name == "black" and questions.black is not None else name
            fillings[name] = baseline_pixels(pixels, baseline, blur_sigma=questions.blur_sigma)[places]
    return fillings


def _masks(
    batch: Batch, pairs: Sequence[tuple[int, int]], pixels: torch.Tensor, *, of_any_class: bool
) -> torch.Tensor:
    """Return where the classes' objects are (rows, height, width); empty where that is not known.

    Args:
        pairs: An image's place in the batch, and a class, for each row.
        of_any_class (`bool`): Whether a mask of no class in particular will do.
    """
    empty = torch.zeros(pixels.shape[-2:], dtype=torch.bool)
    masks = []
    for place, label in pairs:
        by_class = batch.masks[place] if batch.masks else {}
        masks.append(by_class.get(label, by_class.get(None, empty) if of_any_class else empty))
    return torch.stack(masks).to(pixels.device)


def _cells(masks: torch.Tensor, side: int) -> torch.Tensor:
    """Return in which cell of a mosaic, counted row by row, most of each mask (rows, height, width) lies."""
    return adaptive_avg_pool2d(masks.float()[:, None], side).flatten(1).argmax(dim=1)
