"""The rows of metrics: readable without torch, and all of them whole."""

import subprocess
import sys

from gmar_hf import metrics
from gmar_hf.metrics.registry import METRICS


def test_names_are_known_without_torch():
    code = (
        "import sys; from gmar_hf.metrics.registry import METRICS; assert METRICS; "
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_function_that_a_row_calls_is_there():
    called = {
        name for entry in METRICS.values() for name in entry.measure.__code__.co_names if name in metrics.__all__
    }
    assert called == set(METRICS) - {"insertion", "deletion", "insertion_minus_deletion", "energy_on_other"}


def test_the_default_metrics_are_in_the_order_of_the_tables():
    assert [name for name, entry in METRICS.items() if entry.is_default] == [
        "insertion", "deletion", "insertion_minus_deletion", "pointing_game", "energy_pointing_game",
        "pixel_average_precision", "iou", "energy_on_other", "class_sensitivity", "sparseness",
    ]  # fmt: skip
