"""Contributions on a path that are far from what they should come to."""

import pytest
import torch

from gmar_hf.explanation.completeness import completeness_note


@pytest.mark.parametrize(
    ("contributions", "gap", "told"),
    [
        ([3.0, 2.0], 2.4, None),  # 2.6 should have come out
        ([3.0, 2.0], -4.0, None),
        ([3.0, 2.0], 2.6, ("+5.0", "+2.4")),
        ([3.0, -2.0], -4.0, ("+1.0", "+5.0")),
        ([3.0, -2.0], -0.9, None),
        ([1.0, -2.0], -4.0, ("-1.0", "+3.0")),
        ([2.0, float("nan")], 3.0, ("+2.0", "-1.0")),
    ],
)
def test_the_note_is_for_sums_that_are_half_or_twice_what_they_should_be(contributions, gap, told):
    note = completeness_note(torch.tensor([contributions]), gap)
    assert (note is not None) == (told is not None)
    if told:
        assert f"come to {told[0]} logits, where all attention adds {told[1]}" in note
