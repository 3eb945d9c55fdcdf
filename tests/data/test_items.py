import io
import os
import pickle
import struct
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Subset

import gmar_hf.demo
from gmar_hf.data import StreamData, open_data
from gmar_hf.errors import ArgumentError, ArgumentTypeError, HubError, ImageError
from tests.helpers.explainers import serving
from tests.helpers.sample_files import LABELS, deep_grey, encoded, message, read, shade, shades, truncated, write


def picture(value=0, mode="RGB"):
    return Image.new("L", (8, 6), value).convert(mode)


class Files(Dataset):
    """Opens files as people do: where they are broken, Pillow's errors come out of it."""

    def __init__(self, *paths, load=True):
        self.paths, self.load = paths, load

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        if not self.load:
            return {"image": Image.open(self.paths[index]), "label": index % 3}
        with Image.open(self.paths[index]) as image:
            return {"image": image.convert("RGB"), "label": index % 3}


def test_a_list_of_dicts():
    items = [
        {"image": picture(number), "label": label} for number, label in enumerate([1, [2, 0], None, -1, [], [4, 4]])
    ]
    data = open_data(items, LABELS)
    assert [(sample.name, sample.labels, shade(sample)) for sample in read(items)] == [
        ("item 0", (1,), 0),
        ("item 1", (2, 0), 1),
        ("item 2", None, 2),
        ("item 3", None, 3),
        ("item 4", None, 4),
        ("item 5", (4,), 5),
    ]
    assert data.has_labels is True
    assert data.identity == {
        "id": "list", "is_local": True, "revision": None, "split": None, "num_images": 6,
        "fingerprint": data.identity["fingerprint"],
    }  # fmt: skip
    assert [sample.labels for sample in read(items, use_labels=False)] == [None] * 6
    assert open_data(items, LABELS, use_labels=False).has_labels is False
    assert read(tuple(items))[0].labels == (1,)


def test_the_demos_scenes():
    scenes = gmar_hf.demo.scenes(3, seed=5)
    assert [list(sample.labels or ()) for sample in [open_data(scenes, dict.fromkeys(range(6), "")).read(0)]] == [
        scenes[0]["labels"]
    ]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.int64(2), (2,)),
        (torch.tensor(2), (2,)),
        (np.array([2, 1]), (2, 1)),
        (torch.tensor([2, -1]), (2,)),
        ((1, None), (1,)),
        ("dog", (1,)),
        (["dog", 0], (1, 0)),
        (np.array(-1), None),
    ],
)
def test_labels_of_every_kind(value, expected):
    for key in ("label", "labels"):
        (sample,) = read([{"image": picture(), key: value}])
        assert sample.labels == expected
        assert all(type(label) is int for label in sample.labels or ())


def test_labels_that_are_none_of_the_models():
    for value, text in {
        5: "`label` must be an index in [0, 4] or a label; got 5.",
        -2: "got -2.",
        "cow": "`label` must be one of the model's labels or an index; got 'cow'.",
        "crane": "the label of classes [3, 4]. Pass an index.",
        "2": 'A number as a name is no index until it says so, as in {"0": 0}.',
    }.items():
        items = [{"image": picture(), "label": 1}, {"image": picture(), "label": value}]
        assert message(items).startswith("item 1: `label` must ")
        assert text in message(items)
    assert read([{"image": picture(), "label": "cow"}], label_map={"cow": 0})[0].labels == (0,)
    assert read([{"image": picture(), "label": 7}], label_map={"7": 0})[0].labels == (0,)
    for value in (1.0, True, {"a": 1}, [1.5], b"dog", torch.tensor(1.0)):
        assert "`label` must be an int, a str or a list of them; got" in message(
            [{"image": picture(), "label": value}], ArgumentTypeError
        )
    assert "zeros and ones" in message([{"image": picture(), "label": torch.eye(5)[0]}])
    assert "zeros and ones" in message([{"image": picture(), "label": [True, False, False, False, True]}])


def test_which_items_have_labels():
    without = {"image": picture()}
    assert open_data([without], LABELS).has_labels is False
    assert open_data([without | {"label": None}], LABELS).has_labels is True
    assert read([without | {"label": None, "labels": 1}])[0].labels == (1,)
    assert read([without])[0].labels is None


