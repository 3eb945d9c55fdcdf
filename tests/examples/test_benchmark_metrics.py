"""The benchmark of the metrics runs, and both its ways find the same."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

EXAMPLE = Path(__file__).parents[2] / "examples" / "benchmarks" / "benchmark_metrics.py"


@pytest.mark.slow
def test_a_small_run():
    spec = importlib.util.spec_from_file_location(EXAMPLE.stem, EXAMPLE)
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    arguments = ["--batch-size", "2", "--rounds", "1", "--threads", str(torch.get_num_threads())]
    result = CliRunner().invoke(benchmark.app, arguments)
    assert result.exit_code == 0, result.output
    names = re.findall(r"^(.+?)  +\d+\.\d\d s +\d+\.\d\d times as fast$", result.stdout, re.MULTILINE)
    assert names == ["one forward a picture", "insertion and deletion", "their difference"]
