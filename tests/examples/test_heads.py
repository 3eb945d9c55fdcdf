"""The measurement of head scores: its table on made-up changes, and the whole of it on two scenes."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

BENCHMARKS = Path(__file__).parents[2] / "examples" / "benchmarks"


@pytest.fixture
def heads(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))  # where it finds how photographs are chosen
    spec = importlib.util.spec_from_file_location("heads", BENCHMARKS / "heads.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "heads", module)
    spec.loader.exec_module(module)
    return module


def test_the_table_by_hand(heads):
    change = torch.arange(24.0).reshape(3, 2, 4)
    table = heads.table({"same": change * 3, "opposite": -change}, {"zero": change, "mean": -change}, "overall")
    assert table.splitlines()[2:] == [
        "| same | 1.000 ± 0.000 | -1.000 ± 0.000 | 1.000 | -1.000 |",
        "| opposite | -1.000 ± 0.000 | 1.000 ± 0.000 | -1.000 | 1.000 |",
    ]


def test_on_two_scenes(heads, tmp_path):
    result = CliRunner().invoke(heads.app, ["--demo", "vit", "--num-photos", "2", "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    written = (tmp_path / "heads.md").read_text()
    assert written in result.output
    assert "2 photos of 64 x 64 pixels" in written
    rows = {row.split(" | ")[0]: row.split(" | ")[1:] for row in written.splitlines() if row.startswith("| c")}
    assert float(rows["| contribution"][0].split()[0]) > 0.85
    assert float(rows["| centred, mean of these photos by token"][1].split()[0]) > 0.8
