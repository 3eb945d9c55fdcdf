"""No command replaces a file that it has not made: before any work it is refused in a sentence."""

import os
from pathlib import Path

import pytest
from safetensors.torch import save_file
from torch import zeros

from tests.helpers.commands import refusal
from tests.helpers.reports import make_report

REPORT = ("config.json", "contribution.png", "report.safetensors", "index.html")
RUNS = {
    ("report", "--demo", "vit", "--limit", "2", "--force"): REPORT,
    ("merge", "1", "2", "--force"): REPORT,
    ("evaluate", "--demo", "vit", "--limit", "2", "--force"): (
        "index.html", "results.json", "results.csv", "images.csv", "rows.safetensors",
    ),
    ("demo",): ("contact-sheet.png", "head-maps.png", "demo.json", "scene2-Bag-gmar.png"),
}  # fmt: skip


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("out").mkdir()
    return tmp_path


@pytest.mark.parametrize(("command", "name"), [(command, name) for command, names in RUNS.items() for name in names])
def test_a_file_that_is_not_ours(run, here, command, name):
    Path("out", name).write_bytes(b"mine")
    assert f"'out' holds {name}, which this version of gmar_hf has not written" in refusal(run(*command, "-o", "out"))
    assert Path("out", name).read_bytes() == b"mine"
    assert os.listdir("out") == [name]


def test_a_report_in_the_folder_of_an_evaluation(run, here):
    make_report().write_page("out/index.html")
    assert "'out' holds index.html, which is of other results" in refusal(
        run("evaluate", "--demo", "vit", "--limit", 2, "-o", "out")
    )


@pytest.mark.slow
def test_checkpoints_of_others(run, here):
    """A training's folder has one of that name, too."""
    asked = ("report", "--demo", "vit", "--limit", 2, "-o", "out")
    Path("out/checkpoints/step-1").mkdir(parents=True)
    save_file({"x": zeros(1)}, "out/checkpoints/model.safetensors")
    save_file({"x": zeros(1)}, "out/checkpoints/rank-00000.safetensors")
    for options in ((), ("--no-resume",)):
        assert "rank-00000.safetensors" in refusal(run(*asked, *options))
    os.rename("out/checkpoints/rank-00000.safetensors", "out/checkpoints/other.safetensors")
    Path("out/.report-original").mkdir()  # which is not what a killed process has left
    assert run(*asked)[0] == 0
    assert sorted(os.listdir("out/checkpoints")) == ["model.safetensors", "other.safetensors", "step-1"]
    assert Path("out/.report-original").exists()
    # One that nobody can read is no loss, and in the way.
    Path("out/checkpoints/rank-00000.safetensors").write_bytes(b"half")
    assert "rank-00000.safetensors" in refusal(run(*asked, "--force"))
    assert run(*asked, "--force", "--no-resume")[0] == 0
