import pickle
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image as PILImage
from torch.utils.data import ConcatDataset, DataLoader, Subset, random_split

from gmar_hf.data import StreamData, open_data
from gmar_hf.errors import ArgumentError, ArgumentTypeError
from tests.helpers.sample_files import LABELS, deep_grey, encoded, everything, message, shade, shades, truncated, write
from tests.helpers.sampling import sample_product

datasets = pytest.importorskip("datasets")
from datasets import ClassLabel, Dataset, Features, Image, Value  # noqa: E402

CLASSES = ClassLabel(names=["tabby, tabby cat", "dog", "cat"])  # not in the model's order


@pytest.fixture(autouse=True)
def apart(tmp_path_factory, monkeypatch):
    """What `datasets` stores goes to a folder of its own, and it does not wait before it ends its threads."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setattr(datasets.config, "SLEEP_TIME_ON_THREADS_SHUTDOWN", 0, raising=False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()


def list_of(feature):
    return getattr(datasets, "List", datasets.Sequence)(feature)


def table(labels=(0, 1, 2), feature=CLASSES, image="image", label="label", **more):
    """Pictures of shades 0, 1, 2, ..."""
    columns = {image: [{"bytes": encoded(number), "path": None} for number in range(len(labels))], label: list(labels)}
    features = Features({image: Image(), label: feature} | {name: Value("string") for name in more})
    return Dataset.from_dict(columns | more, features=features)


def labels_of(source, **settings):
    data = open_data(source, LABELS, **settings)
    samples = data.read(0, 1) if isinstance(data, StreamData) else [data.read(index) for index in range(len(data))]
    return [sample.labels for sample in samples]


def test_class_labels_are_matched_by_name():
    data = open_data(table([0, 1, 2, -1, None]), LABELS)
    assert everything(data) == [
        ("row 0", (2,), 0),
        ("row 1", (1,), 1),
        ("row 2", (0,), 2),
        ("row 3", None, 3),
        ("row 4", None, 4),
    ]
    assert data.has_labels is True
    assert data.identity == {
        "id": "Dataset", "is_local": True, "revision": None, "split": None, "num_images": 5,
        "fingerprint": data.identity["fingerprint"],
    }  # fmt: skip


def test_class_labels_through_the_map():
    feature = ClassLabel(names=["n01", "n02", "dog"])
    label_map = {"n01": 4, "n02": "tabby, tabby cat"}
    assert labels_of(table([0, 1, 2], feature), label_map=label_map) == [(4,), (2,), (1,)]
    assert message(table([2, 0, 1, 0], feature)) == (
        "`label` must be one of the model's labels or an index; got 'n01'. Near it: 'cat', 'dog', 'tabby, tabby cat'. "
        "Classes are matched by name, letter by letter, never by position: say in `label_map` (`--label-map FILE` on "
        "the command line) which label a name stands for, or leave labels out with `use_labels=False` "
        "(`--no-labels`). In all, 2 are unknown: 'n01', 'n02'."
    )
    assert labels_of(table([0, 1, 2], feature), use_labels=False) == [None] * 3


def test_only_classes_that_occur_must_be_known():
    feature = ClassLabel(names=["n01", "n02", "dog"])
    assert labels_of(table([2, 2, -1], feature)) == [(1,), (1,), None]
    assert labels_of(table([0, 2, 2], feature).select([1, 2])) == [(1,), (1,)]


def test_numbers_as_class_names():
    feature = ClassLabel(num_classes=3)
    assert 'as in {"0": 0}' in message(table([1, 0], feature))
    assert labels_of(table([1, 0], feature), label_map={"0": "dog", "1": 2}) == [(2,), (1,)]


def test_lists_of_class_labels():
    source = table([[0, 1], [2, 2], [], None, [-1]], list_of(CLASSES), label="labels")
    assert labels_of(source) == [(2, 1), (0,), None, None, None]
    unknown = table([[0], [0, 1]], list_of(ClassLabel(names=["dog", "n01"])))
    assert "got 'n01'" in message(unknown)
    assert labels_of(unknown, label_map={"n01": 0}) == [(1,), (1, 0)]


def test_numbers_are_the_models_indices():
    assert labels_of(table([4, 0, -1, None], Value("int64"))) == [(4,), (0,), None, None]
    assert labels_of(table([[4, 0], [3]], list_of(Value("uint8")))) == [(4, 0), (3,)]
    assert message(table([0, 5, 7], Value("int64"))) == (
        "`label` must be an index in [0, 4] or a label; got 5. In all, 2 are unknown: '5', '7'."
    )
    assert "got -2" in message(table([0, -2], Value("int64")))


def test_numbers_through_the_map():
    source = table([0, 1, -1], Value("int64"))
    assert labels_of(source, label_map={"0": "dog", "1": "cat"}) == [(1,), (0,), None]
    assert labels_of(source, label_map={0: "dog", 1: "cat"}) == [(1,), (0,), None]
    assert "`label_map` must say which label each of the data's numbers stands for; got none for '1'." in message(
        source, label_map={"0": "dog"}
    )


def test_strings_are_names():
    assert labels_of(table(["dog", "tabby, tabby cat", None], Value("string"))) == [(1,), (2,), None]
    assert labels_of(table([["dog", "n1"]], list_of(Value("string"))), label_map={"n1": 0}) == [(1, 0)]
    assert "got 'DOG'" in message(table(["dog", "DOG"], Value("string")))
    assert "got '1'" in message(table(["1"], Value("string")))


@pytest.mark.parametrize("labels", [[1, 0], [1, 1], [0, 0]])
def test_one_number_for_each_of_two_classes_is_refused(labels):
    """In their order 0 and 1 may be the indices of both."""
    data = open_data(table([[0, 1], labels], list_of(Value("int64"))), {0: "cat", 1: "dog"})
    assert data.read(0).labels == (0, 1)
    with pytest.raises(ArgumentError, match="got 2 zeros and ones, as many as the model has classes"):
        data.read(1)


def test_one_number_a_class_is_refused():
    data = open_data(table([[0, 1, 0, 0, 1]], list_of(Value("int64"))), LABELS)
    with pytest.raises(ArgumentError, match="got 5 zeros and ones, as many as the model has classes"):
        data.read(0)


@pytest.mark.parametrize(
    ("feature", "value", "kind"),
    [
        (Value("float32"), 1.0, "float32"),
        (Value("bool"), True, "bool"),
        (list_of(Value("float64")), [1.0], "list of float64"),
        (list_of(list_of(Value("int64"))), [[1]], "list of "),
        ({"x": Value("int64")}, {"x": 1}, "dict"),
    ],
)
def test_labels_of_other_types(feature, value, kind):
    source = table([value], feature)
    assert re.search(f"got {kind}.* in column 'label'", message(source))
    assert labels_of(source, use_labels=False) == [None]


def test_columns_are_found():
    assert labels_of(table([1], image="photo", label="labels")) == [(1,)]
    assert labels_of(table([1], label="species")) == [(1,)]
    assert labels_of(table(["dog"], Value("string"), label="species")) == [None]
    assert open_data(table([1], Value("int64"), label="species"), LABELS).has_labels is False
    assert open_data(table([None], Value("null")), LABELS).has_labels is False
    two = table([1]).add_column("label_map", [1]).cast_column("label_map", CLASSES).rename_column("label", "fine")
    assert open_data(two, LABELS).has_labels is False
    for name in ("image", "img"):
        pictures = {"mask": [{"bytes": encoded(7)}], name: [{"bytes": encoded(8)}]}
        both = Dataset.from_dict(pictures, features=Features({"mask": Image(), name: Image()}))
        assert everything(open_data(both, LABELS)) == [("row 0", None, 8)]
    neither = both.rename_column("img", "other")
    assert message(neither) == (
        '`data` must have a column of images (the only one of type Image, or one called "image" or "img"); got '
        "'mask' (Image), 'other' (Image). Rename a column with `rename_column`."
    )
    text = message(table([1], label="species", feature=Value("int64")), label_map={"x": 1})
    assert "`label_map` (`--label-map`) must be None for a data set without labels" in text
    assert "'image' (Image), 'species' (int64)" in text


def test_images_of_other_columns():
    """As files that were written without the types of `datasets`."""
    raw = Dataset.from_dict({"image": [{"bytes": encoded(5), "path": "a.png"}], "label": [1]})
    assert everything(open_data(raw, LABELS)) == [("row 0 (a.png)", (1,), 5)]
    assert everything(open_data(Dataset.from_dict({"img": [encoded(5)]}), LABELS)) == [("row 0", None, 5)]
    assert "must have images in its column 'image'; got int64" in message(Dataset.from_dict({"image": [1, 2]}))


def test_broken_images_are_samples(tmp_path):
    write(tmp_path, {"good.png": 9, "empty.png": b""})
    pictures = [
        {"bytes": encoded(1), "path": "a.png"},
        {"bytes": b"broken", "path": "b.png"},
        {"bytes": b"", "path": None},
        {"bytes": truncated(), "path": "C:\\somebody\\c.png"},
        None,
        {"bytes": None, "path": str(tmp_path / "good.png")},
        {"bytes": None, "path": str(tmp_path / "gone.png")},
        {"bytes": None, "path": str(tmp_path / "empty.png")},
        {"bytes": deep_grey(), "path": None},
        {"bytes": encoded(4, "JPEG"), "path": "not/what/it/says.png"},
    ]
    source = Dataset.from_dict(
        {"image": pictures, "label": [1] * 10}, features=Features({"image": Image(), "label": CLASSES})
    )
    for data in (open_data(source, LABELS), open_data(source.with_format("torch"), LABELS)):
        samples = [data.read(index) for index in range(10)]
        assert [sample.labels for sample in samples] == [(1,)] * 10
        assert shades(samples) == [1, None, None, None, None, 9, None, None, 128, 4]
        assert [sample.name for sample in samples] == [
            "row 0 (a.png)", "row 1 (b.png)", "row 2", "row 3 (c.png)", "row 4", "row 5 (good.png)",
            "row 6 (gone.png)", "row 7 (empty.png)", "row 8", "row 9 (says.png)",
        ]  # fmt: skip
        errors = [sample.error or "" for sample in samples]
        assert errors[1].startswith("`image` must be of a format that Pillow reads; got 'row 1 (b.png)'.")
        assert "'row 2', an empty file" in errors[2]
        assert "intact image; got 'row 3 (c.png)'" in errors[3]
        assert errors[4] == "`image` must be given; got None in row 4. Leave such rows out."
        assert "'row 6 (gone.png)' (No such file or directory)" in errors[6]
        assert not any(str(tmp_path) in error or "somebody" in error or "0x" in error for error in errors)
    assert [sample.error or "" for sample in open_data(source.to_iterable_dataset(), LABELS).read(0, 1)] == errors


def test_data_sets_that_are_refused():
    assert message(table([])) == "`data` must hold at least one image; got a data set of 0 rows. Check its split."
    text = message(table().with_transform(lambda rows: rows))
    assert "got a data set with a transform. Remove it with `with_format(None)`" in text
    split = datasets.distributed.split_dataset_by_node(table().to_iterable_dataset(), 0, 2)
    assert "`data` must not be split among processes yet" in message(split)
    assert "must be a mapping" in message(table(), label_map=["dog"], error=ArgumentTypeError)


def test_splits_of_a_dict():
    splits = datasets.DatasetDict({"train": table(), "test": table([1])})
    assert message(splits) == "`split` must be one of 'train', 'test'; got None. Choose the one to survey."
    assert "got 'val'" in message(splits, split="val")
    assert len(open_data(splits, LABELS, split="test")) == 1
    assert len(open_data(datasets.DatasetDict({"test": table([1])}), LABELS)) == 1
    streams = datasets.IterableDatasetDict({"train": table().to_iterable_dataset()})
    assert labels_of(streams) == labels_of(streams, split="train") == [(2,), (1,), (0,)]
    assert message(table(), split="train") == (
        "`split` must be None for a data set without splits to choose from; got 'train'. Leave it out."
    )
    assert "`streaming` must be left out" in message(table(), streaming=True)
    assert "`data_revision` (`--data-revision`) must be left out" in message(table(), revision="main")


def test_torch_subsets_keep_the_class_names():
    source = table([0, 1, 2, 1])
    assert everything(open_data(Subset(source, [2, 0]), LABELS)) == [("row 0", (0,), 2), ("row 1", (2,), 0)]
    parts = random_split(source, [3, 1], generator=torch.Generator().manual_seed(0))
    shades = [shade for part in parts for *_, shade in everything(open_data(part, LABELS))]
    assert sorted(shades) == [0, 1, 2, 3]
    assert everything(open_data(Subset(Subset(source, [3, 2, 0]), [1]), LABELS)) == [("row 0", (0,), 2)]
    assert "got a ConcatDataset, which drops them" in message(ConcatDataset(parts))


def test_workers_of_a_loader_read(tmp_path):
    table([0, 1, 2]).save_to_disk(tmp_path / "saved")
    for source in (table([0, 1, 2]), tmp_path / "saved"):
        data = open_data(source, LABELS)
        assert everything(pickle.loads(pickle.dumps(data))) == everything(data)
        loader = DataLoader(Reading(data), batch_size=None, num_workers=2, multiprocessing_context="fork")
        assert list(loader) == ["row 0 (2,) 0", "row 1 (1,) 1", "row 2 (0,) 2"]


class Reading(torch.utils.data.Dataset):
    def __init__(self, data):
        self.data = data

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        sample = self.data.read(index)
        return f"{sample.name} {sample.labels} {shade(sample)}"


def test_saved_folders(tmp_path):
    source = table([0, 1, 2])
    source.save_to_disk(tmp_path / "one")
    data = open_data(tmp_path / "one", LABELS)
    assert everything(data) == everything(open_data(source, LABELS))
    assert data.identity["id"] == "one"
    assert "`streaming` must be left out for a folder that" in message(tmp_path / "one", streaming=True)
    datasets.DatasetDict({"train": source, "test": table([1])}).save_to_disk(tmp_path / "splits")
    assert "`split` must be one of 'train', 'test'; got None." in message(tmp_path / "splits")
    data = open_data(str(tmp_path / "splits"), LABELS, split="test")
    assert everything(data) == [("row 0", (1,), 0)]
    assert data.identity["id"] == "splits"
    (tmp_path / "one" / "state.json").write_text("{")
    assert "`data` must be what `datasets` can load" in message(tmp_path / "one")


def test_folders_with_parquet_files(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder / "data").mkdir(parents=True)
        (tmp_path / folder / "README.md").write_text("A data set.")
        write(tmp_path / folder, {"preview.png": 1})
    for number, name in enumerate(("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001")):
        table([number] * 2).to_parquet(tmp_path / "one" / "data" / f"{name}.parquet")
    table([2]).to_parquet(tmp_path / "two" / "all.parquet")
    assert "`split` must be one of" in message(tmp_path / "one")
    assert "nope" in message(tmp_path / "one", split="nope")
    data = open_data(tmp_path / "one", LABELS, split="train")
    assert everything(data) == [("row 0", (2,), 0), ("row 1", (2,), 1), ("row 2", (1,), 0), ("row 3", (1,), 1)]
    assert {**data.identity, "fingerprint": None} == {
        "id": "one", "is_local": True, "revision": None, "split": "train", "num_images": 4, "fingerprint": None,
    }  # fmt: skip
    stream = open_data(tmp_path / "one", LABELS, split="train", streaming=True)
    assert isinstance(stream, StreamData)
    assert [(sample.name, sample.labels, shade(sample)) for sample in stream.read(0, 1)] == everything(data)
    assert stream.identity == data.identity | {"num_images": None}
    assert labels_of(tmp_path / "two") == [(0,)]
    (tmp_path / "moved").mkdir()
    (tmp_path / "one").rename(tmp_path / "moved" / "one")
    assert open_data(tmp_path / "moved" / "one", LABELS, split="train").identity == data.identity
    test_split = open_data(tmp_path / "moved" / "one", LABELS, split="test")
    assert test_split.identity["fingerprint"] != data.identity["fingerprint"]
    write(tmp_path, {"bad/a.parquet": b"no parquet"})
    assert "`data` must be what `datasets` can load; got" in message(tmp_path / "bad")


FINGERPRINTS = """
import sys
sys.path.insert(0, {root!r})
import tests.data.test_datasets as here
here.datasets.disable_progress_bars()
here.datasets.config.HF_DATASETS_CACHE = {cache!r}
for source in here.sources({folder!r}):
    print(here.open_data(source, here.LABELS).identity["fingerprint"])
