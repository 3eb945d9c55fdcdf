"""`gmar-hf demo`: both garments of bundled scenes by the bundled ViT."""

import functools
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gmar_hf.cli import demo as demonstration
from gmar_hf.demo.scene import LABELS
from tests.helpers import commands
from tests.helpers.commands import printed, refusal


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(demonstration, "_MAX_TRIED", 20)
    return functools.partial(commands.run, monkeypatch, capsys)


@pytest.mark.slow
def test_what_it_writes_and_prints(run):
    out = printed(run("demo", "--out", "pictures"))
    entries = json.loads(Path("pictures/demo.json").read_text())
    assert len(entries) == 3 * 2 * 2  # scenes, garments, methods
    assert sorted(os.listdir("pictures")) == sorted(
        [entry["file"] for entry in entries] + ["contact-sheet.png", "demo.json", "head-maps.png"]
    )
    for entry in entries:
        assert entry["label"] in LABELS
        assert entry["method"] in ("gmar", "contribution")
        assert 0 <= entry["energy_on_target"] <= 1
        with Image.open(Path("pictures", entry["file"])) as image:
            assert (image.mode, image.size) == ("RGB", (384, 384))
        assert entry["label"] in out
    scenes = {(entry["scene"], entry["label"]) for entry in entries}
    assert len(scenes) == 6  # two different targets of each
    for name in ("contact-sheet.png", "head-maps.png"):
        with Image.open(Path("pictures", name)) as image:
            assert np.asarray(image.convert("L")).std() > 20
        assert f"pictures/{name}" in out
    on_target = [entry["energy_on_target"] for entry in entries if entry["method"] == "contribution"]
    on_other = [entry["energy_on_other"] for entry in entries if entry["method"] == "contribution"]
    assert np.mean(on_target) > 2 * np.mean(on_other)  # a trained model, explained


@pytest.mark.slow
def test_the_same_seed_gives_the_same_files(run, monkeypatch):
    monkeypatch.setattr(demonstration, "NUM_SCENES", 1)
    out = printed(run("demo", "--out", "one", "--seed", 5, "--json"))
    assert json.loads(out) == json.loads(Path("one/demo.json").read_text())
    assert run("demo", "--out", "two", "--seed", 5)[0] == 0
    assert os.listdir("one") == os.listdir("two")
    for name in os.listdir("one"):
        assert Path("one", name).read_bytes() == Path("two", name).read_bytes(), name


def test_bad_input(run):
    Path("file").touch()
    assert refusal(run("demo", "--out", "file")).startswith(
        "`--out` must be a folder that can be written; got 'file' ("
    )
    assert run("demo", "--seed", -1)[0] == 2
    assert run("demo", "extra")[0] == 2
