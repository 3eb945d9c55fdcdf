"""Insertion, deletion and perturbation: cases by hand, a slow loop, and the metrics of torchcam and Quantus."""

from __future__ import annotations

import functools
import warnings

import numpy as np
import pytest
import torch

import gmar_hf.demo
from gmar_hf import ArgumentError, ArgumentTypeError, NonFiniteError, metrics
from tests.helpers.metric_peers import (
    COLS,
    HEIGHT,
    ROWS,
    WIDTH,
    GivenMap,
    TinyClassifier,
    example,
    to_pixels,
    torchcam_metrics,
)
from tests.helpers.sampling import sample_product

# Four patches of 2 x 2 pixels in one image, worth 8, 4, 2 and 1.
QUARTERS = torch.tensor([[8.0, 4.0], [2.0, 1.0]]).repeat_interleave(2, 0).repeat_interleave(2, 1)[None, None]
ORDER_8_2_1_4 = torch.tensor([[[0.9, -0.1], [0.5, 0.2]]])


def patch_sum(pixel_values):
    return pixel_values.sum((1, 2, 3)) / 4


def slow_curve(score, image, filling, attribution, counts, *, showing):
    """Score one image after `counts` patches, in NumPy and pixel by pixel, most important first."""
    patches = [(row, col) for row in range(attribution.shape[0]) for col in range(attribution.shape[1])]
    order = sorted(patches, key=lambda patch: -attribution[patch])  # stable: equal ones row by row
    high, wide = image.shape[1] // attribution.shape[0], image.shape[2] // attribution.shape[1]
    scores = []
    for count in counts:
        mixed = (filling if showing else image).copy()
        for row, col in order[:count]:
            for channel in range(image.shape[0]):
                for down in range(row * high, (row + 1) * high):
                    for right in range(col * wide, (col + 1) * wide):
                        mixed[channel, down, right] = (image if showing else filling)[channel, down, right]
        scores.append(float(score(torch.from_numpy(mixed)[None])[0]))
    return scores


def slow_area(scores, shares):
    area = sum((shares[i + 1] - shares[i]) * (scores[i] + scores[i + 1]) / 2 for i in range(len(shares) - 1))
    return area / (shares[-1] - shares[0])


