"""SaCo: cases by hand and a slow loop written from the paper."""

from __future__ import annotations

import pytest
import torch

from gmar_hf import ArgumentError, metrics
from tests.helpers.metric_peers import TinyClassifier, example, to_pixels
from tests.helpers.sampling import sample_product

QUARTERS = torch.tensor([[[[8.0, 4.0], [2.0, 1.0]]]])  # four patches of a pixel each


def pixel_sum(rows):
    return rows.sum((1, 2, 3))


def slow_saco(score, image, filling, attribution, num_groups):
    """One image's coefficient: groups by rank, each hidden alone, every pair compared."""
    flat = attribution.flatten().tolist()
    order = sorted(range(len(flat)), key=lambda patch: -flat[patch])
    groups = [
        order[group * len(flat) // num_groups : (group + 1) * len(flat) // num_groups] for group in range(num_groups)
    ]
    number = to_pixels(torch.arange(len(flat)).view(1, *attribution.shape))[0]  # of each pixel's patch
    whole = score(image[None]).item()
    salience, change = [], []
    for group in groups:
        hidden = torch.zeros_like(number, dtype=torch.bool)
        for patch in group:
            hidden |= number == patch
        salience.append(sum(flat[patch] for patch in group))
        change.append(whole - score(torch.where(hidden, filling, image)[None]).item())
    agreed = total = 0.0
    for first in range(num_groups):
        for second in range(first + 1, num_groups):
            weight = salience[first] - salience[second]
            agreed += weight if change[first] >= change[second] else -weight
            total += abs(weight)
    return agreed / total


def test_by_hand():
    options = dict(num_groups=4, baseline="zero")
    # Hiding takes 8, 4, 2 and 1. The order of the map is right, reversed, and with one pair exchanged:
    assert metrics.saco(pixel_sum, QUARTERS, QUARTERS[:, 0], **options).tolist() == [1]
    assert metrics.saco(pixel_sum, QUARTERS, -QUARTERS[:, 0], **options).tolist() == [-1]
    # saliences 4, 3, 2, 1 of the patches 4, 8, 2, 1: differences 1 (wrong), 2, 3, 1, 2, 1 of 10 in all.
    exchanged = torch.tensor([[[3.0, 4.0], [2.0, 1.0]]])
    torch.testing.assert_close(metrics.saco(pixel_sum, QUARTERS, exchanged, **options), torch.tensor([0.8]))


def test_groups_of_several_patches():
    # {8, 1} and {4, 2}: salience 4 + 3 and 2 + 1; hiding takes 9 and 6.
    attribution = torch.tensor([[[4.0, 2.0], [1.0, 3.0]]])
    assert metrics.saco(pixel_sum, QUARTERS, attribution, num_groups=2, baseline="zero").tolist() == [1]
    assert metrics.saco(pixel_sum, QUARTERS, -attribution, num_groups=2, baseline="zero").tolist() == [-1]


def test_equal_changes_count_for_the_map():
    found = metrics.saco(lambda rows: torch.zeros(len(rows)), QUARTERS, QUARTERS[:, 0], num_groups=4)
    assert found.tolist() == [1]


def test_a_map_of_one_value_says_nothing():
    assert metrics.saco(pixel_sum, QUARTERS, torch.full((1, 2, 2), 0.3), num_groups=4).tolist() == [0]


def test_the_size_of_the_map_does_not_matter():
    model, (images, attribution) = TinyClassifier(), example()
    large, small = (metrics.saco(model.score([0, 3, 1]), images, scale * attribution) for scale in (1, 1e-6))
    torch.testing.assert_close(small, large)


@pytest.mark.parametrize(("baseline", "num_groups"), sample_product(["mean", "blur"], [2, 5, 7, 10, 15]))
def test_slow_loop(num_groups, baseline):
    model, (images, attribution), target = TinyClassifier(), example(), [0, 3, 1]
    attribution = attribution.round(decimals=1)
    filling = metrics.baseline_pixels(images, baseline)
    for max_rows in (256, 6):
        found = metrics.saco(
            model.score(target), images, attribution, num_groups=num_groups, baseline=baseline, max_rows=max_rows
        )
        assert found.dtype == torch.float32
        for index, wanted in enumerate(target):
            expected = slow_saco(model.score([wanted]), images[index], filling[index], attribution[index], num_groups)
            assert found[index].item() == pytest.approx(expected, abs=1e-6)


def test_hiding_is_by_the_mean_unless_said():
    model, (images, attribution) = TinyClassifier(), example()
    default, mean, zero = (
        metrics.saco(model.score([0, 3, 1]), images, attribution, **options)
        for options in ({}, {"baseline": "mean"}, {"baseline": "zero"})
    )
    assert torch.equal(default, mean)
    assert not torch.equal(default, zero)


@pytest.mark.parametrize("num_groups", [1, 5, 2.5])
def test_groups_that_cannot_be(num_groups):
    span = r"a whole number of 1 or more" if num_groups == 2.5 else r"in \[2, 4\] \(there are 4 patches\)"
    with pytest.raises(ArgumentError, match=rf"`num_groups` must be {span}; got {num_groups}"):
        metrics.saco(pixel_sum, QUARTERS, QUARTERS[:, 0], num_groups=num_groups)
