"""The benchmarks of batches run: on the CPU here, by the same lines on a GPU."""

import importlib
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

BENCHMARKS = Path(__file__).parents[2] / "examples" / "benchmarks"
METHODS = [
    "floor",
    "forward",
    "gmar, L1, map",
    "gmar, L2, map",
    "contribution, map",
    "removal, map",
    "path, two points, map",
    "recommended, with logits and gap",
    "gradient-rollout",
    "gmar, contribution, removal, both rollouts at once",
    "rollout",
]


@pytest.fixture
def run(monkeypatch):
    """Runs a script with arguments and gives what it prints."""
    monkeypatch.syspath_prepend(BENCHMARKS)

    def run(name, *arguments):
        result = CliRunner().invoke(importlib.import_module(name).app, arguments)
        assert result.exit_code == 0, result.output
        return result.stdout

    return run


def test_memory(run):
    out = run(
        "benchmark", "memory", "--model", "tiny", "--image-size", "32", "--batch-size", "2", "--dtype", "bfloat16"
    )
    number = r"\d+\.\d\d"
    pattern = (
        rf"tiny, bfloat16, cpu: 2 x 32 px, 5 tokens, gmar: peak {number} GiB \({number} GiB before explaining\)\n"
    )
    assert re.fullmatch(pattern, out)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_cost(run, dtype):
    size = ["--model", "tiny", "--image-size", "32", "--batch-size", "2", "--threads", "1"]
    out = run("benchmark", *size, "--rounds", "1", "--dtype", dtype)
    beside_floor, beside_forward, loop = out.split("\n\n")
    name = re.compile(r"^(.+?) +\d+\.\d{3} s +\d+\.\d{3} x (?:floor|forward)$", re.MULTILINE)
    assert name.findall(beside_floor) == METHODS
    assert name.findall(beside_forward) == METHODS[1:]
    assert name.findall(loop) == ["floor", "explicit"]


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
        assert [row[0] for row in rows[2:]] == ["floor, images a second", *METHODS]
        assert all(re.fullmatch(r"\d+\.\d\d, \d+\.\d\d", cell) for row in rows[3:] for cell in row[1:])
    assert len(re.findall(r"^\| tiny, (?:float32|bfloat16)( \| \d+\.\d\d){4} \|$", tables[2], re.MULTILINE)) == 2