def test_images_of_every_kind(tmp_path):
    write(tmp_path, {"a.png": 3, "deep.png": deep_grey()})
    with serving({"/b.png": (200, "image/png", encoded(4))}) as url:
        sources = [picture(1), picture(2, "L"), tmp_path / "a.png", str(tmp_path / "deep.png"), f"{url}/b.png"]
        samples = read([{"image": source} for source in sources])
    assert shades(samples) == [1, 2, 3, 128, 4]
    assert [sample.name for sample in samples] == ["item 0", "item 1", "item 2 (a.png)", "item 3 (deep.png)", "item 4"]
    arrays = [np.full((8, 8, 3), 5, dtype=np.uint8), torch.full((3, 8, 8), 6, dtype=torch.uint8)]
    assert shades(read([{"image": array} for array in arrays])) == [5, 6]
    words = "`image` must be a path, a URL, base64 text, a PIL image or an array; got bytes"
    assert words in message([{"image": b"bytes"}], ArgumentTypeError)


def test_pixel_values():
    values = torch.rand(3, 4, 5, requires_grad=True)
    (sample,) = read([{"pixel_values": values, "labels": 1}])
    assert isinstance(sample.image, torch.Tensor)
    assert torch.equal(sample.image, values)
    assert sample.image.requires_grad is False
    assert sample.labels == (1,)
    assert read([{"pixel_values": values.half()}])[0].image.dtype == torch.float16
    assert shade(read([{"pixel_values": values, "image": picture(7)}])[0]) == 7
    for bad, got in {
        values[None]: "got torch.float32 of shape (1, 3, 4, 5) for item 0",
        torch.zeros(3, 4, 5, dtype=torch.uint8): "got torch.uint8 of shape (3, 4, 5)",
        values[0]: "of shape (4, 5)",
    }.items():
        assert got in message([{"pixel_values": bad}], ArgumentTypeError)
    assert "got float64 of shape (3, 4, 5)" in message([{"pixel_values": np.zeros((3, 4, 5))}], ArgumentTypeError)
    assert "got list for item 0" in message([{"pixel_values": [[[0.0]]]}], ArgumentTypeError)


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # of the data set that leaves images unread
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_broken_images_are_samples(tmp_path):
    write(tmp_path, {"good.png": 5, "empty.png": b"", "text.png": b"text", "half.png": truncated()})
    paths = [tmp_path / name for name in ("good.png", "empty.png", "text.png", "half.png", "gone.png")]
    by_path = [{"image": str(path), "label": 1} for path in paths]
    for source in (by_path, Files(*paths), Files(*paths, load=False)):
        samples = read(source)
        assert shades(samples) == [5, None, None, None, None]
        assert all(sample.error.isprintable() for sample in samples[1:])
    samples = read([*by_path, {"image": None, "label": 2}, {"image": "gone.png"}])
    assert [sample.labels for sample in samples] == [(1,)] * 5 + [(2,), None]
    assert samples[1].name == "item 1 (empty.png)"
    assert samples[1].error.startswith("`image` must hold an image; got 'item 1 (empty.png)', an empty file.")
    assert "got 'gone.png'" in samples[4].error
    assert samples[5].error == "`image` must be given; got None in item 5. Leave such items out."
    assert samples[6].error.endswith("got 'gone.png'. Check the path (relative ones start in '.').")
    assert not any(str(tmp_path) in (sample.error or "") for sample in samples)


class Raising(Dataset):
    def __init__(self, *errors):
        self.errors = errors

    def __len__(self):
        return len(self.errors)

    def __getitem__(self, index):
        error = self.errors[index]
        if isinstance(error, BaseException):
            raise error
        return error() if callable(error) else error


def inside_pillow():
    """What Pillow's decoders raise that is no OSError."""
    return {"image": Image.frombytes("RGB", (4, 4), b"too short")}


