"""Correlations of rows, against scipy and by hand."""

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


@pytest.mark.parametrize("ties", [False, True])
def test_scipy(ties):
    stats = pytest.importorskip("scipy.stats")
    pairs = rows(ties)
    for correlation, expected in ((pearson, stats.pearsonr), (spearman, stats.spearmanr)):
        values = correlation(*pairs).flatten().tolist()
        for value, first, second in zip(values, *(rows.flatten(0, 1) for rows in pairs), strict=True):
            assert value == pytest.approx(expected(first, second).statistic)


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
