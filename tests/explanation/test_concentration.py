"""Rollouts that lie on one or two patches."""

import pytest
import torch

from gmar_hf.explanation.concentration import concentration, concentration_note


def test_what_rises_above_the_median_counts():
    maps = torch.zeros(3, 8, 8)
    maps[0] += 0.25  # flat: nothing rises
    maps[1, 0, :4] = 1  # four patches of 64: two hold half
    maps[2] += 1.0
    maps[2, 3, 3] = 4  # the only one that rises, whatever the floor
    assert concentration(maps).tolist() == [0.0, 0.5, 1.0]


@pytest.mark.parametrize(
    ("shape", "bright", "share"), [((8, 8), 5, "40%"), ((8, 8), 7, None), ((6, 6), 1, "100%"), ((5, 5), 1, None)]
)
def test_the_note_is_for_two_of_many(shape, bright, share):
    attribution = torch.zeros(shape)
    attribution.view(-1)[:bright] = 0.5
    note = concentration_note(attribution)
    assert (note is not None) == (share is not None)
    if share:
        assert f"Two of {attribution.numel()} patches hold {share} of what rises" in note
