"""The unit of a survey's work: a fixed batch of samples, read and processed."""

import signal
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

from gmar_hf.data import MapData, Sample, StreamData
from gmar_hf.errors import ArgumentError, GMARError
from gmar_hf.images.flat_patches import pixel_values_of
from gmar_hf.images.image_file import reason
from gmar_hf.images.placement import place_mask
from gmar_hf.images.resizing import check_enlargement
from gmar_hf.utils.iteration import no_stop_iteration


@dataclass(kw_only=True)
class Batch:
    """What a survey reads at once.

    Args:
        number (`int`): Of the batch, the same however many processes share the work (of streams: for so many).
        size (`int`): Samples read, bad ones too.
        names (`list[str]`): Of the good ones.
        places (`list[int]`): Of the good ones: where they stand in the data, or in a process's share of a stream.
        labels (`list`): Of the good ones: a tuple of classes each, or None where the data has none.
        pixel_values (`torch.Tensor` of shape (good ones, channels, height, width), *optional*): None without any.
        unreadable (`list[dict[str, str]]`): `image` and `reason` of the bad ones.
        masks (`list[dict[int | None, torch.Tensor]]`): Of the good ones, by class: bool (height, width) in the frame
            of `pixel_values`, false where those are padded. Under None: that of whatever class is explained. Empty
            where no masks are known.
    """

    number: int
    size: int
    names: list[str] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    labels: list[tuple[int, ...] | None] = field(default_factory=list)
    pixel_values: torch.Tensor | None = None
    unreadable: list[dict[str, str]] = field(default_factory=list)
    masks: list[dict[int | None, torch.Tensor]] = field(default_factory=list)


def map_loader(
    data: MapData, order: Sequence[int], numbers: list[int], batch_size: int, image_processor: Any, num_workers: int
) -> Iterator[Batch]:
    """Read the batches of these numbers: number n holds places n * batch_size to (n + 1) * batch_size of `order`.

    Raises:
        GMARError: What reading raised, in the same words whether a worker reads or not.
    """
    loader = DataLoader(
        _MapBatches(data, order, batch_size, image_processor),
        batch_size=None,
        sampler=numbers,
        num_workers=num_workers,
        worker_init_fn=_leave_interrupts_to_the_main_process,
        generator=torch.Generator(),  # or a number is drawn from the user's
    )
    for _, batch in zip(numbers, loader, strict=True):  # a loader that ends early has not read the data
        if isinstance(batch, GMARError):
            raise batch
        yield batch


def stream_loader(
    data: StreamData,
    first: int,
    stop: int | None,
    rank: int,
    num_processes: int,
    batch_size: int,
    image_processor: Any,
) -> DataLoader[Any]:
    """Read a process's own share of a stream from its batch `first` on, up to its sample `stop`."""
    batches = _StreamBatches(data, first, stop, rank, num_processes, batch_size, image_processor)
    return DataLoader(batches, batch_size=None, generator=torch.Generator())


class _MapBatches(Dataset[Any]):
    def __init__(self, data: MapData, order: Sequence[int], batch_size: int, image_processor: Any) -> None:
        self._data, self._order, self._batch_size, self._processor = data, order, batch_size, image_processor

    def __getitem__(self, number: int) -> Batch | GMARError:
        """Return a batch, or its error: raised in a worker it would come out with its traceback as text."""
        places = [int(index) for index in self._order[number * self._batch_size : (number + 1) * self._batch_size]]
        try:
            with no_stop_iteration("data", f"a batch of items {places[0]} and others"):
                samples = [self._data.read(place) for place in places]
                return _batch(number, samples, places, self._processor)
        except GMARError as error:
            if error.__cause__ is not None and get_worker_info() is not None:  # which does not come along
                error.add_note("".join(traceback.format_exception(error.__cause__)))
            return error