class TestByHand:
    def test_insertion_and_deletion(self):
        options = dict(num_steps=4, baseline="zero")
        inserted = metrics.insertion(patch_sum, QUARTERS, ORDER_8_2_1_4, **options)
        assert inserted.scores.tolist() == [[0, 8, 10, 11, 15]]
        assert inserted.shares.tolist() == [0, 0.25, 0.5, 0.75, 1]
        assert inserted.auc.tolist() == [(0 / 2 + 8 + 10 + 11 + 15 / 2) / 4]
        deleted = metrics.deletion(patch_sum, QUARTERS, ORDER_8_2_1_4, **options)
        assert deleted.scores.tolist() == [[15, 7, 5, 4, 0]]
        assert deleted.auc.tolist() == [(15 / 2 + 7 + 5 + 4 + 0 / 2) / 4]
        difference = metrics.insertion_minus_deletion(patch_sum, QUARTERS, ORDER_8_2_1_4, **options)
        assert difference.tolist() == [9.125 - 5.875]

    def test_fewer_steps_take_several_patches(self):
        curve = metrics.insertion(patch_sum, QUARTERS, ORDER_8_2_1_4, num_steps=2, baseline="zero")
        assert curve.scores.tolist() == [[0, 10, 15]]
        assert curve.shares.tolist() == [0, 0.5, 1]

    def test_more_steps_than_patches_are_the_same_area(self):
        options = dict(baseline="zero")
        few = metrics.insertion(patch_sum, QUARTERS, ORDER_8_2_1_4, num_steps=4, **options)
        many = metrics.insertion(patch_sum, QUARTERS, ORDER_8_2_1_4, num_steps=16, **options)
        assert many.scores.shape == (1, 17)
        assert many.auc.tolist() == few.auc.tolist()

    def test_equal_values_go_row_by_row(self):
        equal = torch.zeros(1, 2, 2)
        curve = metrics.insertion(patch_sum, QUARTERS, equal, num_steps=4, baseline="zero")
        assert curve.scores.tolist() == [[0, 8, 12, 14, 15]]
        three_equal = torch.tensor([[[1.0, 2.0], [1.0, 1.0]]])
        curve = metrics.deletion(patch_sum, QUARTERS, three_equal, num_steps=4, baseline="zero")
        assert curve.scores.tolist() == [[15, 11, 3, 1, 0]]

    @pytest.mark.parametrize("metric", [metrics.positive_perturbation, metrics.negative_perturbation])
    def test_many_equal_values_go_row_by_row(self, metric):
        # Above a handful of values a sort that is not stable mixes equal ones.
        images = torch.arange(1.0, 401).view(1, 1, 20, 20)
        left = []

        def predict(rows):
            left.extend(int(row.flatten().count_nonzero()) for row in rows)
            assert all(torch.equal(row.flatten().bool(), row.flatten().bool().sort(stable=True)[0]) for row in rows)
            return torch.zeros(len(rows))

        metric(predict, images, torch.zeros(1, 20, 20))
        assert left == [400, 360, 320, 280, 240, 200, 160, 120, 80, 40]

    def test_least_important_first_goes_row_by_row_too(self):
        # Hides 4, 1 and then 8, 2 in this order; the class is 1 as long as the 8 is there.
        attribution = torch.tensor([[[3.0, -1.0], [3.0, -1.0]]])
        seen = []

        def predict(rows):
            seen.extend(patch_sum(rows).tolist())
            return (patch_sum(rows) >= 8).long()

        curve = metrics.negative_perturbation(predict, QUARTERS, attribution)
        # Of four patches 0.1 to 0.9 hide 0, 1, 1, 2, 2, 2, 3, 3, 4 of them; equal pictures are looked at once.
        assert seen == [15, 11, 10, 2, 0]
        assert curve.scores.tolist() == [[1, 1, 1, 1, 1, 1, 0, 0, 0]]

    def test_positive_perturbation(self):
        curve = metrics.positive_perturbation(lambda rows: (patch_sum(rows) > 4).long(), QUARTERS, ORDER_8_2_1_4)
        # 15 | 15, 7, 7, 5, 5, 5, 4, 4, 0
        assert curve.scores.tolist() == [[1, 1, 1, 1, 1, 1, 0, 0, 0]]
        torch.testing.assert_close(curve.shares, torch.arange(1, 10) / 10)
        # Five whole tenths and half of the next, of eight.
        torch.testing.assert_close(curve.auc, torch.tensor([5.5 / 8]))

    def test_scores_count_as_they_are(self):
        """Of positive and negative perturbation: of a float there is no sense in whether it stands."""
        for metric, order in (
            (metrics.positive_perturbation, [8, 2, 1, 4]),
            (metrics.negative_perturbation, [4, 1, 2, 8]),
        ):
            left = [15 - sum(order[: round(tenth * 4 / 10)]) for tenth in range(1, 10)]
            assert metric(patch_sum, QUARTERS, ORDER_8_2_1_4).scores.tolist() == [left]
            first = metric(lambda rows: patch_sum(rows) > 5, QUARTERS, ORDER_8_2_1_4)
            assert first.scores.tolist() == [[float(score > 5) for score in left]]
            never = metric(lambda rows: patch_sum(rows) > 50, QUARTERS, ORDER_8_2_1_4)
            assert never.scores.tolist() == [[0.0] * 9]  # of ints it would stand at 0

    def test_a_prediction_that_never_moves(self):
        curve = metrics.positive_perturbation(lambda rows: rows.new_zeros(len(rows)).long(), QUARTERS, ORDER_8_2_1_4)
        torch.testing.assert_close(curve.auc, torch.tensor([1.0]))

    def test_oblong_patches(self):
        image = torch.arange(24.0).view(1, 1, 4, 6)
        attribution = torch.tensor([[[1.0, 3.0, 2.0]]])  # three patches of 4 x 2 pixels
        curve = metrics.insertion(lambda x: x.sum((1, 2, 3)), image, attribution, num_steps=3, baseline="zero")
        columns = image[0, 0].sum(0).view(3, 2).sum(1)
        assert curve.scores.tolist() == [[0, columns[1], columns[1] + columns[2], image.sum()]]

    def test_each_image_goes_in_its_own_order(self):
        images = torch.cat([QUARTERS, 10 * QUARTERS])
        attribution = torch.tensor([[[4.0, 3.0], [2.0, 1.0]], [[1.0, 2.0], [3.0, 4.0]]])
        curve = metrics.insertion(patch_sum, images, attribution, num_steps=4, baseline="zero")
        assert curve.scores.tolist() == [[0, 8, 12, 14, 15], [0, 10, 30, 70, 150]]


