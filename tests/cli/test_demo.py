"""`gmar-hf demo`: both garments of bundled scenes by the bundled ViT."""

import functools
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gmar_hf import demo
from gmar_hf.cli import demo_scenes
from gmar_hf.demo.scene import LABELS
from gmar_hf.images.own_pictures import is_own_picture
from gmar_hf.pipeline import GMARExplainer
from tests.helpers import commands
from tests.helpers.commands import printed, refusal


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(demo_scenes, "_NUM_CANDIDATES", 20)
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
        assert entry["method"] in ("gmar", "recommended")
        assert 0 <= entry["energy_on_target"] <= 1
        with Image.open(Path("pictures", entry["file"])) as image:
            assert (image.mode, image.size) == ("RGB", (384, 384))
        assert entry["label"] in out
    assert all(map(is_own_picture, Path("pictures").glob("*.png")))
    scenes = {(entry["scene"], entry["label"]) for entry in entries}
    assert len(scenes) == 6  # two different targets of each
    for name in ("contact-sheet.png", "head-maps.png"):
        with Image.open(Path("pictures", name)) as image:
            assert np.asarray(image.convert("L")).std() > 20
        assert f"pictures/{name}" in out
    # Beside the heads' maps stand the scene and what they come to together.
    with Image.open("pictures/head-maps.png") as image:
        column = np.asarray(image.convert("RGB").crop((0, 0, image.width // 4, image.height // 2)), dtype=int)
    assert np.ptp(column, axis=2).max() > 100  # garments are coloured
    on_target = [entry["energy_on_target"] for entry in entries if entry["method"] == "recommended"]
    on_other = [entry["energy_on_other"] for entry in entries if entry["method"] == "recommended"]
    assert np.mean(on_target) > 2 * np.mean(on_other)  # a trained model, explained
    assert all(entry["logit_drop_without_target"] > 1 for entry in entries)  # it sees the garments themselves
    # The scene that points the wrong way comes last, and the words under the table say why it is there.
    assert [entry["points_right"] for entry in entries] == [True] * 8 + [False] * 4
    misleading = [e for e in entries if e["scene"] == 3 and e["method"] == "recommended"]
    assert any(e["energy_on_target"] <= 2 * e["energy_on_other"] for e in misleading)
    assert "Scene 3 is shown because the recommended map misleads there" in out


@pytest.mark.slow
def test_what_taking_a_garment_out_does_is_what_the_model_says_of_the_scene_without_it():
    model, image_processor = demo.load("vit")
    explainer = GMARExplainer(model=model, image_processor=image_processor, device="cpu")
    shown = demo_scenes.choose_scenes(explainer, seed=0)[0]
    number = next(n for n, scene in enumerate(demo.scenes(20)) if scene["image"] == shown.scene["image"])
    images = [demo.scenes(number + 1)[-1]["image"], demo.scenes(number + 1, without=1)[-1]["image"]]
    with torch.no_grad():
        whole, without = model(**image_processor(images, return_tensors="pt")).logits[:, shown.scene["labels"][1]]
    assert shown.effects[1] == pytest.approx(float(whole - without), abs=1e-4)


@pytest.mark.slow
@pytest.mark.campaign
def test_the_same_seed_gives_the_same_files(run, monkeypatch):
    monkeypatch.setattr(demo_scenes, "NUM_RIGHT", 1)
    monkeypatch.setattr(demo_scenes, "NUM_WRONG", 0)
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
