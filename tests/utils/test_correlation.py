"""Correlations of rows, against scipy and by hand."""

import pytest
import torch

from gmar_hf.report.statistics import rank_correlation
from gmar_hf.utils.correlation import average_ranks, pearson, spearman


def rows(ties=False, seed=0):
    """Return two seeded tensors (4, 3, 9)."""
    generator = torch.Generator().manual_seed(seed)
    made = torch.randn(2, 4, 3, 9, generator=generator)
    return tuple((made * 1.5).round() if ties else made)


def test_equal_numbers_share_the_mean_of_their_ranks():
    found = average_ranks(torch.tensor([[3.0, 1.0, 3.0, 3.0, 2.0], [0.0, -0.0, 0.0, 0.0, 0.0]]))
    assert found.tolist() == [[4, 1, 4, 4, 2], [3, 3, 3, 3, 3]]


def test_by_hand():
    # Centred (-1, 0, 1) and (-1, 2, -1): 0. Centred (-1, 0, 1) and (-2, 1, 1): 3 / sqrt(2 * 6).
    one = torch.tensor([1.0, 2.0, 3.0])
    found = pearson(one.expand(2, 3), torch.tensor([[0.0, 3.0, 0.0], [0.0, 3.0, 3.0]]))
    torch.testing.assert_close(found, torch.tensor([0, 3 / 12**0.5]).double())


@pytest.mark.parametrize("ties", [False, True])
def test_scipy(ties):
    stats = pytest.importorskip("scipy.stats")
    one, other = rows(ties)
    for index in torch.cartesian_prod(torch.arange(4), torch.arange(3)).tolist():
        first, second = one[tuple(index)], other[tuple(index)]
        assert pearson(one, other)[tuple(index)].item() == pytest.approx(stats.pearsonr(first, second).statistic)
        assert spearman(one, other)[tuple(index)].item() == pytest.approx(stats.spearmanr(first, second).statistic)


@pytest.mark.parametrize("ties", [False, True])
def test_the_reports_rank_correlation(ties):
    one, other = rows(ties)
    for first, second, found in zip(one, other, spearman(one.flatten(1), other.flatten(1)), strict=True):
        assert found.item() == pytest.approx(rank_correlation(first, second))


@pytest.mark.parametrize("correlation", [pearson, spearman])
@pytest.mark.parametrize("constant", [0.0, 0.1, 1e30])
def test_constant_rows_have_none(correlation, constant):
    # 0.1 is the mean of nine 0.1 only up to rounding.
    one = rows()[0].double()
    other = one.clone()
    other[1, 2] = constant
    for found in (correlation(one, other), correlation(other, one)):
        assert found.isnan().nonzero().tolist() == [[1, 2]]
        assert (found[~found.isnan()] <= 1).all()


def test_ranks_forget_the_scale():
    one, other = rows()
    torch.testing.assert_close(spearman(one.exp(), other * 1e-30), spearman(one, other))
    torch.testing.assert_close(spearman(one, -other), -spearman(one, other))
