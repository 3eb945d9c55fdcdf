"""Statistics and rankings by hand, and against NumPy on all explanations at once."""

import math

import numpy as np
import pytest
import torch

from gmar_hf.errors import ArgumentError
from gmar_hf.report.statistics import (
    KEYS,
    OUTCOMES,
    class_counts,
    class_groups,
    outcome_groups,
    rank_correlation,
    strongest_heads,
    summarize,
)
from gmar_hf.utils.text import quoted
from tests.helpers.reports import explanations, make_moments, moments_of


def assert_statistics(statistics, values):
    """Of these values (explanations, 6, layers, heads), by NumPy."""
    values = values.double().numpy()
    assert statistics.num_explanations == len(values)
    for place, key in enumerate(KEYS):
        std = values[:, place].std(0)
        for actual, wanted in (
            (statistics.mean, values[:, place].mean(0)),
            (statistics.std, std),
            (
                statistics.standard_error,
                std / math.sqrt(len(values)) if len(values) > 1 else np.full_like(std, np.inf),
            ),
        ):
            assert actual[key].dtype == torch.float64
            np.testing.assert_allclose(actual[key].numpy(), wanted, rtol=1e-12, atol=1e-15)


def test_all_classes_and_outcomes_against_numpy():
    values, groups = explanations(num_classes=4, num_explanations=300, seed=1)
    moments = make_moments(num_classes=4, num_explanations=300, seed=1)
    classes, outcomes = groups // 3, groups % 3
    assert_statistics(summarize(moments), values)
    for index in range(3):  # the last has none
        assert_statistics(summarize(moments, class_groups(index)), values[classes == index])
        assert class_counts(moments)[index] == (classes == index).sum()
    for place, outcome in enumerate(OUTCOMES):
        assert_statistics(summarize(moments, outcome_groups(12, outcome)), values[outcomes == place])


def test_one_and_no_explanation():
    moments = moments_of(torch.full((1, 6, 1, 2), 0.5), [1])
    single = summarize(moments)
    assert single.num_explanations == 1
    assert single.mean["l2"].tolist() == [[0.5, 0.5]]
    assert single.std["l2"].tolist() == [[0, 0]]
    assert single.standard_error["l2"].tolist() == [[math.inf, math.inf]]  # one explanation says nothing of a spread
    none = summarize(moments, torch.tensor([0, 2]))
    assert none.num_explanations == 0
    for numbers in (none.mean, none.std, none.standard_error):
        assert list(numbers) == list(KEYS)
        assert all(value.shape == (1, 2) and value.isnan().all() for value in numbers.values())
    assert repr(none) == "HeadStatistics(0 explanations, 1 layers of 2 heads)"


def means(values):
    return {key: torch.tensor(values, dtype=torch.float64) for key in KEYS}


def test_strongest_heads_by_hand():
    mean = means([[0.5, -2.0, 0.5], [3.0, 0.0, 0.25]])
    heads = strongest_heads(mean, 4, "contribution")
    assert heads == [(1, 0, 3.0), (0, 0, 0.5), (0, 2, 0.5), (1, 2, 0.25)]  # signed: by value; equal ones by place
    assert [tuple(map(type, entry)) for entry in heads] == [(int, int, float)] * 4
    assert strongest_heads(mean, 0, "l1") == []
    assert len(strongest_heads(mean, np.int64(6), "l1")) == 6
    many = strongest_heads(means([[0.0, 1.0] * 20] * 50), 2000, "l1")
    assert [entry[:2] for entry in many] == [divmod(place, 40) for first in (1, 0) for place in range(first, 2000, 2)]


@pytest.mark.parametrize(
    ("k", "score", "message"),
    [
        *((k, "l1", f"`k` must be a whole number in [0, 6]; got {k!r}.") for k in (-1, 7, 2.0, True, None, "3")),
        (1, "gradient", f"`score` must be one of {quoted(KEYS)}; got 'gradient'."),
    ],
)
def test_strongest_heads_refuses(k, score, message):
    with pytest.raises(ArgumentError) as caught:
        strongest_heads(means([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), k, score)
    assert str(caught.value) == message


def test_rank_correlation_by_hand():
    scores = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert rank_correlation(scores, scores.exp()) == 1.0
    assert rank_correlation(scores, -scores) == -1.0
    # Ranks 4, 3, 2, 1 and 3, 4, 1, 2: without ties it is 1 - 6 * sum(d^2) / (n (n^2 - 1)) = 1 - 6 * 4 / 60
    assert rank_correlation(scores, torch.tensor([[2.0, 1.0], [9.0, 5.0]])) == pytest.approx(0.6, abs=1e-15)
    assert math.isnan(rank_correlation(scores, torch.ones(2, 2)))