class TestIndependently:
    @pytest.mark.parametrize(
        ("baseline", "num_steps"), sample_product(["blur", "zero", "mean", "other"], [1, 4, 15, 16, 40])
    )
    def test_slow_loop(self, num_steps, baseline):
        model, (images, attribution), target = TinyClassifier(), example(), [0, 3, 1]
        attribution = attribution.round()  # some ties
        filling = metrics.baseline_pixels(images, baseline, blur_sigma=2.0)
        options = dict(num_steps=num_steps, baseline=baseline, blur_sigma=2.0, max_rows=7)
        inserted = metrics.insertion(model.score(target), images, attribution, **options)
        deleted = metrics.deletion(model.score(target), images, attribution, **options)
        both = metrics.insertion_minus_deletion(model.score(target), images, attribution, **options)
        counts = [round(step * ROWS * COLS / num_steps) for step in range(num_steps + 1)]
        shares = [count / (ROWS * COLS) for count in counts]
        torch.testing.assert_close(inserted.shares, torch.tensor(shares))
        for index, wanted in enumerate(target):
            one = [images[index].numpy(), filling[index].numpy(), attribution[index].numpy(), counts]
            shown = slow_curve(model.score([wanted]), *one, showing=True)
            hidden = slow_curve(model.score([wanted]), *one, showing=False)
            np.testing.assert_allclose(inserted.scores[index], shown, atol=1e-6)
            np.testing.assert_allclose(deleted.scores[index], hidden, atol=1e-6)
            np.testing.assert_allclose(inserted.auc[index], slow_area(shown, shares), atol=1e-6)
            np.testing.assert_allclose(deleted.auc[index], slow_area(hidden, shares), atol=1e-6)
            difference = slow_area(shown, shares) - slow_area(hidden, shares)
            np.testing.assert_allclose(both[index], difference, atol=1e-6)

    def test_slow_loop_of_perturbations(self):
        model, (images, attribution) = TinyClassifier(), example(batch=6)

        def predict(rows):
            return model(rows).argmax(-1)

        positive = metrics.positive_perturbation(predict, images, attribution)
        negative = metrics.negative_perturbation(predict, images, attribution)
        counts = [0, *(round(tenth * ROWS * COLS / 10) for tenth in range(1, 10))]
        for index in range(len(images)):
            for sign, curve in ((1, positive), (-1, negative)):
                arrays = images[index].numpy(), np.zeros(images[0].shape), sign * attribution[index].numpy()
                first, *classes = slow_curve(predict, *arrays, counts, showing=False)
                standing = [float(one == first) for one in classes]
                assert curve.scores[index].tolist() == standing
                area = slow_area(standing, [0.1 * tenth for tenth in range(1, 10)])
                np.testing.assert_allclose(curve.auc[index], area, atol=1e-6)
        assert 0 < positive.scores.mean() < 1  # the test would not see much in a model that never changes its mind

    def test_torchcam(self):
        peers = torchcam_metrics()
        model, (images, attribution), target = TinyClassifier(), example(), [0, 3, 1]
        filling = metrics.baseline_pixels(images, "blur")
        options = dict(num_steps=ROWS * COLS)
        inserted = metrics.insertion(model.score(target), images, attribution, **options)
        deleted = metrics.deletion(model.score(target), images, attribution, **options)
        for index, wanted in enumerate(target):
            part = slice(index, index + 1)
            given = GivenMap(model, to_pixels(attribution)[part])
            settings = dict(steps=ROWS * COLS, baseline=filling[part])
            peer = peers.DeletionInsertionMetric(given, lambda logits: logits.softmax(-1), **settings)
            peer.update(images[part], wanted)
            found = peer.summary()
            assert inserted.auc[index].item() == pytest.approx(found["insertion_auc"], abs=1e-6)
            assert deleted.auc[index].item() == pytest.approx(found["deletion_auc"], abs=1e-6)

    def test_quantus(self):
        assert WIDTH // COLS == HEIGHT // ROWS  # it knows square patches only
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its dependencies' own
            quantus = pytest.importorskip("quantus")
            model, (images, attribution), target = TinyClassifier(), example(), [0, 3, 1]
            for order, sign in (("morf", 1), ("lerf", -1)):
                peer = quantus.RegionPerturbation(
                    patch_size=HEIGHT // ROWS,
                    order=order,
                    regions_evaluation=ROWS * COLS,
                    normalise=False,
                    perturb_baseline=0.0,
                    disable_warnings=True,
                )
                drops = peer(
                    model=model,
                    x_batch=images.numpy(),
                    y_batch=np.array(target),
                    a_batch=to_pixels(attribution)[:, None].numpy(),
                    device="cpu",
                    softmax=True,
                )
                options = dict(num_steps=ROWS * COLS, baseline="zero")
                scores = metrics.deletion(model.score(target), images, sign * attribution, **options).scores
                np.testing.assert_allclose(scores[:, :1] - scores[:, 1:], np.array(drops), atol=1e-5)

    def test_the_demo_model_prefers_a_map_to_its_opposite(self, demo_batch):
        model, images, target = demo_batch("vit")[0], *(part[:4] for part in demo_batch("vit")[1:3])
        attribution = gmar_hf.explain(model, images, target, method="contribution").attribution
        score = metrics.score_function(model, target, "sigmoid")
        good, bad = (metrics.insertion_minus_deletion(score, images, sign * attribution) for sign in (1, -1))
        assert (good > bad).all()
        torch.testing.assert_close(bad, -good, atol=1e-5, rtol=0)  # the same pictures, in the opposite order


