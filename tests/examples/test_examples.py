import gzip
import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner

from gmar_hf import demo
from gmar_hf.evaluation import Evaluation, Row
from gmar_hf.evaluation.metric_columns import choose_metrics
from tests.helpers.reports import make_report

BENCHMARKS = Path(__file__).parents[2] / "examples" / "benchmarks"


def load_example(name):
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and typer look their module up
    spec.loader.exec_module(module)
    return module


leaderboard = load_example("leaderboard")
truth = load_example("truth_maps")
training = load_example("train_demo_models")


def figures(name, values, images=(0, 0, 1, 1), firsts=(True, True, False, False)):
    """An evaluation of one method on two scenes: the figures (rows, metrics) of all metrics of the table."""
    columns = choose_metrics(leaderboard.METRICS, leaderboard.BASELINES, has_masks=True, has_class_masks=True)
    return Evaluation(
        settings={},
        methods=[
            {
                "name": name,
                "forwards": 2,
                "baseline": "blur" if name.endswith("-contribution") else None,
                "milliseconds": 1.0,
            }
        ],
        metrics=columns,
        rows=[
            Row(f"item {image}", number % 2, "bag", 0.5, first, image)
            for number, (image, first) in enumerate(zip(images, firsts, strict=True))
        ],
        values=np.broadcast_to(np.asarray(values, dtype=float)[:, None, None], (4, 1, len(columns))).copy(),
    )


def test_tables_are_of_the_scenes_ranked_first():
    parts = [figures("contribution", [0.5, 0.7, 9, 9]), figures("partition-contribution", [0.6, 0.6, 9, 9])]
    lines = leaderboard.short_table({"vit": Evaluation.join(parts)})
    assert lines[0] == "| map | ViT: blur / zero / other | energy on target | class corr. | cost |"
    assert lines[2:] == [
        "| contribution | 0.60 / 0.60 / 0.60 | 0.60 | 0.60 | 2 |",
        "| partition-contribution | 0.60† / 0.60 / 0.60 | 0.60 | 0.60 | 2 |",
    ]


def test_ratios_by_hand():
    values = {
        "contribution": 0.6, "masked-contribution": 0.66, "rollout": 0.4, "gmar-l1": 0.3, "legrad": 0.5,
        "grad-cam": 0.55, "integrated-gradients": 0.8,
    }  # fmt: skip
    found = Evaluation.join([figures(name, [value] * 4) for name, value in values.items()])
    lines = leaderboard.ratios({"vit": found}, {"vit": {"contribution, signed": [0.95, 0.9]}})
    assert lines[2:] == [
        "| contribution to rollout, blur | 1.50 |",
        "| integrated-gradients to rollout, blur | 2.00 |",
        "| contribution to integrated gradients, mean of the baselines | 0.750 |",
        "| contribution minus legrad: blur / zero / other | +0.10 / +0.10 / +0.10 |",
        "| contribution minus grad-cam: blur / zero / other | +0.05 / +0.05 / +0.05 |",
        "| masked-contribution to integrated gradients: blur / zero / other | 0.825 / 0.825 / 0.825 |",
        "| energy on target, contribution to GMAR L1 | 2.00 |",
        "| class correlation of contribution | 0.60 |",
        "| heads, Spearman: contribution, signed | 0.950 / 0.900 |",
    ]


@pytest.mark.slow
def test_the_script_writes_both_tables_and_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(leaderboard, "DOCUMENT", tmp_path / "leaderboard.md")
    arguments = ["--model", "vit", "--num-scenes", "2", "--work", str(tmp_path / "work")]
    for method in ("contribution", "rollout"):
        arguments += ["--methods", method]
    done = CliRunner().invoke(leaderboard.app, arguments)
    assert done.exit_code == 0, done.output
    document = (tmp_path / "leaderboard.md").read_text()
    assert "## ViT" in document
    assert "| contribution to rollout, blur | " in document
    assert "| heads, Spearman: contribution, signed | 0." in document
    monkeypatch.setattr(leaderboard, "evaluate", None)  # everything is there already
    monkeypatch.setattr(leaderboard.gmar_hf, "explain", None)
    assert CliRunner().invoke(leaderboard.app, arguments).exit_code == 0
    assert (tmp_path / "leaderboard.md").read_text() == document


def test_rows_of_maps_left_out_stay():
    old = "## In short\n\n| map | a |\n| --- | --- |\n| rollout | 1 |\n| contribution | 2 |\n\n"
    old += (
        "## ViT\n\nFirst:\n\n| map | a | ms |\n| --- | --- | --- |\n| rollout | 0.5 | 9.0 |\n| random | 0.1 | 9.0 |\n"
    )
    new = "## In short\n\n| map | a |\n| --- | --- |\n| removal | 3 |\n\n"
    new += (
        "## ViT\n\nFirst:\n\n| map | a | ms |\n| --- | --- | --- |\n| rollout | 0.6 | 1.0 |\n| removal | 0.7 | 2.0 |\n"
    )
    times = {"vit": {"rollout": 1.0, "removal": 2.0, "random": 3.0}}
    short, vit = leaderboard.with_rows_kept(old, new, times).split("\n## ViT")
    assert short.splitlines()[4:7] == ["| contribution | 2 |", "| removal | 3 |", "| rollout | 1 |"]
    assert vit.splitlines()[6:] == ["| removal | 0.7 | 2.0 |", "| rollout | 0.6 | 1.0 |", "| random | 0.1 | 3.0 |"]


