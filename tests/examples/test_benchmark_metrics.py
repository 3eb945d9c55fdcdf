"""The benchmarks of metrics and of evaluations run, and both ways of the one find the same."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

BENCHMARKS = Path(__file__).parents[2] / "examples" / "benchmarks"


def run(name, *options):
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    result = CliRunner().invoke(benchmark.app, [*options, "--rounds=1", f"--threads={torch.get_num_threads()}"])
    assert result.exit_code == 0, result.output
    return result


@pytest.mark.slow
def test_metrics():
    result = run("benchmark_metrics", "--batch-size=2")
    names = re.findall(r"^(.+?)  +\d+\.\d\d s +\d+\.\d\d times as fast$", result.stdout, re.MULTILINE)
    assert names == ["one forward a picture", "insertion and deletion", "their difference"]


@pytest.mark.slow
def test_an_evaluation_makes_the_forwards_that_are_counted(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    result = run("benchmark_evaluate", "--model=tiny", "--image-size=32", "--num-images=3", "--num-steps=1")
    # 1 for the class; 4, 2, 2, 2, 2 and 1 for the maps; two ends for each of six maps and three fillings.
    assert re.search(r"3 images, 6 maps, 3 fillings: [\d.]+ s for 150 forwards of ", result.stdout)