class TestRows:
    @pytest.mark.parametrize(("max_rows", "calls"), [(256, [48]), (12, [12, 12, 12, 12]), (7, [6] * 8), (1, [3] * 16)])
    def test_whole_repeats_of_the_batch_up_to_max_rows(self, max_rows, calls):
        model, (images, attribution), target = TinyClassifier(), example(), [0, 3, 1]
        sizes = []

        def score(rows):
            sizes.append(len(rows))
            return model.score(target)(rows)

        curve = metrics.insertion(score, images, attribution, num_steps=15, max_rows=max_rows)
        assert sizes == calls
        whole = metrics.insertion(model.score(target), images, attribution, num_steps=15)
        torch.testing.assert_close(curve.scores, whole.scores, atol=1e-6, rtol=0)

    def test_a_cpu_gets_no_more_pixels_at_once_than_pay(self):
        sizes = []
        images, attribution = torch.rand(2, 1, 448, 448), torch.rand(2, 4, 4)
        metrics.insertion(
            lambda rows: sizes.append(len(rows)) or rows.mean((1, 2, 3)), images, attribution, num_steps=3
        )
        assert sizes == [2, 2, 2, 2]  # 8 images of 224 x 224 have the pixels of 2 of 448 x 448

    def test_both_ends_are_scored_once(self):
        sizes = []
        images, attribution = example()
        metrics.insertion_minus_deletion(
            lambda rows: sizes.append(len(rows)) or rows.mean((1, 2, 3)), images, attribution, num_steps=5
        )
        assert sizes == [3 * 2 * 5]

    def test_a_batch_is_its_images(self):
        model, (images, attribution), target = TinyClassifier(), example(), [0, 3, 1]
        whole = metrics.insertion_minus_deletion(model.score(target), images, attribution)
        for index, wanted in enumerate(target):
            part = slice(index, index + 1)
            one = metrics.insertion_minus_deletion(model.score([wanted]), images[part], attribution[part])
            torch.testing.assert_close(one, whole[part], atol=1e-6, rtol=0)

    def test_no_graph_and_nothing_changed(self):
        model, (images, attribution) = TinyClassifier(), example()
        images.requires_grad_()
        attribution.requires_grad_()
        before = images.detach().clone(), attribution.detach().clone()
        modes = []

        def score(rows):
            modes.append((torch.is_grad_enabled(), rows.requires_grad))
            scores = model.score([0, 3, 1])(rows)
            rows.zero_()  # what a careless function may do
            return scores

        curve = metrics.deletion(score, images, attribution, max_rows=6, baseline=torch.zeros(()))
        assert set(modes) == {(False, False)}
        assert not curve.scores.requires_grad
        assert torch.equal(images, before[0])
        assert torch.equal(attribution, before[1])
        careful = metrics.deletion(model.score([0, 3, 1]), images, attribution, baseline="zero")
        torch.testing.assert_close(curve.scores, careful.scores, atol=1e-6, rtol=0)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
    def test_results_are_float32(self, dtype):
        images, attribution = (tensor.to(dtype) for tensor in example())

        def score(rows):
            assert rows.dtype == dtype
            return rows.mean((1, 2, 3))

        curve = metrics.insertion(score, images, attribution)
        assert (curve.scores.dtype, curve.shares.dtype, curve.auc.dtype) == (torch.float32,) * 3
        assert metrics.insertion_minus_deletion(score, images, attribution).dtype == torch.float32
        positive = metrics.positive_perturbation(lambda rows: rows.mean((1, 2, 3)) > 0, images, attribution)
        assert positive.auc.dtype == torch.float32

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
    def test_results_are_on_the_images_device(self):
        (images, attribution), score = example(), lambda rows: rows.mean((1, 2, 3))
        curve = metrics.insertion(score, images.cuda(), attribution)
        assert curve.scores.is_cuda
        torch.testing.assert_close(curve.auc, metrics.insertion(score, images, attribution).auc.cuda())
        assert metrics.saco(score, images.cuda(), attribution).is_cuda


