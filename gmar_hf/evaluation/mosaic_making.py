"""Mosaics of a data set's own photos, of which the model is sure."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from gmar_hf.data.mosaics import Mosaics, Photo, check_side, group_photos
from gmar_hf.data.opening import open_data
from gmar_hf.data.sample import MapData, digest
from gmar_hf.errors import ArgumentError
from gmar_hf.metrics.scores import FUNCTIONS
from gmar_hf.models.freezing import frozen
from gmar_hf.models.introspection import is_multi_label
from gmar_hf.models.model_inputs import checked_pixels, forward
from gmar_hf.runs.batches import map_loader
from gmar_hf.runs.plan import Plan
from gmar_hf.runs.processes import gather, joined, together
from gmar_hf.runs.progress import progress
from gmar_hf.runs.work import Work, open_work
from gmar_hf.utils.checks import check_share, check_whole

SURE = 0.9
"""The score from which the model counts as sure of a photo."""


def make_mosaics(
    model: nn.Module,
    dataset: Any,
    image_processor: Any,
    *,
    side: int = 2,
    limit: int | None = None,
    seed: int | None = 0,
    least_score: float = SURE,
    batch_size: int = 16,
    accelerator: Accelerator | None = None,
    **reading: Any,
) -> Mosaics:
    """Make mosaics for the grid pointing game of a labelled data set (Rao et al., CVPR 2022).

    Each shows photos of different classes that the model ranks first with a score of at least `least_score`. The same
    model, data and seed give the same mosaics; fewer are the first of more.

    Args:
        model (`nn.Module`): An image classifier of transformers.
        dataset: Images with one label each: what [`evaluate`] takes.
        image_processor: The model's.
        side (`int`, defaults to 2): Photos in a row, and in a column.
        limit (`int`, *optional*): Mosaics that are enough; by default as many as the photos make.
        seed (`int`, *optional*, defaults to 0): Of the order in which photos are taken; None is the data's own.
        least_score (`float`, defaults to 0.9): The softmax of the logit, or of labels that do not exclude each other
            the sigmoid, that the photo's class must have.
        batch_size (`int`, defaults to 16): Photos that the model sees at once.
        accelerator (`Accelerator`, *optional*): The calling script's; by default a new one.
        **reading: How the data are read: `split`, `data_revision` and `label_map` of [`evaluate`].

    Returns:
        [`Mosaics`]: A data set for [`evaluate`].

    Raises:
        ArgumentError: If something cannot be used, or the model is not sure of photos for one mosaic.
    """
    reading["revision"] = reading.pop("data_revision", None)
    plan = Plan(batch_size=batch_size, target="label", limit=limit, shuffle_seed=seed)
    names = dict.fromkeys(("model_id", "model_revision", "data_id"))
    work = open_work(model, dataset, image_processor, plan, joined(accelerator), **names, reading=reading)
    return find_mosaics(work, side, least_score)


def find_mosaics(work: Work, side: int, least_score: float = SURE) -> Mosaics:
    """Make mosaics of the photos of a run; its plan's limit counts mosaics, its seed orders the photos.

    Every process has to call it; the first one looks at the photos.

    Raises:
        ArgumentError: As [`make_mosaics`] says.
    """
    check_whole("mosaics", side, minimum=2)
    check_share("least_score", least_score)
    check_side(side, len(work.described["labels"]))
    if not isinstance(work.data, MapData) or not work.data.has_labels:
        raise ArgumentError(
            "`dataset` must be of known length and have labels for `mosaics` (`--mosaics`), which show a photo of "
            "another class in each cell; got data without any, or of unknown length. Sort the photos into a folder "
            "for each class, or leave mosaics out."
        )

    def find() -> list[list[Photo]]:
        if not work.accelerator.is_main_process:
            return []
        groups = group_photos(_sure_photos(work, least_score), side * side, work.plan.limit)
        if not groups:
            raise ArgumentError(
                f"`dataset` must hold photos of {side * side} classes, one label each, that the model ranks first "
                f"with a score of {least_score:g} or more; it has not. Leave `mosaics` (`--mosaics`) out."
            )
        return groups

    with work.on_device():
        groups = gather(together(find))
    return Mosaics(work.data, groups, side)


def work_on_mosaics(work: Work, side: int) -> Work:
    """Put mosaics of a run's photos in the place of its data; every class of each is explained.

    Args:
        work ([`Work`]): Model and photos.
        side (`int`): Photos in a row, and in a column. Without a seed in the plan it is 0.

    Raises:
        ArgumentError: As [`make_mosaics`] says.
    """
    seed = work.plan.shuffle_seed or 0
    mosaics = find_mosaics(replace(work, plan=replace(work.plan, shuffle_seed=seed)), side)
    data = open_data(mosaics, dict(enumerate(work.described["labels"])), use_masks=True)
    photos = work.data.identity
    data.identity |= {
        **{name: photos[name] for name in ("is_local", "revision", "split")},
        "id": f"{photos['id']}, as mosaics",
        "fingerprint": digest("mosaics", photos["fingerprint"], side, mosaics.groups),
    }
    data.label_reading = work.data.label_reading
    return replace(work, data=data, plan=replace(work.plan, target="label"))


def _sure_photos(work: Work, least_score: float) -> Iterator[Photo]:
    """Look at photos in the order of the seed; yield those whose only label the model ranks first, and is sure of."""
    data, plan, device = work.data, work.plan, work.accelerator.device
    assert isinstance(data, MapData)
    order = replace(plan, limit=None).order(len(data))
    numbers = list(range(-(-len(order) // plan.batch_size)))
    loader = map_loader(data, order, numbers, plan.batch_size, work.image_processor, plan.num_workers)
    function = FUNCTIONS["sigmoid" if is_multi_label(work.model) else "softmax"]
    with progress(0, len(data), hidden=False, what="mosaics") as bar:
        for batch in loader:
            bar.update(batch.size)
            if batch.pixel_values is None:
                continue
            pixels = checked_pixels(work.model, batch.pixel_values.to(device))
            with torch.no_grad(), frozen(work.model):
                logits = forward(work.model, pixels).logits.float().cpu()
            scores = function(logits)
            for place, labels, ranked_first, row in zip(
                batch.places, batch.labels, logits.argmax(dim=-1).tolist(), scores, strict=True
            ):
                if labels == (ranked_first,) and row[ranked_first] >= least_score:
                    yield place, ranked_first
