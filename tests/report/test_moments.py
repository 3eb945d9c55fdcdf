"""Running moments against NumPy on all values at once, and by hand."""

import numpy as np
import pytest
import torch

from gmar_hf.errors import ArgumentError
from gmar_hf.report.moments import Moments
from tests.helpers.sampling import sample


def expected(values, groups, num_groups):
    """Count, mean and squared deviations of each group, with NumPy's extended precision where it has any."""
    values = np.asarray(values, dtype=np.longdouble)
    mean, squares = (np.zeros((num_groups, *values.shape[1:]), dtype=np.longdouble) for _ in range(2))
    count = np.zeros(num_groups, dtype=int)
    for group in range(num_groups):
        members = values[groups == group]
        count[group] = len(members)
        if len(members):
            mean[group] = members.mean(0)
            squares[group] = ((members - members.mean(0)) ** 2).sum(0)
    return count, mean, squares


def assert_moments(moments, count, mean, squares, tolerance=1e-12):
    assert moments.count.dtype == torch.int64
    assert moments.mean.dtype == moments.squares.dtype == torch.float64
    np.testing.assert_array_equal(moments.count.numpy(), count)
    for actual, wanted in ((moments.mean, mean), (moments.squares, squares)):
        np.testing.assert_allclose(actual.numpy(), np.asarray(wanted, dtype=float), rtol=tolerance, atol=0)


def survey(values, groups, num_groups, batch_size):
    moments = Moments.empty(num_groups, tuple(values.shape[1:]))
    for batch in zip(values.split(batch_size), groups.split(batch_size), strict=True):
        moments.add(*batch)
    return moments


class TestByHand:
    def test_one_batch(self):
        moments = Moments.empty(4, (2,))
        values = torch.tensor([[1.0, 10.0], [5.0, 0.0], [3.0, 40.0], [8.0, 10.0]])
        moments.add(values, torch.tensor([2, 0, 2, 2]))
        # Group 2: 1, 3, 8 have mean 4 and deviations -3, -1, 4; 10, 40, 10 have mean 20 and -10, 20, -10.
        assert moments.count.tolist() == [1, 0, 3, 0]
        assert moments.mean.tolist() == [[5, 0], [0, 0], [4, 20], [0, 0]]
        assert moments.squares.tolist() == [[0, 0], [0, 0], [26, 600], [0, 0]]

    def test_two_batches_merge_and_pool(self):
        first, second = Moments.empty(2, ()), Moments.empty(2, ())
        first.add(torch.tensor([1.0, 3.0]), torch.tensor([0, 0]))
        second.add(torch.tensor([5.0, 7.0, -2.0]), torch.tensor([0, 0, 1]))
        merged = first.merge(second)
        # 1, 3, 5, 7: mean 4, squares 9 + 1 + 1 + 9
        assert merged.count.tolist() == [4, 1]
        assert merged.mean.tolist() == [4, -2]
        assert merged.squares.tolist() == [20, 0]
        # with -2: mean 2.8, squares (1.8^2 + 0.2^2 + 2.2^2 + 4.2^2 + 4.8^2) = 48.8
        pooled = merged.pool(torch.tensor([True, True]))
        assert_moments(pooled, [5], [2.8], [48.8])
        assert first.count.tolist() == [2, 0]  # neither has changed
        assert second.mean.tolist() == [6, -2]

    def test_nothing(self):
        moments = Moments.empty(3, (2, 2))
        moments.add(torch.zeros(0, 2, 2), torch.zeros(0, dtype=torch.int64))
        assert moments.count.tolist() == [0, 0, 0]
        assert not moments.merge(moments).mean.any()
        pooled = moments.pool(torch.tensor([0, 2]))
        assert pooled.count.tolist() == [0]
        assert pooled.mean.shape == (1, 2, 2)
        assert repr(moments) == "Moments(3 groups, values of shape (2, 2), 0 so far)"

    def test_equal_values_have_no_spread_at_all(self):
        moments = Moments.empty(2, (3,))
        value = torch.tensor([1 / 3, 1e-300, -7.7e12], dtype=torch.float64)
        for rows in (7, 1, 100):
            moments.add(value.expand(2 * rows, 3), torch.arange(2 * rows) % 2)
        assert torch.equal(moments.mean, value.expand(2, 3))
        assert not moments.squares.any()
        assert not moments.pool(torch.tensor([0, 1])).squares.any()


MEANS_AND_SPREADS = [(0, 1), (5, 1e-2), (-1e3, 1), (1e4, 20), (1e-9, 1e-12), (1e12, 1e9), (0, 1e-30)]


