"""The rows of metrics: readable without torch, and all of them whole."""

import subprocess
import sys

import torch

from gmar_hf import metrics
from gmar_hf.metrics.registry import METRICS
from tests.helpers.subjects import subject_of


def test_names_are_known_without_torch():
    code = (
        "import sys; from gmar_hf.metrics.registry import METRICS; assert METRICS; "
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_row_calls_the_function_of_its_name():
    for name, entry in METRICS.items():
        if name in metrics.__all__ and entry.needs != "curves":
            assert name in entry.measure.__code__.co_names


def test_a_row_measures_its_subject():
    """Two patches of one pixel, 3 and 1; the class's logit is their sum, beside one of 0. The map is right."""
    images = torch.tensor([[[[3.0, 1.0]]]])
    on = subject_of(lambda pixels: torch.stack([pixels.sum(dim=(1, 2, 3)), torch.zeros(len(pixels))], 1), images, [0])
    assert on.logit(images).tolist() == [4.0]
    assert on.predict(images).tolist() == [0]
    maps = torch.tensor([[[2.0, 1.0]]])
    curve = metrics.insertion(on.score, images, maps, num_steps=2, baseline="zero", **on.ways)
    # Nothing, the first patch, then both show: the sigmoids of 0, 3 and 4, and the area under them.
    nothing, first, both = torch.tensor([0.0, 3.0, 4.0]).sigmoid()
    area = METRICS["insertion"].measure(on, maps, (curve, curve))
    torch.testing.assert_close(area, (nothing / 4 + first / 2 + both / 4)[None])


def test_the_difference_of_areas_of_the_logit():
    """As above: 0, 3, 4 while patches appear, 4, 1, 0 while they go: 2.5 less 1.5."""
    images = torch.tensor([[[[3.0, 1.0]]]])
    on = subject_of(
        lambda pixels: torch.stack([pixels.sum(dim=(1, 2, 3)), torch.zeros(len(pixels))], 1), images, [0], num_steps=2
    )
    entry = METRICS["insertion_minus_deletion_logit"]
    found = entry.measure(on, torch.tensor([[[2.0, 1.0]]]), on.fillings["zero"])
    torch.testing.assert_close(found, torch.tensor([1.0]))


def test_directions_order_and_defaults_stay():
    """As the papers and the tables have them: one list here, one in the package. New ones need no line here."""
    rows = {
        "insertion": (True, "default"), "deletion": (False, "default"), "insertion_minus_deletion": (True, "default"),
        "positive_perturbation": (False, ""), "negative_perturbation": (True, ""), "saco": (True, ""),
        "pointing_game": (True, "default"), "energy_pointing_game": (True, "default"),
        "pixel_average_precision": (True, "default"), "iou": (True, "default"), "energy_on_other": (False, "default"),
        "average_drop": (False, ""), "average_increase": (True, ""), "average_gain": (True, ""),
        "class_sensitivity": (None, "default"), "sparseness": (None, "default"),
    }  # fmt: skip
    assert [name for name in METRICS if name in rows] == list(rows)
    for name, (direction, default) in rows.items():
        assert metrics.HIGHER_IS_BETTER[name] is METRICS[name].higher_is_better is direction, name
        assert METRICS[name].is_default is (default == "default"), name
    # A random map has the lowest correlation, and one of the middle alone no sensitivity: low is no merit by itself.
    assert METRICS["max_sensitivity"].higher_is_better is None
    assert (metrics.HIGHER_IS_BETTER["head_ablation"], metrics.HIGHER_IS_BETTER["randomization_check"]) == (
        True,
        False,
    )