class _StreamBatches(IterableDataset[Any]):
    def __init__(
        self,
        data: StreamData,
        first: int,
        stop: int | None,
        rank: int,
        num_processes: int,
        batch_size: int,
        image_processor: Any,
    ) -> None:
        self._data, self._first, self._stop = data, first, stop
        self._rank, self._num_processes = rank, num_processes
        self._batch_size, self._processor = batch_size, image_processor

    def __iter__(self) -> Iterator[Batch]:
        place = self._first * self._batch_size
        samples: list[Sample] = []
        for sample in self._data.read(self._rank, self._num_processes, skip=place):
            if self._stop is not None and place >= self._stop:
                break
            samples.append(sample)
            place += 1
            if len(samples) == self._batch_size:
                yield self._cut(place, samples)
                samples = []
        if samples:
            yield self._cut(place, samples)

    def _cut(self, place: int, samples: list[Sample]) -> Batch:
        own_number = (place - 1) // self._batch_size
        number = own_number * self._num_processes + self._rank
        return _batch(number, samples, list(range(place - len(samples), place)), self._processor)


def _batch(number: int, samples: list[Sample], places: list[int], image_processor: Any) -> Batch:
    batch = Batch(number=number, size=len(samples))
    good: list[tuple[Sample, int]] = []
    for sample, place in zip(samples, places, strict=True):
        if sample.image is None:
            batch.unreadable.append({"image": sample.name, "reason": sample.error or "unreadable"})
        else:
            good.append((sample, place))
    pixels = processed([sample for sample, _ in good], image_processor)
    for (sample, place), pixel_values in zip(good, pixels, strict=True):
        if isinstance(pixel_values, Exception):
            batch.unreadable.append({"image": sample.name, "reason": reason(pixel_values)})
        else:
            batch.names.append(sample.name)
            batch.places.append(place)
            batch.labels.append(sample.labels)
            height, width = pixel_values.shape[-2:]
            batch.masks.append(_placed_masks(sample, image_processor, (height, width)))
    tensors = [tensor for tensor in pixels if isinstance(tensor, torch.Tensor)]
    if tensors:
        sizes = sorted({tuple(tensor.shape) for tensor in tensors})
        if len(sizes) > 1:
            raise ArgumentError(
                f"Images of one batch must leave the image processor in one size; got {sizes[0]} and {sizes[1]}. "
                "Pass `batch_size=1`, or give the processor a fixed size."
            )
        batch.pixel_values = torch.stack(tensors)
    return batch


def processed(samples: Sequence[Sample], image_processor: Any) -> list[torch.Tensor | Exception]:
    """Make pixel values of samples that have images.

    Args:
        samples (`Sequence` of [`Sample`]): Each with an image, or all with pixel values.
        image_processor: The model's; None will do where all have pixel values.

    Returns:
        Pixel values (channels, height, width) of every sample; an exception for an image that cannot be processed.

    Raises:
        ArgumentError: If there are images and no processor, images beside pixel values, or no image can be processed.
    """
    if all(isinstance(sample.image, torch.Tensor) for sample in samples):
        return [sample.image for sample in samples]  # type: ignore[misc]
    if image_processor is None:
        raise ArgumentError(
            "`image_processor` must be given where the data holds images; got None. "
            "Pass `AutoImageProcessor.from_pretrained(...)`, or items with `pixel_values`."
        )
    images = [sample.image for sample in samples if isinstance(sample.image, Image.Image)]
    if len(images) < len(samples):
        raise ArgumentError("`dataset` must hold images or `pixel_values`, not both. Drop one kind.")
    try:
        for image in images:
            check_enlargement(image.size, image_processor)
        return list(pixel_values_of(images, image_processor))
    except Exception as error:  # one odd image spoils its batch: find out which
        alone = [_attempt(image_processor, image) for image in images]
        if all(isinstance(found, Exception) for found in alone) and len(alone) > 1:
            raise ArgumentError(
                f"`image_processor` must take the data's images; got an error for every image of a batch ({error}). "
                "Check that it belongs to the model."
            ) from error
        return alone


def _placed_masks(sample: Sample, image_processor: Any, size: tuple[int, int]) -> dict[int | None, torch.Tensor]:
    """A sample's masks in the frame of its pixel values."""
    masks = sample.masks or {}
    if isinstance(sample.image, torch.Tensor):  # processed already, and so are they
        return {key: torch.from_numpy(mask) for key, mask in masks.items()}
    return {key: place_mask(mask, image_processor, size) for key, mask in masks.items()}


def _attempt(image_processor: Any, image: Any) -> torch.Tensor | Exception:
    try:
        check_enlargement(image.size, image_processor)
        return pixel_values_of([image], image_processor)[0]
    except Exception as error:
        return error


def _leave_interrupts_to_the_main_process(worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it finishes its batch, saves, and then ends the workers
