"""The benchmarks of batches run: on the CPU here, by the same lines on a GPU."""

import importlib
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

import gmar_hf
from gmar_hf.evaluation.maps.legrad import legrad
from gmar_hf.explanation.methods import METHODS

BENCHMARKS = Path(__file__).parents[2] / "examples" / "benchmarks"
SINGLE_PASS = [name for name, method in METHODS.items() if method.num_points is None]
LISTED = [name if name in SINGLE_PASS else f"{name}, with logits and gap" for name in METHODS]
PATHS = [name for name in LISTED if name not in SINGLE_PASS] + ["path, 2 points alone", "path, 4 points alone"]
CANDIDATES = ["floor", "forward", *LISTED, "gmar, L2", *PATHS[2:], "the 6 of one pass, at once"]
IN_LONG_CELLS = [name for name in CANDIDATES if name not in PATHS or name.startswith("recommended")]
OURS = ["gmar", "contribution", "removal", "gradient-rollout", "recommended, with logits and gap"]
NUMBER = r"-?\d+\.\d\d"
SPREAD = rf"{NUMBER} \({NUMBER} to {NUMBER}\)"


@pytest.fixture
def run(monkeypatch):
    """Runs a script with arguments and gives what it prints."""
    monkeypatch.syspath_prepend(BENCHMARKS)

    def run(name, *arguments):
        result = CliRunner().invoke(importlib.import_module(name).app, arguments)
        assert result.exit_code == 0, result.output
        return result.stdout

    return run


def rows_of(section):
    """The cells of a page's tables, without what stands above the first rows."""
    lines = [line for line in section.splitlines() if line.startswith("| ") and "---" not in line]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]


