"""Data sets of the Hub: the real client and `datasets` talk to a small one, in a program of their own."""

import json
import subprocess
import sys

import pytest

from tests.helpers.dataset_hub import serving
from tests.helpers.sample_files import encoded

pytest.importorskip("datasets")

SCRIPT = """
import json, sys
from itertools import islice
from gmar_hf import GMARError
from gmar_hf.data import StreamData, open_data
import datasets
datasets.disable_progress_bars()
results = []
for name, settings in json.loads(sys.argv[1]):
    try:
        if settings.pop("loaded", False):
            name = datasets.load_dataset(name, split="train", streaming=True).skip(0)
        data = open_data(name, {0: "cat", 1: "dog"}, **settings)
        read = list(data.read(0, 1)) if isinstance(data, StreamData) else [data.read(i) for i in range(len(data))]
        samples = [[s.name, s.labels, s.image and s.image.getpixel((0, 0))[0], s.error] for s in read]
        results.append(dict(identity=data.identity, has_labels=data.has_labels, samples=samples))
    except GMARError as error:
        results.append(f"{type(error).__name__}: {error}")
print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def repos(tmp_path_factory):
    from datasets import ClassLabel, Dataset, Features, Image, disable_progress_bars

    disable_progress_bars()
    folder = tmp_path_factory.mktemp("parquet")
    features = Features({"image": Image(), "label": ClassLabel(names=["dog", "cat"])})

    def parquet(*shades, broken=False):
        pictures = [{"bytes": encoded(shade), "path": f"{shade}.png"} for shade in shades]
        if broken:
            pictures[-1]["bytes"] = b"broken"
        table = Dataset.from_dict({"image": pictures, "label": [shade % 2 for shade in shades]}, features=features)
        table.to_parquet(folder / "table.parquet")
        return (folder / "table.parquet").read_bytes()

    card = "---\nconfigs:\n- config_name: a\n  data_files: a.parquet\n- config_name: b\n  data_files: b.parquet\n---\n"
    return {
        "me/pets": {
            "data/train-00000-of-00002.parquet": parquet(1, 2, broken=True),
            "data/train-00001-of-00002.parquet": parquet(3),
            "data/test-00000-of-00001.parquet": parquet(4),
        },
        "me/one": {"all.parquet": parquet(5)},
        "me/folders": {"train/cats/a.png": encoded(6), "train/dog/b.png": encoded(7), "train/dog/c.png": b"broken"},
        "me/gated": {"all.parquet": parquet(8)},
        "me/private": {"all.parquet": parquet(9)},
        "me/script": {"script.py": b"print('run me')"},
        "me/nothing": {"notes.txt": b""},
        "me/configs": {"README.md": card.encode(), "a.parquet": parquet(1), "b.parquet": parquet(2)},
    }


def opened(url, home, cases, **environment):
    """What `open_data` makes of each (id, settings): a dict, or an error's text."""
    environment = dict(
        PATH="", HF_ENDPOINT=url, HF_HOME=str(home), HF_HUB_DISABLE_XET="1", HF_HUB_DISABLE_TELEMETRY="1", HF_TOKEN="",
        NO_PROXY="127.0.0.1", OMP_NUM_THREADS="1", **environment,
    )  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(cases)], env=environment, cwd=home, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "run me" not in done.stdout
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def results(home, repos):
    """All at once, because starting Python and importing everything takes longest."""
    cases = {
        "train": ("me/pets", {"split": "train"}),
        "stream": ("me/pets", {"split": "train", "streaming": True, "revision": "main"}),
        "slice": ("me/pets", {"split": "train[1:]"}),
        "which split": ("me/pets", {}),
        "no such split": ("me/pets", {"split": "val"}),
        "no such split to stream": ("me/pets", {"split": "val", "streaming": True}),
        "only split": ("me/one", {}),
        "only split to stream": ("me/one", {"streaming": True}),
        "folders": ("me/folders", {"label_map": {"cats": "cat"}, "streaming": True}),
        "unknown folders": ("me/folders", {"streaming": True}),
        "decoding folders": ("me/folders", {"label_map": {"cats": "cat"}, "loaded": True}),
        "no such revision": ("me/pets", {"split": "train", "revision": "v9"}),
        "missing": ("me/none", {}),
        "missing to stream": ("none", {"streaming": True, "split": "train"}),
        "gated": ("me/gated", {}),
        "private": ("me/private", {"split": "train"}),
        "script": ("me/script", {}),
        "nothing": ("me/nothing", {}),
        "configs": ("me/configs", {}),
        "no name": ("a--b/c", {"split": "train"}),
    }
    with serving(repos, gated=["me/gated"], private=["me/private"]) as url:
        return dict(zip(cases, opened(url, home, list(cases.values())), strict=True)) | {"url": url}


