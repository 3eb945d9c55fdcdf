"""Correlations of rows, against NumPy, a slow count and by hand."""

import numpy as np
import pytest
import torch

from gmar_hf.utils.correlation import average_ranks, pearson, spearman


def rows(ties=False, seed=0):
    """Return two seeded tensors (4, 3, 9)."""
    generator = torch.Generator().manual_seed(seed)
    made = torch.randn(2, 4, 3, 9, generator=generator)
    return tuple((made * 1.5).round() if ties else made)


def test_equal_numbers_share_the_mean_of_their_ranks():
    ranks = average_ranks(torch.tensor([[3.0, 1.0, 3.0, 3.0, 2.0], [0.0, -0.0, 0.0, 0.0, 0.0]]))
    assert ranks.tolist() == [[4, 1, 4, 4, 2], [3, 3, 3, 3, 3]]


def test_by_hand():
    # Centred (-1, 0, 1) and (-1, 2, -1): 0. Centred (-1, 0, 1) and (-2, 1, 1): 3 / sqrt(2 * 6).
    row = torch.tensor([1.0, 2.0, 3.0])
    correlations = pearson(row.expand(2, 3), torch.tensor([[0.0, 3.0, 0.0], [0.0, 3.0, 3.0]]))
    torch.testing.assert_close(correlations, torch.tensor([0, 3 / 12**0.5]).double())


def slow_ranks(values):
    """One more than the number of larger ones, and half of those that are equal beside itself."""
    return [
        1 + sum(rival > value for rival in values) + (sum(rival == value for rival in values) - 1) / 2
        for value in values
    ]


def slow_correlation(first, second):
    """Spearman's correlation of two arrays."""
    return np.corrcoef(*(slow_ranks(np.ravel(values).tolist()) for values in (first, second)))[0, 1]


@pytest.mark.parametrize("ties", [False, True])
def test_against_numpy_and_a_slow_count(ties):
    first, second = rows(ties)
    for place in np.ndindex(4, 3):
        row, partner = first[place].numpy(), second[place].numpy()
        assert pearson(first, second)[place].item() == pytest.approx(np.corrcoef(row, partner)[0, 1])
        assert spearman(first, second)[place].item() == pytest.approx(slow_correlation(row, partner))


@pytest.mark.parametrize("correlation", [pearson, spearman])
@pytest.mark.parametrize("constant", [0.0, 0.1, 1e30])
def test_constant_rows_have_none(correlation, constant):
    # 0.1 is the mean of nine 0.1 only up to rounding.
    first = rows()[0].double()
    second = first.clone()
    second[1, 2] = constant
    for values in (correlation(first, second), correlation(second, first)):
        assert values.isnan().nonzero().tolist() == [[1, 2]]
        assert (values[~values.isnan()] <= 1).all()


def test_ranks_forget_the_scale():
    first, second = rows()
    torch.testing.assert_close(spearman(first.exp(), second * 1e-30), spearman(first, second))
    torch.testing.assert_close(spearman(first, -second), -spearman(first, second))