def test_errors_of_reading_an_item():
    good = {"image": picture(3), "label": 1}
    samples = read(Raising(OSError("no such file"), inside_pillow, ImageError("broken\nimage"), good))
    assert [sample.error for sample in samples] == ["no such file", "not enough image data", "broken image", None]
    assert [sample.name for sample in samples] == ["item 0", "item 1", "item 2", "item 3"]
    assert open_data(Raising(OSError("x"), good), LABELS).has_labels is True
    assert open_data(Raising(OSError("x")), LABELS).has_labels is False
    for error in (kind("x") for kind in (HubError, MemoryError)):
        data = open_data(Raising(good, error), LABELS)
        with pytest.raises(type(error)):
            data.read(1)
        with pytest.raises(type(error)):
            open_data(Raising(error, good), LABELS)
    for error in (kind("x") for kind in (ValueError, SyntaxError, KeyError, struct.error)):
        data = open_data(Raising(good, error), LABELS)
        with pytest.raises(ArgumentError, match="item 1 of 2 of the Raising raised") as caught:
            data.read(1)
        assert caught.value.__cause__ is error
        with pytest.raises(ArgumentError, match="item 0 of 2 of the Raising raised"):
            open_data(Raising(error, good), LABELS)


class End(StopIteration):
    """One of the user's own."""


@pytest.mark.parametrize("error", [StopIteration(), End("x")])
def test_an_item_cannot_end_the_data(error):
    good = {"image": picture(3), "label": 1}
    expected = (
        "`data` must not raise StopIteration, which a loop takes for its own end; item 1 did. Give `next` a default "
        "there, or raise another error."
    )
    data = open_data(Raising(good, error, good), LABELS)
    with pytest.raises(ArgumentError) as caught:
        data.read(1)
    assert str(caught.value) == expected
    with pytest.raises(ArgumentError, match="item 0 did"):
        open_data(Raising(error, good), LABELS)


def test_an_error_of_an_item_says_which():
    data = open_data(Raising({"image": picture(3)}, KeyError("x")), LABELS)
    with pytest.raises(ArgumentError) as caught:
        data.read(1)
    assert str(caught.value) == (
        "`data` must give all of its items; item 1 of 2 of the Raising raised KeyError ('x'). Mend it or leave it out."
    )
    assert isinstance(caught.value.__cause__, KeyError)
    data = open_data(Raising({"image": picture(3)}, MemoryError("x")), LABELS)
    with pytest.raises(MemoryError) as caught:
        data.read(1)
    assert caught.value.__notes__ == ["This happened in item 1 of 2 of the Raising."]


@pytest.mark.parametrize("error", [ValueError("x"), OSError("x")])
def test_an_error_of_a_stream_says_where(error):
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            yield {"image": picture(3)}
            raise error

    samples = open_data(Stream(), LABELS).read(0, 1)
    assert next(samples).name == "item 0"
    with pytest.raises(ArgumentError, match=rf"item 1 of the Stream raised {type(error).__name__} \(x\)") as caught:
        next(samples)
    assert caught.value.__cause__ is error


def test_addresses_do_not_show_in_errors():
    class Broken(Raising):
        def __getitem__(self, index):
            return {"image": Image.open(io.BytesIO(b"broken"))}

    (sample,) = read(Broken(None))
    assert sample.error == "cannot identify image file"


def test_items_that_are_no_dicts():
    text = message([(picture(), 1)], ArgumentTypeError)
    assert text == (
        "`data` must give dicts with `image` (or `pixel_values`) and, where it is known, `label`; got tuple for item "
        '0. Wrap the data set so that it gives `{"image": image, "label": label}` (class numbers of torchvision are '
        "positions of sorted folder names, not the model's: look the name up in `model.config.label2id`)."
    )
    assert "got tuple for item 0" in message([(picture(), 1)], ArgumentTypeError, use_labels=False)
    assert "got Image for item 1" in message([{"image": picture()}, picture()], ArgumentTypeError)
    assert "got one with 'img', 'label' for item 0" in message([{"img": picture(), "label": 1}], ArgumentTypeError)
    assert "got one with nothing" in message([{}], ArgumentTypeError)
    assert "got Tensor for item 0" in message(torch.zeros(2, 3, 4, 4), ArgumentTypeError)


def test_other_kinds_of_data():
    loader = DataLoader([{"image": 1}])
    for source, name in (
        (loader, "DataLoader"),
        ((item for item in ()), "generator"),
        ({"image": [1]}, "dict"),
        (None, "NoneType"),
        (5, "int"),
    ):
        text = message(source, ArgumentTypeError)
        assert f"got {name}. Of a DataLoader pass its `dataset`, of a generator a list." in text
    assert message([]) == "`data` must hold at least one image; got an empty list."
    items = [{"image": picture()}]
    assert "`split` must be left out for data without splits; got 'train'." in message(items, split="train")
    assert "`data_revision` (`--data-revision`) must be left out" in message(items, revision="main")
    assert "`streaming` must be left out" in message(items, streaming=True)