class TestErrors:
    @pytest.mark.parametrize("metric", [metrics.insertion, metrics.deletion, metrics.saco, metrics.average_drop])
    @pytest.mark.parametrize(
        ("attribution", "message"),
        [
            (torch.zeros(1, 3, 2), r"divide the image's 4 x 4 pixels evenly; got 3 x 2"),
            (torch.zeros(1, 2, 8), r"divide the image's 4 x 4 pixels evenly; got 2 x 8"),
            (torch.zeros(2, 2, 2), r"one map for each of the 1 images, shape \(1, rows, cols\); got \(2, 2, 2\)"),
            (torch.zeros(1, 1, 2, 2), r"got \(1, 1, 2, 2\)"),
            (torch.full((1, 2, 2), torch.nan), "finite"),
        ],
    )
    def test_maps_that_do_not_fit(self, metric, attribution, message):
        with pytest.raises(ArgumentError, match=message):
            metric(patch_sum, QUARTERS, attribution)

    @pytest.mark.parametrize(
        ("arguments", "error", "message"),
        [
            ((patch_sum, QUARTERS, [[0.0]]), ArgumentTypeError, "`attribution` must be a tensor"),
            ((patch_sum, "cat.jpg", ORDER_8_2_1_4), ArgumentTypeError, "`pixel_values` must be a tensor"),
            ((patch_sum, QUARTERS[0], ORDER_8_2_1_4), ArgumentError, "`pixel_values` must be floating point"),
            ((patch_sum, QUARTERS.long(), ORDER_8_2_1_4), ArgumentError, "`pixel_values` must be floating point"),
            ((patch_sum, QUARTERS[:0], ORDER_8_2_1_4), ArgumentError, "`pixel_values` must be floating point"),
            ((lambda rows: rows, QUARTERS, ORDER_8_2_1_4), ArgumentError, r"`score_fn` must turn .* shape \(5,\)"),
            ((lambda rows: rows.sum(), QUARTERS, ORDER_8_2_1_4), ArgumentError, r"got shape \(\)"),
            ((lambda rows: 1.0, QUARTERS, ORDER_8_2_1_4), ArgumentError, "got float"),
            (
                (lambda rows: rows.mean((1, 2, 3)) * 1j, QUARTERS, ORDER_8_2_1_4),
                ArgumentTypeError,
                "must be a dense tensor of real numbers; got complex numbers",
            ),
            (
                (lambda rows: rows.mean((1, 2, 3)) / 0, QUARTERS, ORDER_8_2_1_4),
                NonFiniteError,
                "must give finite numbers",
            ),
        ],
    )
    def test_images_maps_and_scores(self, arguments, error, message):
        with pytest.raises(error, match=message):
            metrics.insertion(*arguments)

    @pytest.mark.parametrize("name", ["num_steps", "max_rows"])
    @pytest.mark.parametrize("value", [0, -1, 2.0, True])
    def test_counts(self, name, value):
        with pytest.raises(ArgumentError, match=f"`{name}` must be a whole number of 1 or more; got {value!r}"):
            metrics.deletion(patch_sum, QUARTERS, ORDER_8_2_1_4, **{name: value})

    @pytest.mark.parametrize(
        "metric", [metrics.insertion, metrics.positive_perturbation, metrics.saco, metrics.average_drop]
    )
    def test_no_function_and_no_real_numbers(self, metric):
        with pytest.raises(ArgumentTypeError, match=r"`score_fn` must be a function from pixel values .*; got str"):
            metric("score", QUARTERS, ORDER_8_2_1_4, **({"num_groups": 2} if metric is metrics.saco else {}))
        with pytest.raises(
            ArgumentTypeError, match=r"`attribution` must be a dense tensor of real numbers; got complex"
        ):
            metric(patch_sum, QUARTERS, ORDER_8_2_1_4 + 0j)

    def test_baselines_that_are_no_numbers(self):
        with pytest.raises(
            ArgumentError, match=r"`baseline` must hold finite pixel values, of .*; got NaN or infinity"
        ):
            metrics.insertion(patch_sum, QUARTERS, ORDER_8_2_1_4, baseline=torch.tensor(torch.nan))

    def test_predictions_of_another_shape(self):
        with pytest.raises(ArgumentError, match="`score_fn` must turn"):
            metrics.positive_perturbation(lambda rows: rows.sum(), QUARTERS, ORDER_8_2_1_4)


