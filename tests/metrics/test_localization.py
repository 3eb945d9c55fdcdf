"""Where maps lie, and how well they find an object's pixels, against loops over pixels and by hand."""

import itertools
import math

import pytest
import torch

from gmar_hf import ArgumentError, ArgumentTypeError
from gmar_hf.metrics.detection import pixel_average_precision, pixel_roc_auc, rank_accuracy, top_k_intersection
from gmar_hf.metrics.localization import energy_pointing_game, grid_pointing_game, iou, pointing_game, sparseness

ROWS, COLS, PATCH = 3, 5, (4, 2)  # 12 x 10 pixels
DETECTION = [pixel_average_precision, pixel_roc_auc, rank_accuracy, top_k_intersection]
MASKED = [pointing_game, energy_pointing_game, iou, *DETECTION]


def example(batch=6, seed=0, ties=False):
    """Return seeded maps (batch, 3, 5), signed, and masks (batch, 12, 10) that cut through patches."""
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randn(batch, ROWS, COLS, generator=generator)
    masks = torch.rand(batch, ROWS * PATCH[0], COLS * PATCH[1], generator=generator) < 0.3
    return (maps.round() if ties else maps), masks


def to_pixels(one):
    return one.repeat_interleave(PATCH[0], -2).repeat_interleave(PATCH[1], -1)