def fingerprint(source, **settings):
    return open_data(source, LABELS, **settings).identity["fingerprint"]


def test_fingerprints_are_of_class_length_and_content(tmp_path):
    def items(count=40, **changed):
        made = [{"image": picture(number), "label": number % 5} for number in range(count)]
        for place in (0, count - 1):
            made[place] |= changed
        return made

    values = torch.rand(3, 4, 5)
    same = [items(), items(), [dict(item) for item in items()]]
    assert len(set(map(fingerprint, same))) == 1
    others = [
        items(), items(39), tuple(items()), Subset(items(), range(40)), items(label=3), items(label=None),
        items(label=[1, 2]), items(image=picture(200)), items(image=picture(0).resize((9, 6))), items(image=None),
        items(image="https://example.org/a.png"), items(image=None, pixel_values=values),
        items(image=None, pixel_values=values + 1e-6), items(image=None, pixel_values=values.mT),
    ]  # fmt: skip
    assert len(set(map(fingerprint, others))) == len(others)
    assert fingerprint(items(label=np.int64(3))) == fingerprint(items(label=3))
    assert fingerprint(gmar_hf.demo.scenes(20, seed=1)) != fingerprint(gmar_hf.demo.scenes(20, seed=2))
    scenes = gmar_hf.demo.scenes(20)
    assert fingerprint(scenes[:10], use_labels=False) != fingerprint(scenes[10:], use_labels=False)


def test_a_files_content_counts_and_not_its_place(tmp_path):
    for folder in ("a", "b", "c"):
        write(tmp_path / folder, {"1.png": 1, "2.png": 2})
    write(tmp_path / "c", {"2.png": 9})
    by_folder = [
        fingerprint([{"image": kind(tmp_path / folder / name)} for name in ("1.png", "2.png")])
        for folder in ("a", "b", "c")
        for kind in (str, lambda path: path)
    ]
    assert len(set(by_folder[:4])) == 1
    assert by_folder[3] != by_folder[4] == by_folder[5]


class Recording(Dataset):
    """Remembers the places of the items that were taken, and makes each anew."""

    def __init__(self, length, make):
        self.length, self.make, self.places = length, make, []

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        self.places.append(index)
        return self.make(index)


def test_few_items_are_read_for_a_fingerprint():
    data = Recording(100_000, lambda index: {"image": picture(index % 256), "label": index % 5})
    before = fingerprint(data)
    assert len(data.places) <= 25
    assert len(set(data.places)) == 16
    assert {0, 99_999} <= set(data.places)
    assert fingerprint(data) == before
    assert len({fingerprint(Recording(length, data.make)) for length in range(1, 40)}) == 39


def test_what_is_random_in_items_is_no_part_of_a_fingerprint():
    def flipped(shift, generator):
        def make(index):
            image = picture(index)
            image.putpixel((0, 0), 255)
            turn = torch.rand((), generator=generator) < 0.5
            label = (index + shift) % 5
            return {"image": image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if turn else image, "label": label}

        return make

    generator = torch.Generator().manual_seed(0)
    (same,) = {fingerprint(Recording(20, flipped(0, generator))) for _ in range(20)}  # though images may be turned
    assert fingerprint(Recording(20, flipped(1, generator))) != same
    noise = [Recording(20, lambda index: {"pixel_values": torch.rand(3, 4, 4, generator=generator)}) for _ in range(3)]
    assert len(set(map(fingerprint, noise))) == 1
    wider = Recording(20, lambda index: {"pixel_values": torch.rand(3, 4, 5, generator=generator)})
    assert fingerprint(wider) != fingerprint(noise[0])

    def of_any_width(index):
        return {"image": picture().resize((int(torch.randint(4, 99, (), generator=generator)), 4))}

    assert len({fingerprint(Recording(20, of_any_width)) for _ in range(3)}) == 1


def test_unreadable_items_have_a_fingerprint(tmp_path):
    write(tmp_path, {"good.png": 5, "text.png": b"text", "half.png": truncated()})
    good = {"image": picture(3), "label": 1}
    for bad in (
        {"image": tmp_path / "gone.png"}, {"image": None}, OSError("x"), KeyError("x"), MemoryError(), inside_pillow,
        {"image": b"bytes"}, {"image": picture(3), "label": {"a": object()}}, (picture(), 1), 5,
    ):  # fmt: skip
        assert fingerprint(Raising(good, bad, good)) == fingerprint(Raising(good, bad, good))
        assert fingerprint(Raising(good, bad, good)) != fingerprint(Raising(good, good, good))
    with Image.open(tmp_path / "half.png") as half:
        assert fingerprint([{"image": half}]) == fingerprint([{"image": half}])


