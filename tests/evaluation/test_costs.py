"""What an evaluation will cost: against what a model was really asked."""

import pytest
import torch

from gmar_hf.evaluation import MapMethod, Metric
from gmar_hf.evaluation.costs import count_forwards, describe_cost
from gmar_hf.evaluation.metric_columns import measure
from gmar_hf.metrics.registry import METRICS
from tests.helpers.subjects import subject_of

IMAGES = torch.linspace(0, 1, 3 * 16).view(3, 1, 4, 4)


def columns_of(*names, baselines=("zero",)):
    return [
        Metric(f"{name}_{baseline}", name, baseline if METRICS[name].hides_patches else None, None)
        for name in names
        for baseline in (baselines if METRICS[name].hides_patches else baselines[:1])
    ]


def count_asked(columns, num_steps):
    """Measure three maps of 16 patches, and return how many images each took the model."""
    asked = []

    def logits(pixels):
        asked.append(len(pixels))
        total = pixels.sum(dim=(1, 2, 3))
        return torch.stack([total, -total], dim=1)

    everywhere = torch.ones(3, 4, 4, dtype=torch.bool)
    fillings = {name: torch.full_like(IMAGES, value) for name, value in (("zero", 0.0), ("blur", 0.5))}
    subject = subject_of(
        logits,
        IMAGES,
        [0, 1, 0],
        fillings=fillings,
        masks=everywhere,
        other_masks=everywhere,
        num_steps=num_steps,
        cell=torch.tensor([0, 1, 3]),
    )
    maps = torch.stack([torch.randn(4, 4, generator=torch.Generator().manual_seed(seed)) for seed in range(3)])
    drawn = []
    measure(subject, maps, -maps, columns, lambda pixels: drawn.append(pixels) or maps)
    assert len(drawn) == sum(METRICS[column.function].num_maps for column in columns)
    return sum(asked) / 3


@pytest.mark.parametrize("num_steps", [4, 32])  # fewer than patches, and more
@pytest.mark.parametrize("name", list(METRICS))
def test_a_metric_costs_what_its_row_says(name, num_steps):
    columns = columns_of(name)
    assert count_forwards(columns, num_steps, 16) == count_asked(columns, num_steps)


def test_curves_are_made_once_for_each_filling():
    names = ("insertion", "deletion", "insertion_minus_deletion", "saco", "sparseness")
    columns = columns_of(*names, baselines=("zero", "blur"))
    assert count_forwards(columns, 4, 16) == 2 * (8 + 11) == count_asked(columns, 4)


def test_it_is_said_in_words():
    """Two maps of 2 and of 17 forwards, twice as the classes are compared; 32 for the curves of each."""
    methods = [
        MapMethod("a", print, cost=2), MapMethod("b", print, cost=lambda patches: patches + 1),
        MapMethod("mine\x1b", print),
    ]  # fmt: skip
    columns = columns_of("insertion", "class_sensitivity")
    settings = dict(num_steps=16, num_patches=16, num_images=100)
    assert describe_cost(methods[:2], columns, **settings, explains_labels=False) == (
        "An explained class of an image costs about 102 forwards of the model: 38 for 2 maps and 64 for 2 figures of "
        "each; about 10,200 for 100 images, for one class each."
    )
    noisy = columns_of("max_sensitivity")  # eleven maps each
    assert "costs about 209 forwards of the model: 209 for 2 maps and 0 for 1 figure of each; " in describe_cost(
        methods[:2], noisy, **settings, explains_labels=False
    )
    assert describe_cost(methods, columns[:1], **settings, explains_labels=True) == (
        "An explained class of an image costs about 115 forwards of the model: 19 for 3 maps and 96 for 1 figure of "
        "each; about 11,500 for 100 images, for each label. What mine\\x1b costs is not known, and comes on top."
    )