def test_a_map_of_the_truth_is_at_the_better_end():
    """Directions, measured: the model sums up one corner, and the map marks it, or all but it."""
    images = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0)) + 0.5
    corner = torch.zeros(3, 4, 4)
    corner[:, :2, :2] = torch.tensor([[4.0, 3.0], [2.0, 1.0]])
    wrong = corner.amax() - corner
    masks = (corner > 0).repeat_interleave(2, 1).repeat_interleave(2, 2)

    def score(rows):
        return (rows[:, 0, :4, :4].mean((1, 2)) / 2).clamp(0, 1)

    def predict(rows):
        return (score(rows) > 0.2).long()

    hiding = {"num_steps": 8, "baseline": "zero"}
    figures = {
        "insertion": lambda maps: metrics.insertion(score, images, maps, **hiding).auc,
        "deletion": lambda maps: metrics.deletion(score, images, maps, **hiding).auc,
        "insertion_minus_deletion": lambda maps: metrics.insertion_minus_deletion(score, images, maps, **hiding),
        "positive_perturbation": lambda maps: metrics.positive_perturbation(predict, images, maps).auc,
        "negative_perturbation": lambda maps: metrics.negative_perturbation(predict, images, maps).auc,
        "saco": lambda maps: metrics.saco(score, images, maps, baseline="zero"),
        "average_drop": lambda maps: metrics.average_drop(score, images, maps),
    }
    for metric in (metrics.pointing_game, metrics.energy_pointing_game, metrics.pixel_average_precision, metrics.iou):
        figures[metric.__name__] = functools.partial(metric, masks=masks)
    for name, figure in figures.items():
        right, upside_down = figure(corner), figure(wrong)
        assert ((right > upside_down) == metrics.HIGHER_IS_BETTER[name]).all(), name
        assert (right != upside_down).all(), name