def test_maps_of_the_truth_by_hand():
    mask = torch.zeros(1, 4, 4, dtype=torch.bool)
    mask[0, :2, 0] = True
    other = torch.zeros(1, 4, 4, dtype=torch.bool)
    other[0, 2:, 2:] = True
    maps = truth.truth_maps(mask, other, 2)
    assert maps["the garment"].tolist() == [[[0.5, 0], [0, 0]]]
    assert maps["the garment minus the other"].tolist() == [[[0.5, 0], [0, -1]]]
    assert maps["both garments"].tolist() == [[[0.5, 0], [0, 1]]]


@pytest.mark.slow
@pytest.mark.campaign
def test_maps_of_the_truth_are_measured(capsys):
    truth.main(4, ["vit"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[1] for line in lines] == [
        "the garment", "the garment minus the other", "both garments",
    ]  # fmt: skip
    assert float(lines[0].split(": ")[2].split(" / ")[0]) > 0.2


def test_average_precision_by_hand():
    scores, truth = np.array([0.1, 0.9, 0.3, 0.6]), np.array([False, True, True, False])
    assert training.average_precision(scores, truth) == pytest.approx((1 / 1 + 2 / 3) / 2)


@pytest.fixture
def tiny_data(tmp_path):
    """A folder like Fashion-MNIST's, with four squares of each of its ten classes."""
    classes = np.repeat(np.arange(10, dtype=np.uint8), 4)
    images = np.zeros((40, 28, 28), np.uint8)
    images[:, 4:24, 4:24] = 20 * (classes[:, None, None] + 1)
    folder = tmp_path / "data"
    folder.mkdir()
    for part in ("train", "t10k"):
        with gzip.open(folder / f"{part}-images-idx3-ubyte.gz", "wb") as file:
            file.write(bytes(16) + images.tobytes())
        with gzip.open(folder / f"{part}-labels-idx1-ubyte.gz", "wb") as file:
            file.write(bytes(8) + classes.tobytes())
    return folder


def test_sheet_of_garments_has_a_row_per_label(tiny_data, tmp_path):
    result = CliRunner().invoke(training.app, ["garments", "--data", str(tiny_data), "--out", str(tmp_path / "a.png")])
    assert result.exit_code == 0, result.output
    sheet = np.asarray(Image.open(tmp_path / "a.png"))
    assert sheet.shape == (6 * 28, 4 * 28)
    assert [sheet[28 * row + 14, 14] for row in range(6)] == [20, 40, 80, 120, 180, 200]


@pytest.mark.slow
def test_training_writes_what_load_reads(tiny_data, tmp_path, monkeypatch):
    for name, value in {"NUM_FIRST_SCENES": 8, "NUM_SCENES": 8, "BATCH_SIZE": 4}.items():
        monkeypatch.setattr(training, name, value)
    monkeypatch.setattr(training, "evaluate", lambda model: [0.5] * 6)
    num_threads = torch.get_num_threads()
    for name in demo.MODELS:
        teacher = [] if name == "vit" else ["--teacher", str(tmp_path / "vit")]
        arguments = ["train", name, "--data", str(tiny_data), "--out", str(tmp_path), "--steps", "4", "--threads"]
        result = CliRunner().invoke(training.app, [*arguments, str(num_threads), *teacher])
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout)["macro_average_precision"] == 0.5
    monkeypatch.setattr("gmar_hf.demo.models._FOLDER", tmp_path)
    for name in demo.MODELS:
        model, _ = demo.load(name)
        pixel_values = torch.zeros(1, 3, 64, 64)
        assert model(pixel_values=pixel_values).logits.isfinite().all()


class TestPruneHeads:
    @pytest.fixture(scope="module")
    @staticmethod
    def pruning():
        sys.path.insert(0, str(BENCHMARKS))  # the script imports its neighbour
        try:
            return load_example("prune_heads")
        finally:
            sys.path.remove(str(BENCHMARKS))

    def test_rankings_begin_with_the_least(self, pruning):
        report = make_report(layers=3, heads=4)
        orders = pruning.rankings(report, num_random=3)
        assert orders["contribution_abs"][0] == report.prunable_heads(1.0)
        for name in ("l1", "l2"):
            values = [report.mean[name][head].item() for head in orders[name][0]]
            assert values == sorted(values)
        assert len(orders["random"]) == 3
        assert all(sorted(order) == sorted(report.prunable_heads(1.0)) for order in orders["random"])

    @pytest.mark.slow
    def test_precision_falls_as_heads_fall_silent(self, pruning, tmp_path):
        app = typer.Typer()
        app.command()(pruning.main)
        arguments = ["--num-survey", "20", "--num-test", "40", "--num-random", "1", "--num-steps", "2", "--out"]
        done = CliRunner().invoke(app, [*arguments, str(tmp_path / "figure.png")])
        assert done.exit_code == 0, done.output
        rows = [line.split(" | ") for line in done.output.splitlines() if line.startswith("| ") and "%" in line]
        assert [row[0] for row in rows] == ["| 0%", "| 50%", "| 100%"]
        first, last = (float(rows[index][1]) for index in (0, 2))
        assert first > 0.85
        assert last < 0.6
        with Image.open(tmp_path / "figure.png") as figure:
            assert figure.size[0] > 300
