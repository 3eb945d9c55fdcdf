"""JSON and CSV of an evaluation, read back."""

import json

import numpy as np
import pytest

from gmar_hf import ArgumentError
from gmar_hf.evaluation import Row
from gmar_hf.evaluation.output.page import write_page
from gmar_hf.evaluation.output.tables import write_results
from tests.helpers.evaluations import CURVES, METHODS, METRICS, NASTY, made, read_csv


def write(evaluation, folder):
    write_results(evaluation, evaluation.summary(), folder)


def test_json_holds_what_the_summary_says(tmp_path):
    evaluation = made(curves=CURVES)
    write(evaluation, tmp_path)
    found = json.loads((tmp_path / "results.json").read_text(), parse_constant=pytest.fail)
    assert (found["model"], found["num_images"], found["num_rows"]) == ("me/model", 6, 12)
    assert next(iter(found)) == "verdict"
    assert found["verdict"] == json.loads(json.dumps(evaluation.verdict().as_dict()))
    assert found["methods"] == evaluation.summary()
    assert found["costs"]["masked"] == {"forwards": 9.0, "milliseconds": 1.5, "baseline": "blur"}
    assert found["costs"]["mine"]["forwards"] is None
    assert list(found["costs"]) == list(found["methods"]) == list(METHODS)
    assert found["metrics"]["deletion"] == {
        "key": "deletion", "function": "deletion", "baseline": "blur", "higher_is_better": False,
    }  # fmt: skip
    assert found["curves"]["insertion"] == CURVES["insertion"].tolist()
    assert found["settings"] == evaluation.settings


def test_csv_has_a_row_for_each_method_and_metric(tmp_path):
    evaluation = made()
    write(evaluation, tmp_path)
    rows = read_csv(tmp_path / "results.csv")
    assert [(row["method"], row["metric"]) for row in rows] == [(a, b.key) for a in METHODS for b in METRICS]
    for row in rows:
        values = evaluation.of(row["method"], row["metric"])
        assert float(row["mean"]) == pytest.approx(np.nanmean(values))
        assert int(row["num_rows"]) == np.isfinite(values).sum()
        if row["method"] == "rollout":
            assert row["minus_rollout_mean"] == row["minus_rollout_low"] == ""
        else:
            difference = np.nanmean(values - evaluation.of("rollout", row["metric"]))
            assert float(row["minus_rollout_mean"]) == pytest.approx(difference)
        assert row["minus_gmar-l1_mean"] == ""  # was not measured
    by_name = {(row["method"], row["metric"]): row for row in rows}
    masked = by_name["masked", "pointing_game"]
    assert (masked["baseline"], masked["higher_is_better"], masked["made_with_baseline"]) == ("", "True", "blur")
    assert (masked["low"], masked["forwards"], masked["milliseconds"]) == ("", "9.0", "1.5")  # of one image
    mine = by_name["mine", "insertion_zero"]
    assert (mine["baseline"], mine["forwards"], mine["made_with_baseline"]) == ("zero", "", "")
    assert float(mine["low"]) < float(mine["mean"]) < float(mine["high"])
    assert by_name["mine", "sparseness"]["higher_is_better"] == ""


def test_csv_has_every_single_figure(tmp_path):
    evaluation = made()
    write(evaluation, tmp_path)
    rows = read_csv(tmp_path / "images.csv")
    assert len(rows) == 12 * len(METHODS)
    values = [[float(row[metric.key] or "nan") for metric in METRICS] for row in rows]
    assert np.array_equal(np.reshape(values, evaluation.values.shape), evaluation.values, equal_nan=True)
    last = rows[-1]
    assert (last["image"], last["label"], last["target"], last["score"], last["labels_first"], last["method"]) == (
        "item 5", "cat", "1", "0.25", "False", "mine",
    )  # fmt: skip


def test_a_spreadsheet_runs_nothing(tmp_path):
    full_width = [chr(ord(letter) + 0xFEE0) for letter in "=+-@"]
    for beginning in ("=", "+", "-", "@", "\t", "\r", "\n", " =", *full_width):
        evaluation = made(2, label=beginning + 'HYPERLINK("http://x")', image=beginning + 'image {}, "quoted"\n')
        evaluation.values[0, 0, 0] = -0.125
        write(evaluation, tmp_path)
        rows = read_csv(tmp_path / "images.csv")
        assert rows[0]["label"] == f'\'{beginning}HYPERLINK("http://x")'
        assert {row["image"][: 1 + len(beginning)] for row in rows} == {"'" + beginning}
        assert rows[0]["insertion"] == "-0.125"  # a number stays one
    unknown = made(1, rows=[Row("a", 0, "cat", 0.5, None, 0)], values=np.ones((1, len(METHODS), len(METRICS))))
    write(unknown, tmp_path)
    assert {row["labels_first"] for row in read_csv(tmp_path / "images.csv")} == {""}


def test_names_of_files_need_not_be_utf_8(tmp_path):
    evaluation = made(2, image="caf\udce9 {}", label="Ünïcode")
    write(evaluation, tmp_path)
    row = read_csv(tmp_path / "images.csv")[0]
    assert (row["image"], row["label"]) == ("caf\\udce9 0", "Ünïcode")
    for name in ("images.csv", "results.csv"):  # by which Excel knows UTF-8
        assert (tmp_path / name).read_bytes().startswith(b"\xef\xbb\xbf")
    assert json.loads((tmp_path / "results.json").read_text())["num_images"] == 2


def test_names_are_held_as_they_are(tmp_path):
    write(made(2, model_id=NASTY, label=NASTY), tmp_path)
    assert read_csv(tmp_path / "images.csv")[0]["label"] == NASTY
    assert json.loads((tmp_path / "results.json").read_text())["model"] == NASTY


def test_files_take_the_place_of_others_and_leave_nothing_else(tmp_path):
    for num_images in (2, 3):
        evaluation = made(num_images)
        write(evaluation, tmp_path)
        write_page(evaluation, evaluation.summary(), [], tmp_path / "index.html")
        assert len(read_csv(tmp_path / "images.csv")) == num_images * 2 * len(METHODS)
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "images.csv", "index.html", "results.csv", "results.json",
    ]  # fmt: skip
    for fail in (
        lambda: write(made(1), tmp_path / "no"),
        lambda: write_page(made(1), made(1).summary(), [], tmp_path / "no/a"),
    ):
        with pytest.raises(ArgumentError, match=r"`path` must be a file that can be written; got '.*no/"):
            fail()


def test_results_json_is_written_last(tmp_path, monkeypatch):
    """It tells that all is there."""
    (tmp_path / "images.csv").mkdir()  # cannot be replaced
    with pytest.raises(ArgumentError):
        write(made(1), tmp_path)
    assert not (tmp_path / "results.json").exists()
