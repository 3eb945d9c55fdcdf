import os
from pathlib import Path

import pytest

from gmar_hf.data import open_data
from gmar_hf.data.label_reader import LabelReader
from gmar_hf.errors import ArgumentError, ArgumentTypeError
from tests.helpers.sample_files import LABELS, message, write


def test_names_that_are_neither_folders_nor_ids(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in [
        "",
        "a/b/c",
        "./missing",
        "/missing",
        "~/data",
        "a b",
        "a\x1b[2J",
        "écoles",
        "a/b\n",
        "..\\data",
        "a/",
    ]:
        assert message(name) == (
            f"`data` must be a folder that exists or a data set's id on the Hub ('owner/name'); got {name!r}. "
            f"Check the path (relative ones start in {str(tmp_path)!r})."
        )
    assert message(Path("missing")) == "`data` must be a folder that exists; got 'missing'. Check the path."
    write(tmp_path, {"a.png": 1})
    for name in ("a.png", Path("a.png"), str(tmp_path / "a.png")):
        assert message(name) == (
            f"`data` must be a folder or a data set's id on the Hub; got the file {os.fspath(name)!r}. "
            "Pass the folder that it lies in."
        )


def test_a_folder_comes_before_a_data_set_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "me" / "pets", {"a.png": 1})
    assert open_data("me/pets", LABELS).identity["id"] == "pets"


def test_labels_of_thousands_of_classes_are_found_at_once():
    id2label = {index: f"label {index}" for index in range(20_000)}
    names = [f"label {index}" for index in reversed(range(20_000))]
    labels = LabelReader(id2label, names=names)
    labels.check(range(20_000))
    assert labels.read([0, 19_999]) == (19_999, 0)
    shouted = LabelReader(id2label, names=[name.upper() for name in names])
    with pytest.raises(
        ArgumentError,
        match=r"got 'LABEL 19999'\. Near it: 'label 19999'.*In all, 20000 are unknown: 'LABEL 19999', .* and 19,980 m",
    ):
        shouted.check(range(20_000))


def test_class_numbers_without_a_name():
    labels = LabelReader(LABELS, names=["dog"])
    assert labels.read(0) == (1,)
    with pytest.raises(ArgumentError, match=r"must be a position among the data set's 1 class names; got 1\."):
        labels.read(1)


def test_indicators_of_two_classes_are_indices():
    """With two classes nobody can tell; with more, and as many numbers as classes, they are refused."""
    assert LabelReader({0: "a", 1: "b"}).read([0, 1]) == (0, 1)
    assert LabelReader({0: "a", 1: "b", 2: "c"}).read([0, 1]) == (0, 1)
    with pytest.raises(ArgumentError):
        LabelReader({0: "a", 1: "b", 2: "c"}).read([0, 1, 0])


def test_label_maps_are_checked():
    with pytest.raises(
        ArgumentTypeError, match=r"`label_map` must be a mapping from names to labels or indices; got str"
    ):
        LabelReader(LABELS, "dog=cat")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match=r"`label_map` must name one class; got 'crane'"):
        LabelReader(LABELS, {"n1": "crane"})
    assert LabelReader(LABELS, {"n1": 3}).read("n1") == (3,)
