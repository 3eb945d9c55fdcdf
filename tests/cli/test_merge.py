"""`gmar-hf merge`: one report of several, what is said of it, and what is refused."""

import json
from pathlib import Path

import pytest
import torch

from gmar_hf import HeadImportanceReport
from gmar_hf.report.page import PAGE_FILE
from tests.helpers.commands import printed, refusal
from tests.helpers.reports import assert_same, dataset, make_means, make_report


def part(*numbers, count=3, seed=0, **changed):
    parts = {"count": count, "numbers": list(numbers), "limit": None, "shuffle_seed": None}
    return make_report(seed=seed, datasets=dataset(parts=parts), **changed)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with the reports "1", "2" and "3" on a third of a data set each."""
    monkeypatch.chdir(tmp_path)
    for number in (1, 2, 3):
        part(number, seed=number).save_pretrained(str(number))
    return tmp_path


def test_what_is_written_and_printed(run, here):
    out = printed(run("merge", "1", "2", "3", "--out", "whole"))
    assert out == "3 reports: 180 images, 180 explanations. The whole is in whole\n"
    whole = HeadImportanceReport.from_pretrained("whole")
    first, *others = (HeadImportanceReport.from_pretrained(str(number)) for number in (1, 2, 3))
    assert_same(whole, first.merge(*others))
    assert "parts" not in whole.settings["datasets"][0]
    assert {"README.md", PAGE_FILE, "contribution.png"} <= {path.name for path in Path("whole").iterdir()}


def test_parts_that_are_missing(run, here):
    code, _, err = run("merge", "3", "1", "--out", "two")
    assert (code, err) == (0, "gmar-hf: of somebody/pictures part 2 of 3 is not among them.\n")
    assert "60 images, of which parts 1, 3 of 3" in Path("two/README.md").read_text(encoding="utf-8")
    assert "(parts 1, 3 of 3)" in Path("two", PAGE_FILE).read_text(encoding="utf-8")
    # What is whole now can be completed later.
    assert run("merge", "two", "2", "--out", "three")[2] == ""
    summary = json.loads(printed(run("merge", "3", "1", "--out", "two", "--force", "--json")))
    assert summary["missing_parts"] == [{"data": "somebody/pictures", "count": 3, "missing": [2]}]
    assert (summary["num_reports"], summary["num_images"], summary["left_out"]) == (2, 120, [])


def test_what_not_all_have_is_left_out_in_words(run, here):
    report = part(2, seed=2)
    HeadImportanceReport(report.moments, report.weight_sample, report.settings, make_means()).save_pretrained("more")
    assert run("merge", "1", "more", "3", "--out", "whole")[2] == (
        "gmar-hf: the whole is without means of the heads' outputs, which not all reports have.\n"
    )


def test_a_finished_report_is_kept(run, here):
    before = Path("3/report.safetensors").read_bytes()
    assert refusal(run("merge", "1", "2", "--out", "3")).startswith(
        "`output_dir` (`--out`) must not hold a finished report; '3' does."
    )
    assert Path("3/report.safetensors").read_bytes() == before
    printed(run("merge", "1", "2", "3", "--out", "3", "--force"))
    assert HeadImportanceReport.from_pretrained("3").num_images == 180


def test_refusals_name_the_report(run, here):
    part(1, seed=1).save_pretrained("again")
    part(3, count=4).save_pretrained("quarter")
    make_report(datasets=dataset()).save_pretrained("all")
    report = part(2, seed=2)
    HeadImportanceReport(report.moments, report.weight_sample + 1, report.settings).save_pretrained("other weights")
    part(2, target="label", counts={"num_wrong": 60, "num_correct": 0}).save_pretrained("labels")
    for name, message in {
        "again": "'again' must be another part of 'somebody/pictures' (split 'validation'); got part 1 of 3 in both",
        "quarter": "'quarter' must be a part of 'somebody/pictures' (split 'validation') that was cut like the others",
        "all": "'all' must be of other images; got 'somebody/pictures' (split 'validation') in both",
        "other weights": "'other weights' must be of the same model; got one with other weights.",
        "labels": "'labels' must have the target 'predicted'; got 'label'.",
        "./none": "A report must be a folder or a repo id; got './none', which is no folder.",
        "1": "'1' must be another part of",
    }.items():
        assert refusal(run("merge", "1", name, "--out", "whole")).startswith(message)
        assert not Path("whole").exists()
    assert refusal(run("merge", "1", "--out", "whole")).startswith("`REPORT...` must name at least two reports")


def test_processors_that_differ(run, here):
    part(1, image_processor="0" * 16).save_pretrained("a")
    part(2, image_processor="f" * 16).save_pretrained("b")
    assert refusal(run("merge", "a", "b", "--out", "whole")).startswith(
        "'b' must be of images processed alike; got another image processor."
    )
    # One that does not say is not refused, and does not make the others forget.
    assert run("merge", "a", "3", "--out", "both")[0] == 0
    assert HeadImportanceReport.from_pretrained("both").settings["image_processor"] == "0" * 16
    assert "'b' must be of images processed alike" in refusal(run("merge", "both", "b", "--out", "whole"))


def test_a_part_of_the_command_line(run, here, monkeypatch):
    """`--part` reaches the survey, and what is no part is refused before a model is loaded."""
    for text in ("3", "a/b", "1/", "-1/2", "1/2/3"):
        assert refusal(run("report", "--demo", "vit", "--part", text, "--out", "x")).startswith(
            f"`--part` must be a number and a count, such as 3/8; got '{text}'."
        )
    run("report", "--demo", "vit", "--limit", 3, "--part", "2/2", "--out", "x")
    report = HeadImportanceReport.from_pretrained("x")
    assert report.num_images == 1
    assert report.settings["datasets"][0]["parts"]["numbers"] == [2]
    assert torch.isfinite(report.mean["l1"]).all()
