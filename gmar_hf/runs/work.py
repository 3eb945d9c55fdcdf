"""What a run is about: model, data and processes, opened from what the user named."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from accelerate import Accelerator
from torch import nn

from gmar_hf.data.opening import open_data
from gmar_hf.data.sample import MapData, StreamData
from gmar_hf.errors import ArgumentError
from gmar_hf.models.model_check import checked_model
from gmar_hf.models.wrappers import is_sharded
from gmar_hf.runs.identity import describe_model
from gmar_hf.runs.plan import Plan


@dataclass(frozen=True, kw_only=True, eq=False)
class Work:
    """Model and data of a run, opened.

    Args:
        model (`nn.Module`): The classifier.
        described (`dict[str, Any]`): What results say of the model.
        data ([`MapData`] or [`StreamData`]): The images.
        image_processor: The model's, or None.
        plan ([`Plan`]): How the run goes.
        accelerator (`Accelerator`): The processes that share it.
    """

    model: nn.Module
    described: dict[str, Any]
    data: MapData | StreamData
    image_processor: Any
    plan: Plan
    accelerator: Accelerator

    @property
    def num_images(self) -> int | None:
        """How many images there are to look at; None where that is not known."""
        if isinstance(self.data, StreamData):
            return self.plan.limit
        return self.plan.num_taken(len(self.data))

    @contextmanager
    def on_device(self) -> Iterator[None]:
        """Keep the model on the accelerator's device inside the block, and put it back afterwards."""
        device = next(self.model.parameters()).device
        # A model with a device map, or whose weights Accelerate fetches for each forward, stays where it is.
        is_placed = hasattr(self.model, "hf_device_map") or any(weight.is_meta for weight in self.model.parameters())
        is_elsewhere = device != self.accelerator.device and not is_placed
        try:
            if is_elsewhere:
                self.model.to(self.accelerator.device)
            yield
        finally:
            if is_elsewhere:
                self.model.to(device)


def open_work(
    model: nn.Module,
    dataset: Any,
    image_processor: Any,
    plan: Plan,
    accelerator: Accelerator,
    *,
    model_id: str | None,
    model_revision: str | None,
    data_id: str | None,
    reading: Mapping[str, Any],
) -> Work:
    """Open model and data, and check that they fit the plan.

    Args:
        model (`nn.Module`): The classifier.
        dataset: What the user gave as data.
        image_processor: The model's, or None.
        plan ([`Plan`]): How the run goes.
        accelerator (`Accelerator`): The processes that share it.
        model_id, data_id (`str`, *optional*): What results call model and data, if not what they were loaded as.
        model_revision (`str`, *optional*): The model's revision that was asked for, if not the main branch.
        reading (`Mapping[str, Any]`): How the data are read: keyword arguments of [`open_data`].

    Raises:
        ArgumentError, ArgumentTypeError, UnsupportedModelError: If something cannot be used; the message says what.
    """
    model = checked_model(model)
    if is_sharded(model):
        raise ArgumentError(
            "`model` must be whole in every process (they take different numbers of batches); got one whose weights "
            "are sharded over processes. Load it without `fully_shard`."
        )
    described = describe_model(model, model_id, model_revision)
    data = open_data(dataset, dict(enumerate(described["labels"])), **reading)
    if plan.target == "label" and data.has_labels is False:
        raise ArgumentError('`target` "label" needs labels; got data without any. Use target "predicted".')
    if plan.part is not None:
        _check_part_of(data, plan)
    if data_id is not None:
        data.identity["id"] = data_id
    return Work(
        model=model,
        described=described,
        data=data,
        image_processor=image_processor,
        plan=plan,
        accelerator=accelerator,
    )


def _check_part_of(data: MapData | StreamData, plan: Plan) -> None:
    """Refuse a part of what cannot be cut, or has fewer images than parts."""
    assert plan.part is not None
    if isinstance(data, StreamData):
        raise ArgumentError(
            "`part` (`--part`) must be left out for streaming data, which come in one order only; got one. Give every "
            "job files of its own, and tell them apart by `data_id`."
        )
    if not plan.num_taken(len(data)):
        raise ArgumentError(
            f"`part` (`--part`) must be of at most as many parts as there are images ({len(data):,}, before any "
            f"`limit`); got {plan.part[0]}/{plan.part[1]}. Cut fewer parts."
        )