@pytest.mark.slow
def test_fingerprints_are_the_same_in_every_process(tmp_path):
    """Sets and texts are hashed by another seed in the other process."""
    write(tmp_path, {"a.png": 1})
    code = (
        "import sys, torch, tests.data.test_items as here\n"
        "print(here.fingerprint(here.items_of_every_kind(sys.argv[1])))\n"
    )
    environment = {
        **os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1",
        "PYTHONHASHSEED": "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "a.png"], env=environment, check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == fingerprint(items_of_every_kind(str(tmp_path / "a.png")))


def items_of_every_kind(file):
    return [
        {"image": file, "label": {"dog", "cat", "tabby, tabby cat"}},
        {"image": picture(1), "label": "dog"},
        {"pixel_values": torch.ones(3, 4, 4)},
    ]


def test_torch_wrappers_of_plain_items():
    items = [{"image": picture(number), "label": number} for number in range(3)]
    assert [sample.labels for sample in read(Subset(items, [2, 0]))] == [(2,), (0,)]
    assert shades(read(ConcatDataset([items, items[:1]]))) == [0, 1, 2, 0]


def test_workers_of_a_loader_read(tmp_path):
    write(tmp_path, {"a.png": 1, "b.png": b"broken"})
    data = open_data(Files(tmp_path / "a.png", tmp_path / "b.png"), LABELS)
    copied = pickle.loads(pickle.dumps(data))
    assert [shade(copied.read(index)) for index in range(2)] == [1, None]


class Counting(IterableDataset):
    def __init__(self, length):
        self.length = length

    def __iter__(self):
        return ({"image": picture(number), "label": number % 5} for number in range(self.length))


@pytest.mark.parametrize("length", [0, 1, 7])
def test_processes_share_a_stream(length):
    data = open_data(Counting(length), LABELS)
    assert isinstance(data, StreamData)
    assert data.has_labels is None
    assert {**data.identity, "fingerprint": None} == {
        "id": "Counting", "is_local": True, "revision": None, "split": None, "num_images": None, "fingerprint": None,
    }  # fmt: skip
    for world in (1, 2, 3):
        for rank in range(world):
            for skip in (0, 1, 3, 9):
                share = range(rank, length, world)[skip:]
                samples = [(sample.name, sample.labels, shade(sample)) for sample in data.read(rank, world, skip)]
                assert samples == [(f"item {number}", (number % 5,), number) for number in share]


class Stopped(IterableDataset):
    """`map` passes on what its function raises, which looks like its end."""

    def __init__(self, length):
        self.length = length

    def __iter__(self):
        return map(self.load, range(7))

    def load(self, number):
        return {"image": picture(number)} if number < 3 else next(iter([]))


class Promising(Stopped):
    def __len__(self):
        return self.length


def test_a_stream_shorter_than_it_says_is_told_of():
    data = open_data(Promising(7), LABELS)
    words = r"^`data` ended after 3 items, where `len` of the Promising is 7: results are of those\. "
    for rank in range(2):
        with pytest.warns(UserWarning, match=words):
            assert len(list(data.read(rank, 2))) == 2 - rank
    # Whoever needs no more, says nothing of a length, or keeps it, hears nothing: a warning is an error here.
    assert next(data.read(0, 1)).name == "item 0"
    assert len(list(open_data(Stopped(7), LABELS).read(0, 1))) == 3
    assert len(list(open_data(Promising(3), LABELS).read(0, 1))) == 3


def test_streams_of_items_are_not_shuffled():
    data = open_data(Counting(3), LABELS, use_labels=False)
    assert data.has_labels is False
    assert [sample.labels for sample in data.read(0, 1)] == [None] * 3
    with pytest.raises(ArgumentError) as caught:
        data.shuffled(4)
    assert str(caught.value) == (
        "`shuffle_seed` must be None for a torch IterableDataset, which alone decides on its order; got 4. "
        "Shuffle inside of it, in the same order in every process."
    )
