"""The measurement of maps on photographs: the whole of it, on a tiny model and a folder of a few pictures."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from gmar_hf.evaluation.rows_and_columns import Row
from tests.helpers import zoo
from tests.helpers.explainers import image_processor as make_image_processor

SCRIPT = Path(__file__).parents[2] / "examples" / "benchmarks" / "photos.py"


@pytest.fixture(scope="module")
def photos():
    spec = importlib.util.spec_from_file_location("photos", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def folders(tmp_path):
    """A model that is sure of whatever it says, and pictures in the folders of what it says of them."""
    model = zoo.vit()
    with torch.no_grad():
        model.classifier.weight *= 200
    image_processor = make_image_processor()
    for part in (model, image_processor):
        part.save_pretrained(tmp_path / "model")
    generator = torch.Generator().manual_seed(0)
    for number in range(24):
        pixels = torch.randint(0, 256, (2, 2, 3), generator=generator, dtype=torch.uint8).repeat(16, 16, 1)
        image = Image.fromarray(pixels.numpy())
        inputs = image_processor(images=image, return_tensors="pt")
        label = model.config.id2label[model(**inputs).logits.argmax().item()]
        (tmp_path / "data" / label).mkdir(parents=True, exist_ok=True)
        image.save(tmp_path / "data" / label / f"{number}.png")
    return tmp_path


def run(photos, folders, *options):
    places = [f"--{name}={folders / name}" for name in ("model", "data", "out")]
    return CliRunner().invoke(photos.app, [*places, "--methods=contribution,random", "--num-steps=2", *options])


def test_a_table_is_printed_and_written(photos, folders):
    document = folders / "page.md"
    document.write_text("before\n<!-- more -->\nold\n<!-- /more -->\nafter\n")
    result = run(photos, folders, "--num-photos=3", "--num-mosaics=0", f"--document={document}", "--block=more")
    assert result.exit_code == 0, result.output
    written = (folders / "out" / "photos.md").read_text()
    assert written in result.output
    assert document.read_text() == f"before\n<!-- more -->\n{written}<!-- /more -->\nafter\n"
    head, _, *rows = written.splitlines()
    assert head.startswith("3 photos; 2 steps;")
    assert [row.split(" | ")[0] for row in rows] == ["| map", "| ---", "| contribution", "| random"]
    # What has finished is read, and not measured again.
    files = {path: path.stat().st_mtime_ns for path in (folders / "out" / "photos").rglob("*.safetensors")}
    assert run(photos, folders, "--num-photos=3", "--num-mosaics=0").exit_code == 0
    assert files == {path: path.stat().st_mtime_ns for path in (folders / "out" / "photos").rglob("*.safetensors")}


def test_mosaics_alone(photos, folders):
    result = run(photos, folders, "--num-photos=0", "--num-mosaics=2", "--least-score=0.5")
    assert result.exit_code == 0, result.output
    assert not (folders / "out" / "photos").exists()
    head, _, headings, _, *rows = (folders / "out" / "photos.md").read_text().splitlines()
    assert head == "2 mosaics of photos with 0.5 or more; seed 0; float32."
    assert headings.startswith("| map | GridPG | class corr. | quadrant | of ")
    assert [row.split(" | ")[0] for row in rows] == ["| contribution", "| random"]


def test_nothing_to_measure(photos, folders):
    result = run(photos, folders, "--num-photos=0", "--num-mosaics=0")
    assert result.exit_code == 2
    assert "must be more" in result.output


def test_quadrants_by_the_probability_of_the_class(photos):
    values = {
        "grid_pointing_game": [0.25] * 6,
        "class_sensitivity": [np.nan, 1, 1, 1, 1, 1],
        "right_quadrant": [1.0, 0, 0, 1, np.nan, 1],
    }
    grids = SimpleNamespace(
        methods=[{"name": "a|", "forwards": 2}],
        rows=[Row("x", 0, "cat", score, True, 0) for score in (0.5, 0.1, 0.2, 0.9, 0.8, 0.05)],
        of=lambda name, metric: np.array(values[metric]),
    )
    assert photos.table_of_mosaics(grids).splitlines() == [
        "| map | GridPG | class corr. | quadrant | of 0.05 to 0.1 | of 0.2 to 0.5 | of 0.8 to 0.9 | cost |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        "| a&#124; | 0.25 | 1.00 | 0.60 | 0.50 | 0.50 | 1.00 | 2 |",
    ]


def test_a_folder_that_is_no_label(photos, folders):
    (folders / "data" / "unheard-of").mkdir()
    Image.new("RGB", (8, 8)).save(folders / "data" / "unheard-of" / "a.png")
    result = run(photos, folders, "--num-photos=3", "--num-mosaics=0")
    assert result.exit_code == 2
    assert "unheard-of" in result.output