BROKEN = (
    "`image` must be of a format that Pillow reads; got '{}'. Copy it again, convert it to PNG or JPEG, or install "
    "the Pillow plugin for its format."
)
MISSING = "ArgumentError: `data` must be a folder that exists, or a data set on the Hub that you may see; got '{}'."
LOADING = "No folder here is called '{0}'. To load the data set '{0}', "


def test_a_split_is_loaded(results):
    data = results["train"]
    assert data["samples"] == [
        ["row 0 (1.png)", [0], 1, None],
        ["row 1 (2.png)", [1], None, BROKEN.format("row 1 (2.png)")],
        ["row 2 (3.png)", [0], 3, None],
    ]
    assert data["has_labels"] is True
    assert {**data["identity"], "fingerprint": None} == {
        "id": "me/pets", "is_local": False, "revision": None, "split": "train", "num_images": 3, "fingerprint": None,
    }  # fmt: skip
    assert [row[2] for row in results["slice"]["samples"]] == [None, 3]
    assert results["slice"]["identity"]["split"] == "train[1:]"
    assert results["slice"]["identity"]["fingerprint"] != data["identity"]["fingerprint"]


def test_a_split_is_streamed(results):
    data = results["stream"]
    assert data["samples"] == results["train"]["samples"]
    assert {**data["identity"], "fingerprint": None} == {
        "id": "me/pets", "is_local": False, "revision": "main", "split": "train", "num_images": None,
        "fingerprint": None,
    }  # fmt: skip


def test_splits_are_chosen(results):
    assert results["which split"] == (
        "ArgumentError: `split` must be one of 'train', 'test'; got None. Choose the one to survey."
    )
    for case in ("no such split", "no such split to stream"):
        assert results[case].startswith(
            "ArgumentError: `data` must be what `datasets` can load; got 'me/pets' (ValueError"
        )
        assert "val" in results[case]
        assert "['train', 'test']" in results[case]
    for case in ("only split", "only split to stream"):
        assert results[case]["samples"] == [["row 0 (5.png)", [0], 5, None]]
        assert results[case]["identity"]["split"] == "train"


def test_folders_of_images_are_matched_by_name(results):
    assert results["folders"]["samples"] == [
        ["row 0 (a.png)", [0], 6, None],
        ["row 1 (b.png)", [1], 7, None],
        ["row 2 (c.png)", [1], None, BROKEN.format("row 2 (c.png)")],
    ]
    assert "`label` must be one of the model's labels or an index; got 'cats'." in results["unknown folders"]
    assert results["decoding folders"] == (
        "ArgumentError: `data` must not be a stream that decodes images itself (a broken one ends it); got one "
        "(cannot identify image file). Call `decode(False)` on it as soon as it is loaded."
    )


@pytest.mark.parametrize(
    ("case", "text"),
    [
        ("no such revision", "HubError: " + LOADING.format("me/pets") + "`revision` must be a branch,"),
        ("missing", MISSING.format("me/none")),
        ("missing to stream", MISSING.format("none")),
        ("private", "got 'me/private'. Check the name; if it is a private data set, log in with `hf auth login`."),
        ("gated", LOADING.format("me/gated") + "you must have been given access to it; got a gated data set. Ask for"),
        ("gated", "{url}/datasets/me/gated, then log in with `hf auth login`."),
        ("script", "(RuntimeError: Dataset scripts are no longer supported, but found script.py)"),
        ("nothing", "ArgumentError: `data` must be what `datasets` can load; got 'me/nothing' ("),
        ("configs", "Please pick one among the available configs: ['a', 'b']"),
        ("no name", "HubError: " + LOADING.format("a--b/c") + "`repo_id` must be a name on the Hub"),
    ],
)
def test_what_cannot_be_loaded(results, case, text):
    assert text.format(url=results["url"]) in results[case]
    assert results[case].isprintable()


@pytest.mark.slow
def test_offline(results, home):
    """Without a connection, what has been loaded once is still there."""
    cases = [("me/pets", {"split": "train"}), ("me/pets", {}), ("me/none", {"split": "train"}), ("imges", {})]
    cached, which, *missing = opened("http://127.0.0.1:9", home, cases, HF_HUB_OFFLINE="1")
    assert cached == results["train"]
    assert which == results["which split"]
    for (name, _), text in zip(cases[2:], missing, strict=True):
        assert text == (
            f"HubError: {LOADING.format(name)}the Hub must be in reach; got "
            "offline mode (HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set). Unset it and start Python again."
        )