"""


def sources(folder):
    """The same data in many guises."""
    made = table([0, 1, 2])
    yield made
    yield made.select([0, 2])
    yield made.shuffle(seed=1)
    yield made.filter(lambda row: row["label"] > 0)
    yield made.train_test_split(0.3, seed=0)["train"]
    yield Dataset.from_generator(rows, features=made.features, split="train")
    yield datasets.load_from_disk(f"{folder}/saved")
    yield datasets.load_dataset("parquet", data_files=f"{folder}/a.parquet", split="train")
    yield made.to_iterable_dataset()
    yield datasets.load_dataset("parquet", data_files=f"{folder}/a.parquet", split="train", streaming=True)


def rows(numbers=(0, 1, 2)):
    for number in numbers:
        yield {"image": {"bytes": encoded(number), "path": None}, "label": number % 3}


@pytest.mark.campaign
@pytest.mark.slow
def test_fingerprints_are_the_same_in_every_process(tmp_path):
    table([0, 1, 2]).save_to_disk(tmp_path / "saved")
    table([0, 1, 2]).to_parquet(tmp_path / "a.parquet")
    script = FINGERPRINTS.format(
        root=str(Path(__file__).parents[2]), cache=str(tmp_path / "cache"), folder=str(tmp_path)
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    lines = done.stdout.split()
    assert lines == [open_data(source, LABELS).identity["fingerprint"] for source in sources(tmp_path)]
    assert len(set(lines)) == len(lines) == 10
    assert {len(line) for line in lines} == {32}


SHARDS = (1, 2, 3, 5)
NUM_ROWS = 11


def stream_of(kind, num_shards, folder):
    source = table([number % 3 for number in range(NUM_ROWS)])
    if kind == "memory":
        return source.to_iterable_dataset(num_shards=num_shards)
    if kind == "generator":
        return datasets.IterableDataset.from_generator(
            rows, gen_kwargs={"numbers": list(range(NUM_ROWS))}, features=source.features
        ).filter(lambda row: True)
    files = [str(folder / f"{index}-of-{num_shards}.parquet") for index in range(num_shards)]
    for index, file in enumerate(files):
        source.shard(num_shards, index).to_parquet(file)
    return datasets.load_dataset("parquet", data_files=files, split="train", streaming=True)


@pytest.mark.parametrize(("kind", "num_shards"), sample_product(("memory", "parquet", "generator"), SHARDS))
@pytest.mark.slow
def test_processes_share_a_stream(kind, num_shards, tmp_path):
    whole = stream_of(kind, num_shards, tmp_path)
    plain = open_data(whole, LABELS)
    assert isinstance(plain, StreamData)
    assert plain.identity["num_images"] is None
    for data in (plain, plain.shuffled(3)):
        for world in (1, 2, 3):
            shares = [shades(data.read(rank, world)) for rank in range(world)]
            assert sorted(value for share in shares for value in share) == list(range(NUM_ROWS))
            for rank, share in enumerate(shares):
                again = list(data.read(rank, world))
                assert shades(again) == share  # as often as one likes
                assert [sample.labels for sample in again] == [((2, 1, 0)[value % 3],) for value in share]
                for skip in (1, 2, len(share), len(share) + 5):
                    late = list(data.read(rank, world, skip))
                    assert shades(late) == share[skip:]
                    assert [sample.name for sample in late] == [sample.name for sample in again][skip:]
            names = [sample.name for rank in range(world) for sample in data.read(rank, world)]
            assert len(set(names)) == NUM_ROWS


def test_shuffled_streams(tmp_path):
    data = open_data(stream_of("parquet", 3, tmp_path), LABELS)
    orders = {seed: shades(data.shuffled(seed).read(0, 1)) for seed in (0, 1)}
    assert orders[0] != orders[1]
    assert orders[0] != sorted(orders[0])
    assert orders[0] == shades(data.shuffled(0).read(0, 1))
    assert shades(data.read(0, 1)) == list(range(NUM_ROWS))
    assert data.shuffled(0).identity == data.identity


def test_every_class_name_of_a_stream_must_be_known():
    feature = ClassLabel(names=["n01", "dog"])
    source = table([1, 1], feature).to_iterable_dataset()
    assert "got 'n01'" in message(source)
    assert labels_of(source, label_map={"n01": 0}) == [(1,), (1,)]
    assert labels_of(source, use_labels=False) == [None, None]
    assert open_data(source, LABELS, use_labels=False).has_labels is False


@pytest.mark.parametrize(
    ("labels", "feature"),
    [([0, 7], Value("int64")), (["dog", "cow"], Value("string")), ([[0], [0, 7]], list_of(Value("int8")))],
)
def test_labels_of_streams_are_checked_as_they_come(labels, feature):
    samples = open_data(table(labels, feature).to_iterable_dataset(), LABELS).read(0, 1)
    assert next(samples).labels is not None
    with pytest.raises(ArgumentError, match=r"got 7|got 'cow'"):
        next(samples)


def test_streams_that_forgot_their_features():
    stream = table([1, 0]).to_iterable_dataset().map(lambda row: row)
    assert stream.features is None
    assert "`data` must have known features" in message(stream)
    assert labels_of(stream, use_labels=False) == [None, None]
    kept = table([1, 0]).to_iterable_dataset().map(lambda row: row, features=table().features)
    assert labels_of(kept) == [(1,), (2,)]
    unknown = table([None, 1], Value("int64")).to_iterable_dataset().map(lambda row: row)
    assert "`data` must have known features" in message(unknown)
    assert "must have a column of images" in message(table().to_iterable_dataset().take(0).map(lambda row: row))
    strings = table(["dog", "cat"], Value("string")).to_iterable_dataset().map(lambda row: row)
    assert labels_of(strings) == [(1,), (0,)]
    data = open_data(strings, LABELS)
    assert data.has_labels is True
    assert shades(data.read(0, 1)) == [0, 1]


def test_threads_that_decode_are_stopped():
    """Of image folders on the Hub `datasets` decodes the images in threads, before anything else is done."""
    pytest.importorskip("datasets", "5.2", reason="streams did not do so, and it could not be undone")
    stream = threaded_stream(encoded(0), encoded(1), b"broken")
    assert shades(open_data(stream, LABELS).read(0, 1)) == [0, 1, None]


def test_streams_that_decode_images_themselves():
    stream = threaded_stream(encoded(0), encoded(1), b"broken").skip(0)
    samples = open_data(stream, LABELS).read(0, 1)
    with pytest.raises(ArgumentError, match=r"got one \(cannot identify image file\)\. Call `decode\(False\)`"):
        list(samples)
    stream = threaded_stream(encoded(0), encoded(1)).skip(0)
    samples = open_data(stream, LABELS).read(0, 1)
    assert [(sample.labels, shade(sample)) for sample in samples] == [((2,), 0), ((2,), 1)]


def threaded_stream(*contents):
    columns = {"image": [{"bytes": content, "path": None} for content in contents], "label": [0] * len(contents)}
    stream = Dataset.from_dict(columns, features=Features({"image": Image(), "label": CLASSES})).to_iterable_dataset()
    if not hasattr(stream, "decode"):
        pytest.skip("no threads in this version of datasets")
    return stream.decode(num_threads=2)


def test_several_workers_cannot_share_a_stream(monkeypatch):
    data = open_data(table().to_iterable_dataset(num_shards=3), LABELS)
    for workers in (0, 1):
        context = "fork" if workers else None
        loader = DataLoader(Streaming(data), batch_size=None, num_workers=workers, multiprocessing_context=context)
        assert list(loader) == ["row 0", "row 1", "row 2"]
    worker = SimpleNamespace(id=0, num_workers=2)  # a real loader takes 10 seconds to get over the error
    monkeypatch.setattr(torch.utils.data._utils.worker, "_worker_info", worker)
    with pytest.raises(ArgumentError, match=r"`num_workers` must be 0 or 1 for streaming data; got 2\."):
        data.read(0, 1)


class Streaming(torch.utils.data.IterableDataset):
    def __init__(self, data):
        self.data = data

    def __iter__(self):
        return (sample.name for sample in self.data.read(0, 1))


def test_pictures_made_in_memory():
    pictures = [PILImage.new("L", (4, 4), 7), np.full((4, 4, 3), 9, dtype=np.uint8)]
    source = Dataset.from_dict(
        {"image": pictures, "label": [0, 1]}, features=Features({"image": Image(), "label": CLASSES})
    )
    assert [value for *_, value in everything(open_data(source, LABELS))] == [7, 9]


@pytest.mark.campaign
@pytest.mark.slow
def test_datasets_need_not_be_installed(tmp_path, monkeypatch):
    table().save_to_disk(tmp_path / "saved")
    write(tmp_path / "flat", {"a.png": 1})
    script = (
        "import sys\nfrom gmar_hf.data import open_data\nassert not {'datasets', 'pyarrow'} & set(sys.modules)\n"
        "sys.modules['datasets'] = None\n"
        "assert len(open_data('flat', {})) == 1\nassert len(open_data([{'image': 'flat/a.png'}], {})) == 1\n"
        "for name in ('saved', 'me/pets'):\n    try:\n        open_data(name, {})\n    except ValueError as error:\n"
        "        print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    assert all(line.endswith("Run `pip install datasets`.") for line in lines)
    assert [line.startswith("No folder here is called 'me/pets'. ") for line in lines] == [False, True]
