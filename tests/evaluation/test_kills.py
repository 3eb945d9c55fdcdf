"""Evaluations killed at any moment and gone on with: the results must be those of an undisturbed one, bit for bit."""

import csv
import json

import pytest

from gmar_hf.evaluation import Evaluation
from tests.helpers.kills import EVALUATION, MOMENTS, kill_often
from tests.helpers.survey_processes import Forks, prepare_forks

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

# A map of each kind: of the gradient, of one forward, drawn by chance, and made of several passes.
MAPS = "contribution,rollout,random,path"
ARGUMENTS = [
    "--demo", "vit", "--limit", 7, "--batch-size", 2, "--methods", MAPS, "--num-steps", 2, "--out", "out",
    "--metrics", "insertion_minus_deletion,pointing_game,class_sensitivity", "--baselines", "blur,other",
]  # fmt: skip
FILES = ["images.csv", "index.html", "results.csv", "results.json", "rows.safetensors"]
PASSING = ("date", "num_processes", "milliseconds")  # what is no other run's


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """What an evaluation leaves that nothing happens to."""
    prepare_forks(tmp_path_factory.mktemp("home"))
    folder = tmp_path_factory.mktemp("undisturbed")
    with Forks(ARGUMENTS, [folder], command="evaluate") as evaluation:
        assert evaluation.finish() == [0], evaluation.errors
    return results(folder)


def results(folder):
    """All that stands in a folder of results, less what no two runs have in common."""
    out = folder / "out"
    assert sorted(path.name for path in out.iterdir()) == FILES
    loaded = Evaluation.load(out)
    with (out / "results.csv").open(encoding="utf-8-sig", newline="") as file:
        table = list(csv.DictReader(file))
    return {
        "figures of images": (out / "images.csv").read_bytes(),
        "values": loaded.values.tobytes(),
        "curves": {name: curve.tobytes() for name, curve in loaded.curves.items()},
        "rows": loaded.rows,
        "metrics": loaded.metrics,
        "methods": lasting(loaded.methods),
        "settings": lasting(loaded.settings),
        "results": lasting(json.loads((out / "results.json").read_text())),
        "table": lasting(table),
    }


def lasting(value):
    """JSON values without entries that differ from run to run."""
    if isinstance(value, dict):
        return {name: lasting(entry) for name, entry in value.items() if name not in PASSING}
    return [lasting(entry) for entry in value] if isinstance(value, list) else value


def check_results(undisturbed):
    def check(folder, used):
        for name, value in results(folder).items():
            assert value == undisturbed[name], name

    return check


@pytest.mark.slow
@pytest.mark.campaign
def test_a_few_kills(undisturbed, tmp_path):
    check = check_results(undisturbed)
    met = kill_often(tmp_path, EVALUATION, ARGUMENTS, check, seed=1, num_kills=2, numbers=[1, 2])
    assert met["kills"] == 2


@pytest.mark.campaign
def test_many_kills(undisturbed, tmp_path, record_property):
    check = check_results(undisturbed)
    met = kill_often(tmp_path, EVALUATION, ARGUMENTS, check, seed=0, num_kills=50, numbers=[1, 1, 2])
    record_property("met", dict(met))
    assert all(met[name] for name in MOMENTS)