class TestAgainstNumPy:
    @pytest.mark.parametrize(
        ("batch_size", "mean", "spread"),
        sample((size, *numbers) for size in (1, 7, 5000) for numbers in MEANS_AND_SPREADS),
    )
    def test_batches(self, mean, spread, batch_size):
        generator = np.random.default_rng(0)
        values = torch.from_numpy(mean + spread * generator.normal(size=(900, 2, 3)))
        groups = torch.from_numpy(generator.integers(0, 5, 900)) + 1  # groups 0 and 6 stay empty
        moments = survey(values, groups, 7, batch_size)
        assert_moments(moments, *expected(values.numpy(), groups.numpy(), 7))

    def test_a_spread_far_below_the_mean(self):
        # About as far as float32 can tell values apart. The running mean, rounded, costs 1e-16 times mean / spread.
        generator = np.random.default_rng(1)
        values = torch.from_numpy((1000 + 1e-3 * generator.normal(size=(4000, 3))).astype(np.float32))
        groups = torch.from_numpy(generator.integers(0, 3, 4000))
        wanted = expected(values.numpy(), groups.numpy(), 3)
        assert_moments(survey(values, groups, 3, 32), *wanted, tolerance=1e-10)
        naive = values.double().square().sum(0) - values.double().mean(0).square() * 4000
        total = np.asarray(expected(values.numpy(), np.zeros(4000), 1)[2][0], dtype=float)
        assert np.abs(naive.numpy() / total - 1).max() > 1e-5

    def test_a_mean_that_drifts(self):
        generator = np.random.default_rng(2)
        values = torch.from_numpy(np.linspace(-1e6, 1e6, 3000)[:, None] + generator.normal(size=(3000, 4)))
        groups = torch.arange(3000) % 2
        moments = survey(values + 3e6, groups, 2, 16).pool(torch.tensor([0, 1]))
        assert_moments(moments, *expected(values + 3e6, np.zeros(3000), 1))

    @pytest.mark.parametrize(("mean", "spread"), MEANS_AND_SPREADS)
    def test_merging_many_equals_one_survey(self, mean, spread):
        generator = np.random.default_rng(3)
        values = torch.from_numpy(mean + spread * generator.standard_cauchy(size=(600, 2)))
        groups = torch.from_numpy(generator.integers(0, 4, 600))
        parts = [survey(*part, 4, 5) for part in zip(values.split(50), groups.split(50), strict=True)]
        merged = parts[0]
        for part in parts[1:]:
            merged = part.merge(merged)
        assert_moments(merged, *expected(values.numpy(), groups.numpy(), 4))

    def test_pool_takes_masks_and_indices_each_group_once(self):
        generator = np.random.default_rng(4)
        values, groups = torch.from_numpy(generator.normal(50, 2, (300, 2))), torch.arange(300) % 6
        moments = survey(values, groups, 8, 64)  # groups 6 and 7 are empty
        chosen = np.isin(groups.numpy(), [1, 4])
        wanted = expected(values[chosen].numpy(), np.zeros(chosen.sum()), 1)
        assert_moments(moments.pool(torch.tensor([4, 1, 4, 7])), *wanted)
        assert_moments(moments.pool(torch.tensor([False, True, False, False, True, False, True, False])), *wanted)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
    def test_other_dtypes_and_values_that_want_gradients(self, dtype):
        values = torch.linspace(-3, 9, 50).to(dtype).requires_grad_()
        moments = Moments.empty(1, ())
        moments.add(values, torch.zeros(50, dtype=torch.int32))
        assert_moments(moments, *expected(values.detach().double().numpy(), np.zeros(50), 1))


class TestErrors:
    @pytest.mark.parametrize(
        ("values", "groups", "message"),
        [
            (
                torch.zeros(2, 2),
                [0, 1],
                "`values` must have shape (rows, 3) and `groups` (rows,); got (2, 2) and (2,).",
            ),
            (torch.zeros(2, 3), [0], "`values` must have shape (rows, 3) and `groups` (rows,); got (2, 3) and (1,)."),
            (torch.zeros(2, 3), [0, 4], "`groups` must be in [0, 3]; got 0 to 4."),
            (torch.zeros(2, 3), [-1, 2], "`groups` must be in [0, 3]; got -1 to 2."),
            (torch.full((1, 3), torch.nan), [0], "`values` must be finite; got NaN or infinity."),
        ],
    )
    def test_add_takes_nothing_in(self, values, groups, message):
        moments = Moments.empty(4, (3,))
        with pytest.raises(ArgumentError) as caught:
            moments.add(values, torch.tensor(groups))
        assert str(caught.value) == message
        assert not moments.count.any()

    def test_merge_and_pool(self):
        for unlike in (Moments.empty(3, (2,)), Moments.empty(2, (3,))):
            with pytest.raises(ArgumentError, match=r"`other` must have 2 groups of shape \(2,\); got"):
                Moments.empty(2, (2,)).merge(unlike)
        for groups, reason in (
            ([True, False], r"have shape \(3,\); got \(2,\)."),
            *((groups, r"be indices in \[0, 2\]; some are not.") for groups in ([3], [-1], [[0]])),
        ):
            with pytest.raises(ArgumentError, match=f"`groups` must {reason}"):
                Moments.empty(3, ()).pool(torch.tensor(groups))

    def test_parts_that_do_not_fit(self):
        count, mean = torch.tensor([1, 2]), torch.zeros(2, 3, dtype=torch.float64)
        for parts, reason in [
            ((count.int(), mean, mean), "must be int64, float64, float64; got int32, float64, float64"),
            ((count, mean.float(), mean), "got int64, float32, float64"),
            ((count, mean[:1], mean), r"must have shapes .*; got \(2,\), \(1, 3\), \(2, 3\)"),
            ((count, mean, mean[:, :2]), r"got \(2,\), \(2, 3\), \(2, 2\)"),
            ((count[None], mean[None], mean[None]), r"got \(1, 2\)"),
            ((-count, mean, mean), "must not be negative or NaN"),
            ((count, mean, mean - 1), "must not be negative or NaN"),
            ((count, mean, mean + torch.nan), "must not be negative or NaN"),
        ]:
            with pytest.raises(ArgumentError, match=reason):
                Moments(*parts)