def oracle(metric, one, mask):
    """One image, pixel by pixel, in float64."""
    pixels, mask = to_pixels(one).double().numpy(), mask.numpy()
    places = [(y, x) for y in range(pixels.shape[0]) for x in range(pixels.shape[1])]
    if metric is pointing_game:
        top = max(places, key=lambda place: pixels[place])  # of equal ones the first, which is of the first patch
        row, col = top[0] // PATCH[0], top[1] // PATCH[1]
        patch = [(y, x) for y, x in places if (y // PATCH[0], x // PATCH[1]) == (row, col)]
        return float(any(mask[place] for place in patch))
    if metric is energy_pointing_game:
        inside = math.fsum(max(pixels[place], 0) for place in places if mask[place])
        total = math.fsum(max(pixels[place], 0) for place in places)
        return inside / total if total else 0.0
    if metric is pixel_average_precision:
        area = 0.0
        recall = 0.0
        for threshold in sorted({pixels[place] for place in places}, reverse=True):
            called = [place for place in places if pixels[place] >= threshold]
            right = sum(mask[place] for place in called)
            area += (right / mask.sum() - recall) * right / len(called)
            recall = right / mask.sum()
        return area
    if metric is pixel_roc_auc:  # every pixel of the object against every one outside
        inside, outside = pixels[mask][:, None], pixels[~mask]
        return ((inside > outside) + (inside == outside) / 2).mean() if outside.size else math.nan
    if metric in (rank_accuracy, top_k_intersection):  # pixel by pixel from the top; of equal ones each gets a share
        num_top = mask.sum() if metric is rank_accuracy else 2  # of 120: 2.4
        last = sorted(pixels.flatten(), reverse=True)[num_top - 1]
        above, level = pixels > last, pixels == last
        share = (num_top - above.sum()) / level.sum()
        return ((above & mask).sum() + share * (level & mask).sum()) / num_top
    mean = math.fsum(pixels[place] for place in places) / len(places)
    both = sum(pixels[place] > mean and mask[place] for place in places)
    either = sum(pixels[place] > mean or mask[place] for place in places)
    return both / either


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("metric", MASKED)
def test_equals_a_loop_over_pixels(metric, ties):
    maps, masks = example(ties=ties)
    masks[3] = True
    found = metric(maps, masks)
    expected = [oracle(metric, one, mask) for one, mask in zip(maps, masks, strict=True)]
    assert found.dtype == torch.float32
    expected = torch.tensor(expected, dtype=torch.float32)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6, equal_nan=True)
    assert found.isnan().sum() == (metric is pixel_roc_auc)  # the object is the whole image


class TestByHand:
    # Two by two patches of 2 x 2 pixels; the object is 3 pixels of the first patch and 1 of the second.
    MASK = torch.tensor([[[1, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]]).bool()
    MAP = torch.tensor([[[4.0, 1.0], [-2.0, 3.0]]])

    def test_energy(self):
        # (4 * 3/4 + 1 * 1/4) / 8
        assert energy_pointing_game(self.MAP, self.MASK).item() == pytest.approx(3.25 / 8)

    def test_average_precision(self):
        # Patches in order: first (3 of 4 right), last (none), second (4 of 12).
        assert pixel_average_precision(self.MAP, self.MASK).item() == pytest.approx(3 / 4 * 3 / 4 + 1 / 4 * 4 / 12)

    def test_roc_auc(self):
        # Of 12 pixels outside, 4 are in the third patch (least), 3 in the second, 4 in the last, 1 in the first: a
        # pixel of the first patch wins 11 1/2, that of the second 4 + 3 / 2.
        assert pixel_roc_auc(self.MAP, self.MASK).item() == pytest.approx((3 * 11.5 + 5.5) / 4 / 12)

    def test_rank_accuracy(self):
        # The object has 4 pixels, and so has the first patch, 3 of which are right.
        assert rank_accuracy(self.MAP, self.MASK).item() == 3 / 4

    def test_top_k(self):
        # The first patch and half of the last; the first three and three quarters of the second.
        assert top_k_intersection(self.MAP, self.MASK, k=6).item() == pytest.approx(3 / 6)
        assert top_k_intersection(self.MAP, self.MASK, k=11).item() == pytest.approx((3 + 3 / 4) / 11)

    def test_iou(self):
        # The mean is 1.5: first and last patch are above. 3 pixels in both, 8 + 4 - 3 in either.
        assert iou(self.MAP, self.MASK).item() == pytest.approx(3 / 9)

    def test_pointing(self):
        assert pointing_game(self.MAP, self.MASK).item() == 1
        assert pointing_game(-self.MAP, self.MASK).item() == 0
        assert pointing_game(-self.MAP, self.MASK, tolerance=1).item() == 1

    def test_sparseness(self):
        # Magnitudes 1, 2, 3, 4: 1 - 2 (1/10 * 3.5/4 + 2/10 * 2.5/4 + 3/10 * 1.5/4 + 4/10 * 0.5/4) = 0.25
        assert sparseness(self.MAP).item() == pytest.approx(0.25)


class TestTopPixels:
    """Over all sets of pixels that a map's order allows."""

    @pytest.mark.parametrize("k", range(1, 13))
    def test_is_the_mean_over_all_choices_among_equal_pixels(self, k):
        # 2 x 3 patches of 2 x 1 pixels, two and three of which are alike.
        maps = torch.tensor([[[2.0, 1.0, 1.0], [3.0, 1.0, 2.0]]])
        mask = torch.tensor([[[1, 0, 1], [0, 0, 1], [0, 1, 0], [0, 1, 1]]]).bool()
        pixels, inside = maps.repeat_interleave(2, 1).flatten().tolist(), mask.flatten().tolist()
        shares = []
        for chosen in itertools.combinations(range(12), k):
            left = [pixels[place] for place in range(12) if place not in chosen]
            if min(pixels[place] for place in chosen) >= max(left, default=-math.inf):
                shares.append(sum(inside[place] for place in chosen) / k)
        assert top_k_intersection(maps, mask, k).item() == pytest.approx(math.fsum(shares) / len(shares))
        if k == sum(inside):
            assert rank_accuracy(maps, mask).item() == pytest.approx(math.fsum(shares) / len(shares))

    def test_two_per_cent_by_default(self):
        maps = torch.randn(3, 10, 10, generator=torch.Generator().manual_seed(0))
        masks = torch.rand(3, 20, 20, generator=torch.Generator().manual_seed(1)) < 0.5
        assert torch.equal(top_k_intersection(maps, masks), top_k_intersection(maps, masks, k=8))
        assert top_k_intersection(maps[:, :2, :2], masks[:, :2, :2]).shape == (3,)  # one pixel at least

    @pytest.mark.parametrize("k", [0, 121, 1.5, True])
    def test_k_is_a_number_of_pixels(self, k):
        with pytest.raises(ArgumentError, match=r"`k` must be a whole number in \[1, 120\]; got"):
            top_k_intersection(*example(), k)


class TestPointing:
    def test_of_equal_maxima_the_first_counts(self):
        maps = torch.tensor([[[0.0, 1.0], [1.0, 0.0]]])
        second, third = torch.zeros(2, 1, 2, 2, dtype=torch.bool)
        second[0, 0, 1] = third[0, 1, 0] = True
        assert pointing_game(maps, second).item() == 1
        assert pointing_game(maps, third).item() == 0

    @pytest.mark.parametrize("tolerance", [0, 1, 2, 3, 4, 50])
    def test_tolerance_goes_along_rows_and_columns(self, tolerance):
        # The maximum at (2, 1) of 5 x 6 patches, the object on one patch after the other.
        maps = torch.zeros(30, 5, 6)
        maps[:, 2, 1] = 1
        masks = torch.eye(30).bool().view(30, 5, 6)
        found = pointing_game(maps, masks, tolerance).view(5, 6)
        for row in range(5):
            for col in range(6):
                assert found[row, col] == (max(abs(row - 2), abs(col - 1)) <= tolerance)

    @pytest.mark.parametrize("tolerance", [-1, 1.0, True, "1"])
    def test_tolerance_is_a_count(self, tolerance):
        maps, masks = example()
        with pytest.raises(ArgumentError, match="`tolerance` must be a whole number of 0 or more; got"):
            pointing_game(maps, masks, tolerance)


class TestSparseness:
    @pytest.mark.parametrize("size", [(1, 1), (3, 5), (14, 14)])
    def test_ends(self, size):
        num_patches = size[0] * size[1]
        assert sparseness(torch.full((1, *size), 0.1)).item() == pytest.approx(0, abs=1e-6)
        one = torch.zeros(1, *size)
        one[0, 0, 0] = -3
        assert sparseness(one).item() == pytest.approx(1 - 1 / num_patches, abs=1e-6)
        assert sparseness(torch.zeros(1, *size)).item() == 0

    def test_equals_the_formula(self):
        maps = example()[0]
        for one, found in zip(maps, sparseness(maps), strict=True):
            rising = sorted(abs(value) for value in one.flatten().double().tolist())
            number, total = len(rising), math.fsum(rising)
            gini = 1 - 2 * math.fsum(c / total * (number - k + 0.5) / number for k, c in enumerate(rising, start=1))
            assert found.item() == pytest.approx(gini, abs=1e-6)

    def test_scale_and_place_do_not_count(self):
        maps = example()[0]
        for same in (maps * 1e30, maps * 1e-30, -maps, maps.flip(1), maps.flip(2)):
            torch.testing.assert_close(sparseness(same), sparseness(maps), rtol=1e-5, atol=0)


class TestAnyInput:
    @pytest.mark.parametrize("metric", MASKED)
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_constant_maps(self, metric, dtype):
        _, masks = example()
        found = metric(torch.full((6, ROWS, COLS), 0.7, dtype=dtype), masks)  # in float64 the mean is less than 0.7
        share = masks.float().mean((1, 2))
        touched = masks[:, :4, :2].flatten(1).any(1).float()
        others = {iou: torch.zeros(6), pointing_game: touched, pixel_roc_auc: torch.full((6,), 0.5)}
        expected = others.get(metric, share)
        torch.testing.assert_close(found, expected)

    @pytest.mark.parametrize("metric", MASKED)
    def test_a_map_without_a_positive_part(self, metric):
        maps, masks = -example()[0].abs(), example()[1]
        found = metric(maps, masks)
        if metric is energy_pointing_game:
            assert torch.equal(found, torch.zeros(6))
        else:  # the order is all that counts
            torch.testing.assert_close(found, metric(maps + 10, masks), rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("metric", MASKED)
    def test_empty_masks_score_zero(self, metric):
        maps = example()[0]
        assert torch.equal(metric(maps, torch.zeros(6, 12, 10, dtype=torch.bool)), torch.zeros(6))

    @pytest.mark.parametrize("metric", MASKED)
    def test_the_masks_own_patches_are_a_perfect_map(self, metric):
        patches = example()[0] > 0.5
        patches[:, 0, 0] = True
        torch.testing.assert_close(metric(patches.float(), to_pixels(patches)), torch.ones(6))

    @pytest.mark.parametrize("metric", MASKED)
    def test_batch_equals_loop(self, metric):
        maps, masks = example()
        alone = [metric(maps[index : index + 1], masks[index : index + 1]) for index in range(6)]
        torch.testing.assert_close(metric(maps, masks), torch.cat(alone))

    @pytest.mark.parametrize("metric", MASKED)
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
    def test_dtypes_no_graph_and_inputs_left_alone(self, metric, dtype):
        maps, masks = (part.to(dtype) if part.is_floating_point() else part for part in example())
        before = maps.clone(), masks.clone()
        figures = metric(maps.requires_grad_(), masks)
        assert (figures.dtype, figures.requires_grad) == (torch.float32, False)
        torch.testing.assert_close(figures, metric(maps.detach().float(), masks), rtol=1e-5, atol=1e-6)
        assert torch.equal(maps, before[0])
        assert torch.equal(masks, before[1])

    def test_large_maps_do_not_overflow(self):
        maps, masks = example()
        maps = maps / maps.abs().max()
        for scale in (3e38, 1e-40):
            scaled = energy_pointing_game((maps.double() * scale).float(), masks)
            torch.testing.assert_close(scaled, energy_pointing_game(maps, masks), rtol=1e-3, atol=1e-3)

    @pytest.mark.parametrize("metric", MASKED)
    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
    def test_torchs_default_dtype_does_not_count(self, metric, dtype):
        maps, masks = example()
        expected = metric(maps, masks)
        default = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            assert torch.equal(metric(maps, masks), expected)
        finally:
            torch.set_default_dtype(default)

    @pytest.mark.parametrize("metric", MASKED)
    def test_maps_of_pixels(self, metric):
        maps, masks = example()
        if metric is not pointing_game:  # to which the size of a patch is a tolerance
            torch.testing.assert_close(metric(to_pixels(maps), masks), metric(maps, masks))


class TestErrors:
    @pytest.mark.parametrize(
        ("masks", "error", "message"),
        [
            (torch.ones(6, 12, 11) > 0, ArgumentError, r"the map's 3 x 5 patches divide evenly; got 12 x 11\. Crop"),
            *(
                (
                    torch.ones(shape) > 0,
                    ArgumentError,
                    r"one mask for each of the 6 maps, shape \(6, height, width\); got",
                )
                for shape in ((5, 12, 10), (6, 1, 12, 10), (12, 10), (6, 0, 10))
            ),
            *(
                (masks, ArgumentTypeError, "`masks` must be a bool tensor")
                for masks in (example()[1].float(), example()[1].numpy(), None)
            ),
            (example()[1].to_sparse(), ArgumentTypeError, r"`masks` must be a dense tensor .*Call `\.to_dense\(\)`"),
            (example()[1].to("meta"), ArgumentTypeError, "`masks` must be a dense tensor .*on the meta device"),
        ],
    )
    @pytest.mark.parametrize("metric", MASKED)
    def test_masks(self, metric, masks, error, message):
        with pytest.raises(error, match=message):
            metric(example()[0], masks)

    @pytest.mark.parametrize(
        ("maps", "error", "message"),
        [
            *(
                (
                    torch.ones(shape),
                    ArgumentError,
                    "`attribution` must have one map an image.* Measure each of several",
                )
                for shape in ((3, 5), (6, 2, 3, 5), (6, 0, 5), (0, 3, 5))
            ),
            (example()[0] + torch.nan, ArgumentError, "`attribution` must be finite; got NaN or infinity"),
            (example()[0] + torch.inf, ArgumentError, "`attribution` must be finite; got NaN or infinity"),
            (example()[0].numpy(), ArgumentTypeError, r"`attribution` must be a tensor .* got ndarray"),
        ],
    )
    def test_maps(self, maps, error, message):
        for call in (lambda: sparseness(maps), lambda: iou(maps, example()[1])):
            with pytest.raises(error, match=message):
                call()


class TestGridPointingGame:
    """The share of the positive mass in a cell, with patches shared by their area."""

    def test_patches_within_cells(self):
        maps = torch.tensor([[[1.0, 2.0, 0.0, 1.0], [1.0, -3.0, 0.0, 5.0]]]).expand(4, -1, -1)
        # One row of patches a cell row, two columns a cell column: 3, 1; 1, 5 of 10.
        shares = grid_pointing_game(maps, torch.arange(4))
        torch.testing.assert_close(shares, torch.tensor([0.3, 0.1, 0.1, 0.5]))

    def test_patches_across_cells(self):
        # The middle column of three lies half in either cell of one row of two: 1 + 4 / 2 of 8, and 3 + 4 / 2.
        maps = torch.tensor([[[1.0, 4.0, 3.0]]]).expand(2, -1, -1)
        shares = grid_pointing_game(maps, torch.arange(2), grid=(1, 2))
        torch.testing.assert_close(shares, torch.tensor([3.0 / 8, 5.0 / 8]))

    def test_narrow_types_of_cells(self):
        maps, cell = torch.arange(256.0).view(1, 16, 16), torch.tensor([200])
        expected = grid_pointing_game(maps, cell, grid=(16, 16))
        assert torch.equal(grid_pointing_game(maps, cell.to(torch.uint8), grid=(16, 16)), expected)

    @pytest.mark.parametrize(
        ("cell", "grid", "error", "message"),
        [
            (torch.tensor([4]), (2, 2), ArgumentError, r"`cell` must be in \[0, 3\], one for .*; got \[4\]"),
            (torch.tensor([-1]), (2, 2), ArgumentError, "`cell` must be in"),
            (torch.tensor([0.5]), (2, 2), ArgumentTypeError, "`cell` must be a tensor of ints"),
            ([0], (2, 2), ArgumentTypeError, "`cell` must be a tensor of ints"),
            (torch.tensor([0j]), (2, 2), ArgumentTypeError, "`cell` must be a dense tensor of real numbers"),
            (torch.tensor([0]), (0, 2), ArgumentError, "`grid` must be"),
            (torch.tensor([0]), 2, ArgumentTypeError, r"`grid` must be \(rows, columns\) of the mosaic; got 2\."),
            (torch.tensor([0]), (2, 2, 2), ArgumentTypeError, r"`grid` must be \(rows, columns\)"),
            (torch.tensor([0, 1]), (2, 2), ArgumentError, "must have one mask for each|one for each"),
        ],
    )
    def test_bad_arguments(self, cell, grid, error, message):
        with pytest.raises(error, match=message):
            grid_pointing_game(torch.ones(1, 2, 2), cell, grid=grid)