class TestPixelsLeftOver:
    """Beyond the last whole patch, where the model may look, too."""

    METRICS = (
        metrics.insertion, metrics.deletion, metrics.insertion_minus_deletion, metrics.positive_perturbation,
        metrics.negative_perturbation, metrics.saco, metrics.average_drop, metrics.average_increase,
        metrics.average_gain,
    )  # fmt: skip

    @pytest.fixture
    def parts(self):
        generator = torch.Generator().manual_seed(1)
        images = torch.rand(3, 2, 11, 8, generator=generator)
        attribution = torch.rand(3, 3, 2, generator=generator)
        weights = torch.rand(2, 11, 8, generator=generator)
        return images, attribution, weights / weights.sum()

    @pytest.mark.parametrize("metric", METRICS[:6])
    def test_they_stay(self, metric, parts):
        """As if the images ended with the patches, and the rest were a part of the model."""
        images, attribution, weights = parts
        covered = images[:, :, :9, :6]

        def score(rows):
            return (rows * weights).sum((1, 2, 3))

        def score_covered(rows):
            whole = images.repeat(len(rows) // len(images), 1, 1, 1)
            whole[:, :, :9, :6] = rows
            return score(whole)

        def prediction(function):
            return lambda rows: (function(rows) * 40).long()

        wrap = prediction if "perturbation" in metric.__name__ else (lambda function: function)
        filling = images.mean(dim=(2, 3), keepdim=True)
        settings = {"num_groups": 3} if metric is metrics.saco else {}
        found = metric(wrap(score), images, attribution, patch_size=3, baseline=filling, **settings)
        wanted = metric(wrap(score_covered), covered, attribution, baseline=filling, **settings)
        for one, other in zip(*((getattr(each, "scores", each)) for each in (found, wanted)), strict=True):
            torch.testing.assert_close(one, other)

    def test_dimmed_as_their_neighbours(self, parts):
        images, attribution, _ = parts
        seen = []

        def score(rows):
            seen.append(rows)
            return rows.mean((1, 2, 3))

        metrics.average_drop(score, images, attribution, patch_size=(3, 3))
        dimmed = torch.cat(seen)[3:] / images
        torch.testing.assert_close(dimmed[:, :, 9:], dimmed[:, :, 8:9].expand(-1, -1, 2, -1))
        torch.testing.assert_close(dimmed[..., 6:], dimmed[..., 5:6].expand(-1, -1, -1, 2))
        seen.clear()
        metrics.average_drop(score, images[:, :, :9, :6], attribution)
        torch.testing.assert_close(dimmed[:, :, :9, :6], torch.cat(seen)[3:] / images[:, :, :9, :6])

    @pytest.mark.parametrize("metric", METRICS)
    def test_nothing_is_guessed(self, metric, parts):
        images, attribution, _ = parts

        def score(rows):
            return rows.mean((1, 2, 3))

        with pytest.raises(ArgumentError, match="left over beyond the last whole patch, pass `patch_size`"):
            metric(score, images, attribution)
        words = r"a value for each whole patch of 2 x 3 pixels, 5 x 2 in images of 11 x 8; got 3 x 2\."
        with pytest.raises(ArgumentError, match=words):
            metric(score, images, attribution, patch_size=(2, 3))
        for size in (0, 2.5, (3, 0), (3,), "33", True):
            with pytest.raises(ArgumentError, match="`patch_size` must be a positive int, or \\(height, width\\)"):
                metric(score, images, attribution, patch_size=size)