def tiny(monkeypatch):
    """The benchmarks' tiny model, two images, the peers that are written here, and the function that runs one."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    candidates, peers = (importlib.import_module(name) for name in ("candidates", "peers"))
    model = candidates.make_model(64, "tiny")
    return model, candidates.make_images(model, 2), peers


def test_what_is_written_in_place_of_others_is_right(monkeypatch):
    model, pixel_values, peers = tiny(monkeypatch)
    target = torch.tensor([3, 7])
    expected = {
        peers.explicit_gmar: gmar_hf.explain(model, pixel_values, target).attribution,
        peers.gradient_rollout: gmar_hf.explain(model, pixel_values, target, "gradient-rollout").attribution,
        peers.explicit_legrad: legrad(model, pixel_values, target),
    }
    model.set_attn_implementation("eager")
    for draw, maps in expected.items():
        found = draw(model, pixel_values, target)[:, 1:].view_as(maps)
        torch.testing.assert_close(found, maps, atol=0, rtol=1e-4)


def test_cells_of_costs_are_kept(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(BENCHMARKS)
    costs = importlib.import_module("costs")
    cell, measured = costs.Cell("tiny", 32, 1), costs.Costs({"floor": [1.0, 2.0]}, {"floor": 0.5}, "0a1b2c3")
    calls = []
    for _ in range(2):
        found = costs.kept(tmp_path / "cells", cell, lambda: calls.append(1) or measured, threads=2)
        assert found == measured
    assert len(calls) == 1
    with pytest.raises(typer.BadParameter, match="was measured otherwise"):
        costs.kept(tmp_path / "cells", cell, lambda: measured, threads=1)
    assert costs.kept(None, cell, lambda: measured, threads=1) == measured


@pytest.mark.skipif(sys.platform != "linux", reason="reads what Linux tells of a process")
def test_freed_memory_is_kept():
    """What a process holds, in pages, before and after it takes and frees 64 MiB."""
    held = "int(open('/proc/self/statm').read().split()[1])"
    code = f"import timing, torch; timing.keep_freed_memory(); old = {held}; torch.ones(2**24); print({held} - old)"
    done = subprocess.run([sys.executable, "-c", code], cwd=BENCHMARKS, capture_output=True, text=True, check=True)
    assert int(done.stdout) * resource.getpagesize() >= 2**26


@pytest.mark.slow
def test_the_page_of_costs(run):
    page = run("costs", "--sample", "--threads", "1")
    sections = re.split(r"^## ", page, flags=re.MULTILINE)
    titles = [section.splitlines()[0] for section in sections]
    assert titles == [
        "# What explanations cost",
        "In short",
        "TINY/16, 32 px, batch 1",
        "TINY/16, 64 px, batch 1",
        "How costs grow",
        "Beside others",
        "Over data",
    ]
    assert re.search(r"on \d{4}-\d\d-\d\d: \d+ cores of .+\. torch \d.+ with 1 thread, transformers", page)
    methods, *ranges = zip(*rows_of(sections[1])[1:], strict=True)
    assert methods == ("gmar", "contribution", "removal", "recommended, with logits and gap")
    assert all(re.fullmatch(r"-?\d+\.\d to -?\d+\.\d|-", cell) for column in ranges for cell in column)
    for section, names in (
        (sections[2], CANDIDATES),
        (sections[3], IN_LONG_CELLS),
    ):
        head, *rows = rows_of(section)
        assert head == ["", "time, in floors", "in forwards", "memory, MiB", "in floors", "in forwards"]
        assert [row[0] for row in rows] == names
        for row in rows:
            assert all(re.fullmatch(SPREAD, cell) for cell in row[1:3])
            assert all(re.fullmatch(rf"{NUMBER}|\d+|-", cell) for cell in row[3:])
    assert [row[0] for row in rows_of(sections[4])] == ["", *IN_LONG_CELLS]
    assert "\nTINY/16, batch 1, 5, 17 tokens:\n" in sections[4]
    head, *rows = rows_of(sections[5])
    assert head == ["", "time, in floors", "in forwards", "gives"]
    assert [row[0] for row in rows[:7]] == ["floor", "forward", *(f"gmar_hf, {name}" for name in OURS)]
    assert all(row[3] for row in rows[2:])
    others = [row[0] for row in rows[7:]] + re.findall(
        r"^(.+) is left out: `\w+` is not installed\.$", page, re.MULTILINE
    )
    assert len(others) == len(set(others)) == 7
    assert re.search(
        rf"images a second: \d+ with one process of one thread, \d+ with two; {SPREAD} times as", sections[6]
    )


@pytest.mark.slow
def test_the_page_of_a_gpu(run):
    size = ["--models", "tiny", "--image-sizes", "32", "--max-batch-size", "2"]
    out = run("benchmark_gpu", "--device", "cpu", *size, "--rounds", "1")
    assert out.startswith("# What explanations cost on a CPU (no measurement")
    tables = out.split("\n## ")[1:]
    assert [table.splitlines()[0] for table in tables] == [
        "tiny, float32, 32 px",
        "tiny, bfloat16, 32 px",
        "4097 tokens, batches of 8",
    ]
    for table in tables[:2]:
        rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line[:1] == "|"]
        assert rows[0] == ["batch", "1", "2"]
        assert [row[0] for row in rows[2:]] == ["floor, images a second", *CANDIDATES]
        assert all(re.fullmatch(r"\d+\.\d\d, \d+\.\d\d", cell) for row in rows[3:] for cell in row[1:])
    assert len(re.findall(r"^\| tiny, (?:float32|bfloat16)( \| \d+\.\d\d){4} \|$", tables[2], re.MULTILINE)) == 2


@pytest.mark.slow
def test_the_figures_of_large_surveys(run):
    size = ["--model", "tiny", "--image-size", "32", "--batch-size", "2"]
    assert re.fullmatch(r"tiny, float32, cpu: [\d.]+ images a second\n", run("benchmark_scale", "rate", *size))
    folder = str(BENCHMARKS.parent / "photos")
    pattern = r"[\d.]+ images a second and core; files of \d+ KiB\n"
    assert re.fullmatch(pattern, run("benchmark_scale", "reading", folder, "--repeats", "1"))
    assert re.fullmatch(r"report [\d.]+ MiB, checkpoint [\d.]+ MiB\n", run("benchmark_scale", "kept"))
    pattern = r"[\d.]+ s for each of 2 reports; peak of the process [\d.]+ GiB\n"
    assert re.fullmatch(pattern, run("benchmark_scale", "merging", "--count", "2"))
    pattern = r"\d+ bytes a file, of 100 files\n"
    assert re.fullmatch(pattern, run("benchmark_scale", "listing", "--count", "100"))
