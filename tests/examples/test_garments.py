"""The benchmark that takes a garment away: what it compares, and the table that it writes."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from gmar_hf import demo
from gmar_hf.metrics import single_deletion

SCRIPT = Path(__file__).parents[2] / "examples" / "benchmarks" / "garments.py"
spec = importlib.util.spec_from_file_location("garments", SCRIPT)
garments = importlib.util.module_from_spec(spec)
sys.modules["garments"] = garments  # typer looks its module up
spec.loader.exec_module(garments)


def test_effects_are_what_each_garment_adds_to_its_own_class_and_to_the_other():
    model, image_processor = demo.load("deit")
    rows = garments.garments_of("deit", 3)
    scenes = demo.scenes(3, seed=garments.SEED)
    for number, scene in enumerate(scenes):
        for place, label in enumerate(scene["labels"]):
            row = 2 * number + place
            assert rows.target[row] == label
            for garment, removed in ((0, place), (1, 1 - place)):  # the class's own garment first
                lacking = demo.scenes(number + 1, seed=garments.SEED, without=removed)[number]
                assert np.array_equal(rows.masks[row, garment], scene["masks"][scene["labels"][removed]])
                images = [scene["image"], lacking["image"]]
                with torch.no_grad():
                    logits = model(**image_processor(images, return_tensors="pt")).logits[:, label]
                assert rows.effect[row, garment].item() == pytest.approx((logits[0] - logits[1]).item(), abs=1e-4)


def test_a_line_by_hand():
    # Masses 4 1, 2 3 and effects 5 0, 3 1: ranks 4 1 2 3 and 4 1 3 2, 1 - 6 * 2 / 60; 1 and -1 within; 1 and 1.
    found = single_deletion(torch.tensor([[4.0, 1.0], [2.0, 3.0]]), torch.tensor([[5.0, 0.0], [3.0, 1.0]]))
    assert garments.line("mine", found, (0.5, 0.9), 2.0) == "| mine | 0.80 [0.50, 0.90] | 0.00 | 1.00 | 1.00 | 2 |"
    nothing = single_deletion(torch.zeros(2, 2), torch.eye(2))
    assert garments.line("nothing", nothing, None, None) == "| nothing | nan | - | - | - | - |"


def test_an_interval_holds_a_perfect_and_a_mixed_map():
    effect = torch.randn(40, 2, generator=torch.Generator().manual_seed(0))
    assert garments.interval(3 * effect, effect, 20) == (1, 1)
    low, high = garments.interval(effect + torch.randn(40, 2, generator=torch.Generator().manual_seed(1)), effect, 50)
    assert -1 < low < high < 1


def test_the_script_writes_its_table(tmp_path):
    arguments = ["--num-scenes", "2", "--model", "vit", "--methods", "contribution,centre-blob"]
    app = garments.typer.Typer()
    app.command()(garments.main)
    done = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "table.md")])
    assert done.exit_code == 0, done.output
    text = (tmp_path / "table.md").read_text()
    assert text in done.output
    titles = [line.split(" | ")[0] for line in text.splitlines() if line.startswith("|")]
    assert titles == ["| map", "| ---", "| the garment", "| contribution", "| centre-blob"]
