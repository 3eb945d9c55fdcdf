"""Two statistics side by side, by hand."""

import dataclasses
import json
import math

import pytest
import torch

from gmar_hf.errors import ArgumentError
from gmar_hf.report.comparison import compare_statistics, difference_in_errors
from gmar_hf.report.statistics import KEYS, HeadStatistics


def statistics(mean, error=0.1, count=36):
    mean = torch.tensor(mean, dtype=torch.float64)
    error = torch.full_like(mean, error) if isinstance(error, float) else torch.tensor(error, dtype=torch.float64)
    by_key = [{key: values.clone() for key in KEYS} for values in (mean, error * count**0.5, error)]
    return HeadStatistics(count, *by_key)


def test_the_heads_that_moved_most():
    # Ranks 1 2 3 / 4 5 6 become 6 1 2 / 3 4.5 4.5; three means are the same.
    before = statistics([[6.0, 5.0, 4.0], [3.0, 2.0, 1.0]], error=0.3)
    after = statistics([[0.5, 9.0, 4.0], [3.0, 2.0, 2.0]], error=0.4)
    comparison = compare_statistics(before, after)
    keys = ("layer", "head", "rank_before", "rank_after")
    assert [tuple(entry[key] for key in keys) for entry in comparison.moved] == [
        (0, 0, 1.0, 6.0), (0, 1, 2.0, 1.0), (1, 2, 6.0, 4.5),
    ]  # fmt: skip
    first = comparison.moved[0]
    assert first["score"] == "contribution_abs"
    assert (first["mean_before"], first["mean_after"]) == (6.0, 0.5)
    assert first["z"] == pytest.approx(-5.5 / 0.5)  # errors of 0.3 and 0.4 make one of 0.5
    assert [head["z"] for head in comparison.moved] == pytest.approx([-11.0, 8.0, 2.0])
    assert (comparison.num_heads, comparison.num_changed) == (6, 2)  # six heads by chance: 2.64
    assert list(comparison.rank_correlation) == list(KEYS)
    json.dumps(dataclasses.asdict(comparison), allow_nan=False)


def test_nothing_has_moved():
    comparison = compare_statistics(statistics([[1.0, 2.0]]), statistics([[1.0, 2.0]], error=0.3))
    assert (comparison.moved, comparison.num_changed) == ([], 0)
    assert set(comparison.rank_correlation.values()) == {1.0}


def test_changes_of_unknown_error_are_listed_last():
    before = statistics([[1.0, 2.0, 3.0, 4.0]], error=[[0.1, 0.1, math.inf, math.inf]])
    after = statistics([[1.1, 2.0, 9.0, 1.0]], error=[[0.1, 0.1, math.inf, math.inf]])
    comparison = compare_statistics(before, after)
    assert [head["head"] for head in comparison.moved] == [0, 3, 2]  # ranks 4 2 1 3 were 4 3 2 1
    assert comparison.num_changed == 0


def test_how_many_heads_changed_by_more_than_chance():
    """Against torch's quantile of the normal distribution: 144 heads, 5 % for all together."""
    bound = torch.special.ndtri(torch.tensor(1 - 0.025 / 144, dtype=torch.float64)).item()
    before, after = torch.zeros(12, 12), torch.zeros(12, 12)
    after[0, :3] = torch.tensor([bound - 0.01, bound + 0.01, -bound - 0.01])
    found = compare_statistics(statistics(before.tolist(), error=0.6), statistics(after.tolist(), error=0.8))
    assert (found.num_heads, found.num_changed, found.bound) == (144, 2, pytest.approx(bound))


def test_few_explanations_cannot_tell_changes_from_chance():
    few, many = statistics([[1.0, 2.0]], count=29), statistics([[5.0, 2.0]])
    for pair in ((few, many), (many, few)):
        comparison = compare_statistics(*pair)
        assert (comparison.bound, comparison.num_changed) == (None, None)
        assert len(comparison.moved) == 1
    nothing = statistics([[math.nan, math.nan]], count=0)
    assert compare_statistics(nothing, nothing).moved == []


def test_at_most_ten():
    values = torch.arange(30.0).reshape(5, 6)
    assert len(compare_statistics(statistics(values.tolist()), statistics((-values).tolist())).moved) == 10


def test_difference_in_errors_where_there_is_no_error():
    before = statistics([[1.0, 1.0, 1.0, 1.0]], error=[[0.0, 0.0, math.inf, 0.1]])
    after = statistics([[1.0, 3.0, 3.0, 1.0]], error=[[0.0, 0.0, 0.1, math.inf]])
    assert difference_in_errors(before, after, "l1").tolist() == [[0, math.inf, 0, 0]]


def test_another_architecture():
    with pytest.raises(ArgumentError) as caught:
        compare_statistics(statistics([[1.0, 2.0]]), statistics([[1.0], [2.0]]))
    assert str(caught.value) == (
        "`other` must be of 1 layers of 2 heads; got 2 of 1. Compare reports of one architecture."
    )
