"""`gmar-hf compare`: what it prints of two reports, and how it ends."""

import json
import os
from pathlib import Path

import pytest
import torch

from gmar_hf import HeadImportanceReport
from tests.helpers.commands import printed, refusal
from tests.helpers.reports import made_settings, make_moments, make_report


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with the reports "a" and "b", of one model on other images, where the command is started."""
    monkeypatch.chdir(tmp_path)
    make_report().save_pretrained("a")
    make_report(seed=1, target="label", num_explanations=1200, counts={"num_images": 813}).save_pretrained("b")
    return tmp_path


def test_what_is_printed(run, here):
    out = printed(run("compare", "a", "b"))
    comparison = HeadImportanceReport.from_pretrained("a").compare(HeadImportanceReport.from_pretrained("b"))
    lines = out.splitlines()
    changed, correlation = comparison.num_changed, comparison.rank_correlation["contribution_abs"]
    assert changed == sum(abs(head["z"]) > 2.87 for head in comparison.moved) > 1  # isf(0.025 / 12) of the normal
    assert lines[:4] == [
        "A: a, of somebody/tiny-vit over 60 images of somebody/pictures, each explained for the predicted class",
        "B: b, of somebody/tiny-vit over 813 images of somebody/pictures, each explained for its labels",
        "Both are of one model.",
        f"Their rankings of the heads agree by {correlation:.2f} (1: wholly); {changed} heads of 12 differ by more "
        "than chance explains (|z| above 2.9).",
    ]
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if line.startswith("│")]
    correlations, moved = cells[:6], cells[6:]
    assert correlations == [[key, f"{value:.3f}"] for key, value in comparison.rank_correlation.items()]
    assert len(moved) == len(comparison.moved) > 3
    for row, head in zip(moved, comparison.moved, strict=True):
        assert row == [
            f"{head['layer']}.{head['head']}",
            f"{head['rank_before']:g} -> {head['rank_after']:g}",
            f"{head['mean_before']:.3f} -> {head['mean_after']:.3f}",
            f"{head['z']:+z.1f}",
        ]
    assert lines[-1].startswith(
        "These heads changed most, by chance or not. z is the change of contribution_abs in its standard"
    )


def test_json(run, here):
    out = printed(run("compare", "a", "b", "--json"))
    summary = json.loads(out)
    comparison = HeadImportanceReport.from_pretrained("a").compare(HeadImportanceReport.from_pretrained("b"))
    assert summary == {
        "reports": [
            {"report": "a", "model": "somebody/tiny-vit", "state": None, "datasets": ["somebody/pictures"],
             "target": "predicted",
             "num_images": 60, "image_processing": None},
            {"report": "b", "model": "somebody/tiny-vit", "state": None, "datasets": ["somebody/pictures"],
             "target": "label",
             "num_images": 813, "image_processing": None},
        ],
        "same_weights": True,
        "same_image_processing": None,
        "rank_correlation": comparison.rank_correlation,
        "num_heads": 12,
        "bound": comparison.bound,
        "num_changed": comparison.num_changed,
        "moved": comparison.moved,
    }  # fmt: skip


def test_nothing_has_moved(run, here):
    out = printed(run("compare", "a", "a"))
    assert "Both give every head the same mean size of its contribution (contribution_abs).\n" in out
    assert " -> " not in out
    assert json.loads(run("compare", "a", "a", "--json")[1])["moved"] == []


def test_other_weights(run, here):
    report = make_report(seed=1)
    HeadImportanceReport(report.moments, report.weight_sample + 1, report.settings).save_pretrained("other")
    assert "They are of models with different weights.\n" in run("compare", "a", "other")[1]
    assert json.loads(run("compare", "a", "other", "--json")[1])["same_weights"] is False


def test_numbers_that_are_none(run, here):
    """Equal scores of all heads have no ranks, and means without any error no distance in errors."""
    moments = make_moments(num_explanations=1)
    moments.mean[:] = torch.where(moments.count.bool()[:, None, None, None], 1.0, 0.0)
    settings = made_settings(moments)
    HeadImportanceReport(moments, torch.zeros(4), settings).save_pretrained("one")
    moments.count *= 2
    settings["counts"] = {key: 2 * value for key, value in settings["counts"].items()}
    HeadImportanceReport(moments, torch.zeros(4), settings).save_pretrained("alike")
    moments.mean[moments.count > 0, :, 0, 0] = 3.0
    HeadImportanceReport(moments, torch.zeros(4), settings).save_pretrained("two")
    code, out, _ = run("compare", "alike", "two")
    assert code == 0
    assert out.count("none: all heads alike") == 6
    assert any([cell.strip() for cell in line.split("│")[-2:-1]] == ["none"] for line in out.splitlines())
    summary = json.loads(run("compare", "alike", "two", "--json")[1], parse_constant=pytest.fail)
    assert set(summary["rank_correlation"].values()) == {None}
    assert summary["moved"][0]["z"] is None
    assert run("compare", "one", "two", "--json")[0] == 0


@pytest.mark.parametrize("as_json", [[], ["--json"]])
def test_reports_that_do_not_fit(run, here, as_json):
    make_report(layers=2, heads=3).save_pretrained("small")
    assert run("compare", "a", "small", *as_json) == (
        1,
        "",
        "gmar-hf: `other` must be of 3 layers of 4 heads; got 2 of 3. Compare reports of one architecture.\n",
    )


def test_folders_that_are_no_reports(run, here):
    Path("empty").mkdir()
    Path("model").mkdir()
    Path("model/config.json").write_text('{"model_type": "vit"}')
    make_report().save_pretrained("half")
    Path("half/report.safetensors").unlink()
    make_report().save_pretrained("broken")
    with Path("broken/report.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\xff")
    for name, message in {
        "empty": "'empty' must be a head-importance report; got one without config.json,",
        "model": "'model' must be a head-importance report; its config.json is of something else.",
        "half": "'half' must be a head-importance report; got one without report.safetensors,",
        "broken": "'broken' must be a complete report; its report.safetensors is corrupt (its sha256 is not",
        "./none": "A report must be a folder or a repo id; got './none', which is no folder.",
        "a/config.json": "A report must be a folder or a repo id; got 'a/config.json', which is a file.",
    }.items():
        for names in ((name, "a"), ("a", name)):
            assert refusal(run("compare", *names)).startswith(message)


def test_reports_on_the_hub(run, here, hub):
    hub.add("me/heads", {path.name: path.read_bytes() for path in Path("b").iterdir()})
    assert "\nB: me/heads, of somebody/tiny-vit over 813 images" in printed(run("compare", "a", "me/heads"))
    assert refusal(run("compare", "me/none", "a")).startswith(
        "No folder here is called 'me/none'. To load the report, `repo_id` must be a repository that is on"
    )


def test_names_that_would_steer_a_terminal(run, here):
    folder = "\x1b[2J[red]x\nb"
    report = make_report(model={"id": "evil\x1b]0;title\x07", "is_local": True}, seed=1)
    report.settings["datasets"][0]["id"] = "data\x1b[31m"
    report.save_pretrained(folder)
    out = printed(run("compare", "a", folder))
    assert r"B: \x1b[2J[red]x\nb, of evil\x1b]0;title\x07 over 60 images of data\x1b[31m, each" in out
    os.remove(f"{folder}/report.safetensors")
    everything = out + run("compare", "a", folder)[2]
    assert all(letter.isprintable() or letter == "\n" for letter in everything)


@pytest.mark.parametrize("arguments", [[], ["a"], ["a", "b", "c"], ["a", "b", "--colour"]])
def test_wrong_usage(run, here, arguments):
    code, out, err = run("compare", *arguments)
    assert (code, out) == (2, "")
    assert "Usage: gmar-hf compare" in err


def test_images_that_were_processed_otherwise(run, here):
    size = {"do_resize": True, "size": {"height": 32, "width": 32}, "resample": "bilinear"}
    make_report(image_processor="0" * 16, image_processing=size).save_pretrained("c")
    make_report(image_processor="f" * 16, image_processing={**size, "resample": "bicubic"}).save_pretrained("d")
    lines = printed(run("compare", "c", "d")).splitlines()
    assert lines[3:6] == [
        "Their images were processed otherwise, which alone can move heads:",
        "A: size 32 x 32, resample bilinear",
        "B: size 32 x 32, resample bicubic",
    ]
    assert "- Settings: " in Path("c/README.md").read_text()
    assert "; images processed to size 32 x 32, resample bilinear; " in Path("c/README.md").read_text()
    for second, same in (("d", False), ("c", True), ("a", None)):
        assert json.loads(printed(run("compare", "c", second, "--json")))["same_image_processing"] is same
