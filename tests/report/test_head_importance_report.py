"""What a report says of its numbers: by hand, and against NumPy on the explanations themselves."""

import math
import sys

import matplotlib.figure
import numpy as np
import pytest
import torch

from gmar_hf.errors import ArgumentError, ArgumentTypeError, GMARError
from gmar_hf.report.comparison import compare_statistics
from gmar_hf.report.head_importance_report import KEYS, MIN_CLASS_EXPLANATIONS, OUTCOMES, HeadImportanceReport
from tests.helpers.reports import (
    dataset,
    explanations,
    made_settings,
    make_moments,
    make_report,
    moments_of,
    report_on,
)


def numpy_means(values, chosen, key):
    return values[chosen][:, KEYS.index(key)].double().numpy().mean(0)


def assert_close(actual, wanted, tolerance=1e-12):
    np.testing.assert_allclose(np.asarray(actual), wanted, rtol=tolerance, atol=0)


class TestNumbers:
    def test_all_and_by_outcome_and_by_class(self):
        report = make_report(num_explanations=200, seed=3)
        values, groups = explanations(num_explanations=200, seed=3)
        for statistics, chosen in (
            (report, groups >= 0),
            (report.overall, groups >= 0),
            (report.correct, groups % 3 == 0),
            (report.wrong, groups % 3 == 1),
            (report.per_class(1), groups // 3 == 1),
            (report.per_class("label 1"), groups // 3 == 1),
        ):
            assert statistics.num_explanations == chosen.sum()
            for place, key in enumerate(KEYS):
                numbers = values[chosen, place].double().numpy()
                assert_close(statistics.mean[key], numbers.mean(0))
                assert_close(statistics.std[key], numbers.std(0))
                assert_close(statistics.standard_error[key], numbers.std(0) / math.sqrt(len(numbers)))
        assert report.num_images == 200
        assert report.labels == [f"label {index}" for index in range(5)]

    def test_classes_that_are_not_there(self):
        report = make_report()
        with pytest.raises(ArgumentError) as caught:
            report.per_class("label 4")
        assert str(caught.value) == (
            "`label` must be of a class that the survey explained; got 'label 4', which it did not. "
            "It did 4 of 5 classes, 'label 0' among them."
        )
        with pytest.raises(
            ArgumentError, match=r"`label` must be one of the model's labels or an index; got 'lable 1'"
        ):
            report.per_class("lable 1")
        with pytest.raises(ArgumentError, match=r"`label` must be an index in \[0, 4\]"):
            report.per_class(5)

    def test_no_outcome_known(self):
        report = report_on(moments_of(torch.rand(4, 6, 1, 2), [2, 2, 5, 2], num_classes=2))
        assert report.correct.num_explanations == report.wrong.num_explanations == 0
        assert report.wrong.mean["l1"].isnan().all()

    def test_repr_is_one_short_line(self):
        report = make_report(layers=12, heads=12, num_explanations=1234, model={"id": "me/a\x1b[2J\nb"})
        assert repr(report) == (
            "HeadImportanceReport(me/a\\x1b[2J\\nb: 12 layers of 12 heads, 1,234 images, 1,234 explanations)"
        )


def report_of_means(mean, key="contribution_abs", count=20):
    """A report whose heads have these means (layers, heads) for one key and zeros for the others."""
    mean = torch.tensor(mean, dtype=torch.float64)
    values = torch.zeros(count, len(KEYS), *mean.shape)
    values[:, KEYS.index(key)] = mean.float()
    return report_on(moments_of(values, [0] * count))


class TestRanking:
    MEAN = ((0.5, 0.125, 3.0), (0.0, 0.25, 0.125))

    def test_top_heads(self):
        report = report_of_means(self.MEAN)
        assert report.top_heads(2) == [(0, 2, 3.0), (0, 0, 0.5)]
        assert len(report_of_means([[0.0] * 4] * 3).top_heads()) == 10
        assert report_of_means([[-3.0, 1.0, 0.0]], "contribution").top_heads(3, score="contribution") == [
            (0, 1, 1.0),
            (0, 2, 0.0),
            (0, 0, -3.0),
        ]

    @pytest.mark.parametrize(
        ("ratio", "heads"),
        [
            (0, []),
            (0.16, []),
            (1 / 6, [(1, 0)]),
            (0.5, [(1, 0), (0, 1), (1, 2)]),
            (1, [(1, 0), (0, 1), (1, 2), (1, 1), (0, 0), (0, 2)]),
        ],
    )
    def test_prunable_heads(self, ratio, heads):
        assert report_of_means(self.MEAN).prunable_heads(ratio) == heads

    def test_a_share_in_hundredths_is_not_one_short(self):
        report = report_of_means(np.arange(100.0).reshape(10, 10).tolist())
        assert [len(report.prunable_heads(percent / 100)) for percent in range(101)] == list(range(101))
        assert report_of_means([[0.0] * 10] * 10).prunable_heads(1) == [divmod(place, 10) for place in range(100)]

    @pytest.mark.parametrize("ratio", [-0.1, 1.01, math.nan, "0.1", None, True])
    def test_no_share(self, ratio):
        with pytest.raises(ArgumentError) as caught:
            report_of_means(self.MEAN).prunable_heads(ratio)
        assert str(caught.value) == f"`ratio` must be a share in [0, 1]; got {ratio!r}."


class TestClassWeights:
    @pytest.mark.parametrize("norm", ["l1", "l2"])
    def test_those_of_a_class_where_there_are_enough_explanations(self, norm):
        report = make_report(num_explanations=100, seed=5)
        values, groups = explanations(num_explanations=100, seed=5)
        classes = torch.tensor([[4, 0], [2, 2], [3, 1]])  # 4 has none, 3 has one, the others have many
        weights, from_class = report.class_weights(classes, norm)
        assert weights.shape == (3, 2, 3, 4)
        assert weights.dtype == torch.float32
        assert from_class.tolist() == [[False, True], [True, True], [False, True]]
        assert_close(weights.sum(-1), np.ones((3, 2, 3)), 1e-6)
        for place in np.ndindex(3, 2):
            index = int(classes[place])
            chosen = groups // 3 == index if index < 3 else groups >= 0
            assert_close(weights[place], numpy_means(values, chosen, f"{norm}_weight"), 1e-6)

    @pytest.mark.parametrize(
        ("count", "is_enough", "expected"),
        [(MIN_CLASS_EXPLANATIONS - 1, False, [[0.375, 0.625]]), (MIN_CLASS_EXPLANATIONS, True, [[0.25, 0.75]])],
    )
    def test_the_limit(self, count, is_enough, expected):
        # So many explanations of class 0, all outcomes together, and as many of class 1.
        shares = torch.tensor([[0.25, 0.75]] * count + [[0.5, 0.5]] * count)[:, None, None].expand(-1, 6, 1, 2)
        groups = [place % 3 for place in range(count)] + [3] * count
        weights, from_class = report_on(moments_of(shares, groups, num_classes=2)).class_weights(torch.tensor(0))
        assert from_class.item() is is_enough
        assert_close(weights, expected, 1e-7)

    def test_shapes_and_dtypes(self):
        report = make_report()
        for classes in (torch.tensor(1), torch.zeros(0, dtype=torch.int64), torch.ones(2, 1, 3, dtype=torch.int32)):
            weights, from_class = report.class_weights(classes)
            assert weights.shape == (*classes.shape, 3, 4)
            assert from_class.shape == classes.shape

    @pytest.mark.parametrize(
        ("classes", "norm", "reason"),
        [
            ([5], "l1", "`classes` must be in [0, 4]; some are not."),
            ([-1], "l1", "`classes` must be in [0, 4]; some are not."),
            ([1.0], "l1", "`classes` must hold class indices; got dtype float32."),
            ([True], "l1", "`classes` must hold class indices; got dtype bool."),
            ([1], "l3", '`norm` must be one of "l1", "l2"; got \'l3\'.'),
        ],
    )
    def test_errors(self, classes, norm, reason):
        with pytest.raises(ArgumentError) as caught:
            make_report().class_weights(torch.tensor(classes), norm)
        assert str(caught.value) == reason


class TestMerge:
    def test_it_equals_one_survey_of_both(self):
        first = make_report(
            num_explanations=70,
            seed=1,
            unreadable=[{"image": "a", "reason": "b"}],
            counts={"num_unreadable": 3},
            license="mit",
        )
        second = make_report(
            num_explanations=30, seed=2, datasets=dataset(fingerprint="others"), date="2027-01-01T00:00:00+00:00"
        )
        merged = first.merge(second)
        parts = [explanations(num_explanations=count, seed=seed) for count, seed in ((70, 1), (30, 2))]
        values, groups = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        together = moments_of(values, groups, num_classes=5)
        assert torch.equal(merged.moments.count, together.count)
        assert_close(merged.moments.mean, together.mean.numpy())
        assert_close(merged.moments.squares, together.squares.numpy(), 1e-11)
        settings = merged.settings
        assert settings["counts"] == {
            "num_images": 100,
            "num_explanations": 100,
            "num_unreadable": 3,
            **{f"num_{outcome}": int((groups % 3 == place).sum()) for place, outcome in enumerate(OUTCOMES)},
        }
        assert [entry["fingerprint"] for entry in settings["datasets"]] == ["0011223344556677", "others"]
        assert settings["unreadable"] == [{"image": "a", "reason": "b"}]
        assert settings["license"] is None
        assert settings["date"] == "2027-01-01T00:00:00+00:00"
        assert first.num_images == 70  # neither has changed
        assert first.moments.count.sum() == 70
        with pytest.raises(ArgumentError, match="whose images would count twice"):
            merged.merge(second)

    def test_what_differs_is_not_claimed(self):
        first = make_report(
            survey={"batch_size": 8, "limit": 50}, stability={"tolerance": 0.1, "reached": True, "num_images": 9}
        )
        second = make_report(
            datasets=dataset(split="train"),
            survey={"batch_size": 64, "limit": 50},
            model={"id": "a local copy", "is_local": True, "dtype": "bfloat16"},
            versions={"torch": "2.14.0", "gmar_hf": "0.1.0", "accelerate": "1.15.0"},
        )
        for settings, dtype, torch_version in (
            (first.merge(second).settings, "float32 and bfloat16", "2.13.0 and 2.14.0"),
            (second.merge(first).settings, "bfloat16 and float32", "2.14.0 and 2.13.0"),
        ):
            assert settings["survey"]["batch_size"] is None
            assert settings["survey"]["limit"] == 50
            assert settings["stability"] is None
            assert (settings["model"]["id"], settings["model"]["is_local"]) == ("somebody/tiny-vit", False)
            assert settings["model"]["dtype"] == dtype
            assert settings["versions"] == {
                "torch": torch_version,
                "gmar_hf": "0.1.0",
                "transformers": "5.23.0",
                "accelerate": "1.15.0",
            }

    def test_unreadable_images_are_named_up_to_a_thousand(self):
        many = [{"image": f"{index}", "reason": "broken"} for index in range(700)]
        first, second = (
            make_report(unreadable=many, counts={"num_unreadable": 700}, datasets=dataset(fingerprint=name))
            for name in ("first", "second")
        )
        settings = first.merge(second).settings
        assert settings["counts"]["num_unreadable"] == 1400
        # In the order of their names, as a survey has them: both "0", both "1", both "10", ...
        assert [entry["image"] for entry in settings["unreadable"]] == sorted(2 * [*map(str, range(700))])[:1000]

    def test_weights_rounded_to_bfloat16_are_the_same(self):
        first = make_report()
        second = make_report(datasets=dataset(split="train"), seed=8)
        second.weight_sample = second.weight_sample.bfloat16().float()
        assert first.merge(second).num_images == 120

    @pytest.mark.parametrize(
        ("changed", "reason"),
        [
            ({"model": {"class": "DeiTForImageClassification"}}, "the same model; got another class, 'DeiTFor"),
            ({"layers": 4}, "the same model; got another number of layers, 4 for 3."),
            ({"heads": 5}, "the same model; got another number of heads, 5 for 4."),
            ({"num_classes": 6}, "the same model; got one with other labels."),
            ({"model": {"labels": list("abcde")}}, "the same model; got one with other labels."),
            ({"target": "label", "counts": {"num_wrong": 60, "num_correct": 0}}, "target 'predicted'; got 'label'"),
            ({"datasets": dataset()}, r"other images; got 'somebody/pictures' \(split 'validation'\) in both"),
        ],
    )  # fmt: skip
    def test_refused(self, changed, reason):
        second = make_report(**{"datasets": dataset(fingerprint="others"), **changed})
        with pytest.raises(ArgumentError, match=reason):
            make_report().merge(second)

    def test_weights_and_things_that_differ(self):
        report, second = make_report(), make_report(datasets=dataset(fingerprint="others"))
        second.weight_sample = second.weight_sample + 0.1
        with pytest.raises(ArgumentError, match="the same model; got one with other weights"):
            report.merge(second)
        for method in (report.merge, report.compare):
            with pytest.raises(ArgumentTypeError, match="`other` must be a HeadImportanceReport; got str"):
                method("me/report")


def test_compare():
    first, second = make_report(num_explanations=200), make_report(num_explanations=30, num_classes=2)
    assert first.compare(second) == compare_statistics(first.overall, second.overall)


def test_plot():
    report = make_report()
    figure = report.plot()
    assert isinstance(figure, matplotlib.figure.Figure)
    images = [ax.images[0].get_array() for ax in figure.axes if ax.images]
    for image, key in zip(images, ("contribution_abs", "contribution", "l1_weight"), strict=False):
        assert_close(image, report.mean[key].numpy())
    part = matplotlib.figure.Figure().subfigures(1, 2)[1]
    assert report.plot(part) is part


class TestPandas:
    def test_one_row_a_head(self):
        pandas = pytest.importorskip("pandas")
        report = make_report()
        table = report.to_pandas()
        assert isinstance(table, pandas.DataFrame)
        assert len(table) == 12
        assert list(table.columns[:5]) == ["layer", "head", "l1", "l1_std", "l1_standard_error"]
        assert len(table.columns) == 2 + 3 * len(KEYS)
        row = table[(table["layer"] == 2) & (table["head"] == 1)].iloc[0]
        for key in KEYS:
            assert row[key] == report.mean[key][2, 1]
            assert row[f"{key}_std"] == report.std[key][2, 1]
            assert row[f"{key}_standard_error"] == report.standard_error[key][2, 1]

    def test_without_pandas(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "pandas", None)
        with pytest.raises(GMARError, match=r"must have pandas, which is not installed\. Run `pip install pandas`\."):
            make_report().to_pandas()


class TestSettings:
    def test_they_are_a_copy(self):
        moments = make_moments()
        settings = made_settings(moments)
        report = HeadImportanceReport(moments, torch.zeros(3), settings)
        settings["model"]["labels"].clear()
        assert len(report.labels) == 5

    @pytest.mark.parametrize(
        "weights", [torch.zeros(3, dtype=torch.float64), torch.zeros(1, 3), torch.tensor([torch.nan])]
    )
    def test_weights(self, weights):
        moments = make_moments()
        with pytest.raises(
            ArgumentError, match=r"`weight_sample` must have shape \(values,\) and be float32 and finite"
        ):
            HeadImportanceReport(moments, weights, made_settings(moments))
