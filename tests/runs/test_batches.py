"""What a batch holds beside pixel values; how surveys cut and share batches is tested with them."""

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from torch.utils.data import IterableDataset

import gmar_hf.demo
from gmar_hf.data import Sample, open_data
from gmar_hf.errors import ArgumentError
from gmar_hf.runs.batches import map_loader, processed, stream_loader

LABELS = dict(enumerate("abcdef"))
PROCESSOR = transformers.ViTImageProcessorPil(size=dict(height=8, width=8))


def batches(items, batch_size=2, image_processor=PROCESSOR, order=None, use_masks=True, num_workers=0):
    data = open_data(items, LABELS, use_masks=use_masks)
    numbers = list(range(-(-len(data) // batch_size)))
    return list(map_loader(data, order or range(len(data)), numbers, batch_size, image_processor, num_workers))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_masks_of_scenes_are_those_of_the_pixels(num_workers):
    scenes = gmar_hf.demo.scenes(5)
    image_processor = transformers.ViTImageProcessorPil(size=dict(height=64, width=64))
    found = batches(scenes, 2, image_processor, order=[4, 0, 2, 1, 3], num_workers=num_workers)
    assert [batch.places for batch in found] == [[4, 0], [2, 1], [3]]
    for batch in found:
        assert len(batch.masks) == len(batch.names) == len(batch.pixel_values)
        for place, masks in zip(batch.places, batch.masks, strict=True):
            assert {key: mask.tolist() for key, mask in masks.items()} == {
                key: mask.tolist() for key, mask in scenes[place]["masks"].items()
            }


def test_without_masks():
    scenes = gmar_hf.demo.scenes(3)
    assert [batch.masks for batch in batches(scenes, use_masks=False)] == [[{}, {}], [{}]]
    with_one = [{"image": scene["image"]} for scene in scenes]
    with_one[1]["mask"] = np.ones((64, 64), dtype=bool)
    first, second = batches(with_one)
    assert first.masks[0] == {}
    assert list(first.masks[1]) == [None]
    assert second.masks == [{}]


def test_masks_are_in_the_frame_of_the_pixel_values():
    mask = np.zeros((16, 32), dtype=bool)
    mask[4:8, 8:20] = True
    item = {"image": Image.new("RGB", (32, 16)), "masks": {1: mask, None: ~mask}}
    (batch,) = batches([item, item | {"image": Image.new("RGB", (8, 8)), "masks": {2: np.eye(8, dtype=bool)}}])
    expected = torch.zeros(8, 8, dtype=torch.bool)
    expected[2:4, 2:5] = True
    assert list(batch.masks[0]) == [1, None]
    assert torch.equal(batch.masks[0][1], expected)
    assert torch.equal(batch.masks[0][None], ~expected)
    assert torch.equal(batch.masks[1][2], torch.eye(8, dtype=torch.bool))


def test_masks_of_processed_pixels_are_as_they_are():
    mask = np.random.default_rng(0).random((6, 9)) < 0.5
    (batch,) = batches([{"pixel_values": torch.zeros(3, 6, 9), "mask": mask}], image_processor=None)
    assert batch.masks[0][None].dtype == torch.bool
    assert batch.masks[0][None].tolist() == mask.tolist()


def test_bad_images_have_no_place():
    good = {"image": Image.new("RGB", (8, 8)), "mask": np.eye(8, dtype=bool), "label": 3}
    items = [good | {"image": None}, good, good | {"mask": "gone.png"}, good]
    (batch,) = batches(items, batch_size=4)
    assert (batch.size, batch.places, batch.names) == (4, [1, 3], ["item 1", "item 3"])
    assert batch.labels == [(3,), (3,)]
    assert [masks[None].tolist() for masks in batch.masks] == [np.eye(8, dtype=bool).tolist()] * 2
    assert [one["image"] for one in batch.unreadable] == ["item 0", "item 2"]


def test_places_in_a_stream():
    class Stream(IterableDataset):
        def __iter__(self):
            return ({"image": Image.new("RGB", (8, 8)), "mask": np.eye(8) > number} for number in range(7))

    for rank, expected in ((0, [[0, 1], [2, 3]]), (1, [[0, 1], [2]])):
        found = list(stream_loader(open_data(Stream(), LABELS, use_masks=True), 0, None, rank, 2, 2, PROCESSOR))
        assert [batch.places for batch in found] == expected
        assert [int(masks[None].sum()) for masks in found[0].masks] == [8 if rank == 0 else 0, 0]
    (last,) = stream_loader(open_data(Stream(), LABELS), 1, None, 0, 2, 2, PROCESSOR)
    assert (last.number, last.places, last.names, last.masks) == (2, [2, 3], ["item 4", "item 6"], [{}, {}])


def test_pixel_values_of_samples():
    image = Image.new("RGB", (4, 4), (255, 255, 255))
    (found,) = processed([Sample("a", image, None)], PROCESSOR)
    assert found.shape == (3, 8, 8)
    assert processed([Sample("a", found, None)], None)[0] is found
    with pytest.raises(ArgumentError, match="`image_processor` must be given where the data holds images"):
        processed([Sample("a", image, None)], None)


class Broken(torch.utils.data.Dataset):
    """Raises an error in the place of item 3."""

    def __init__(self, error):
        self.error = error

    def __len__(self):
        return 6

    def __getitem__(self, index):
        if index == 3:
            raise self.error
        return {"image": Image.new("RGB", (8, 8))}


@pytest.mark.parametrize("num_workers", [0, 1])
@pytest.mark.parametrize("error", [StopIteration(), ArgumentError("In my own words."), IndexError("of my own")])
def test_no_error_of_an_item_ends_the_data(error, num_workers):
    """A loader takes StopIteration for the end; one of ours comes in its own words out of a worker, too."""
    with pytest.raises(ArgumentError) as caught:
        batches(Broken(error), use_masks=False, num_workers=num_workers)
    if isinstance(error, IndexError):
        words = "`data` must give all of its items; item 3 of 6 of the Broken raised IndexError (of my own). "
        # Of another process an error comes without its cause, and brings it as a note.
        assert isinstance(caught.value.__cause__, IndexError) == (num_workers == 0)
        assert any("raise self.error" in note for note in getattr(caught.value, "__notes__", ())) == (num_workers > 0)
    else:
        words = "`data` must not raise StopIteration, which a loop takes for its own end; item 3 did. "
        words = "In my own words." if isinstance(error, ArgumentError) else words
    assert str(caught.value).startswith(words)


def test_a_length_that_is_too_long():
    class Long(Broken):
        def __getitem__(self, index):
            return ([{"image": Image.new("RGB", (8, 8))}] * 3)[index]

    with pytest.raises(ArgumentError, match="item 3 of 6 of the Long raised IndexError"):
        batches(Long(None), use_masks=False)


def test_a_processor_cannot_end_the_data():
    def odd(images, return_tensors):
        if any(image.width == 9 for image in images):
            raise StopIteration
        return PROCESSOR(images=images, return_tensors=return_tensors)

    items = [{"image": Image.new("RGB", (width, 8))} for width in (8, 9, 8, 8)]
    first, second = batches(items, image_processor=odd, use_masks=False)
    assert first.unreadable == [{"image": "item 1", "reason": "StopIteration"}]
    assert (first.places, second.places) == ([0], [2, 3])
