"""Figures of an evaluation: intervals against a plain loop, differences, subsets, and the file."""

import dataclasses

import numpy as np
import pytest

from gmar_hf import ArgumentError, ArtifactError
from gmar_hf.evaluation import Evaluation, Metric, Row
from gmar_hf.evaluation.bootstrap import Bootstrap
from gmar_hf.evaluation.evaluation_checkpoint import Measured
from gmar_hf.evaluation.results import FORMAT

METHODS = ("contribution", "rollout", "gmar-l1")


def made(values: np.ndarray, images: list[int], methods: tuple[str, ...] = METHODS) -> Evaluation:
    """An evaluation of these figures (rows, methods, metrics)."""
    return Evaluation(
        settings={"model": {"id": "me/model"}},
        methods=[{"name": name, "forwards": 2.0, "baseline": None, "milliseconds": 1.5} for name in methods],
        metrics=[Metric(f"metric_{place}", f"metric_{place}", None, True) for place in range(values.shape[2])],
        rows=[Row(f"{image}.png", 0, "cat", 0.5, image % 2 == 0, image) for image in images],
        values=values,
        curves={"insertion": np.arange(6.0).reshape(3, 2), "shares": np.array([0.0, 1.0])},
    )


def drawn_means(images: list[int], values: np.ndarray, num_draws: int = 20_000, seed: int = 5) -> np.ndarray:
    """A bootstrap over images by hand: every draw picks images one by one, with all rows of theirs."""
    generator = np.random.default_rng(seed)
    names = sorted(set(images))
    rows = {name: [value for image, value in zip(images, values, strict=True) if image == name] for name in names}
    means = []
    for _ in range(num_draws):
        chosen = [value for place in generator.integers(0, len(names), len(names)) for value in rows[names[place]]]
        means.append(np.mean(chosen))
    return np.array(means)


def test_the_interval_is_that_of_drawing_whole_images():
    generator = np.random.default_rng(0)
    images = [place for place in range(40) for _ in range(1 + place % 3)]
    values = generator.normal(size=40).repeat([1 + place % 3 for place in range(40)]) + 3  # rows of an image agree
    expected = np.quantile(drawn_means(images, values), [0.025, 0.975])
    found = Bootstrap(images, num_draws=20_000).interval(values)
    assert found["mean"] == pytest.approx(values.mean())
    assert [found["low"], found["high"]] == pytest.approx(expected, abs=0.02)
    by_row = Bootstrap(range(len(images)), num_draws=20_000).interval(values)
    assert by_row["high"] - by_row["low"] < 0.9 * (found["high"] - found["low"])  # rows alone would be too sure


def test_rows_without_a_figure_are_left_out():
    values = np.array([1.0, np.nan, 3.0, np.nan])
    found = Bootstrap([0, 0, 1, 2]).interval(values)
    assert (found["mean"], found["num_rows"]) == (2.0, 2)
    assert 1.0 <= found["low"] <= found["high"] <= 3.0
    nothing = Bootstrap([0, 1]).interval(np.full(2, np.nan))
    assert nothing == {"mean": None, "low": None, "high": None, "num_rows": 0}


def test_one_image_has_a_mean_but_no_interval():
    found = Bootstrap([7, 7]).interval(np.array([1.0, 2.0]))
    assert found == {"mean": 1.5, "low": None, "high": None, "num_rows": 2}


def test_the_same_images_are_drawn_for_all():
    """A method that is always better by one is so in every draw."""
    values = np.random.default_rng(1).normal(size=(30, 3, 1)) * 10
    values[:, 0] = values[:, 1] + 1
    summary = made(values, list(range(30))).summary()
    difference = summary["contribution"]["metric_0"]["minus_rollout"]
    assert [difference[name] for name in ("mean", "low", "high")] == pytest.approx([1.0, 1.0, 1.0])
    assert "minus_rollout" not in summary["rollout"]["metric_0"]
    assert "minus_gmar-l1" in summary["rollout"]["metric_0"]


def test_without_a_reference_there_is_no_difference():
    summary = made(np.ones((2, 1, 1)), [0, 1], methods=("contribution",)).summary()
    assert set(summary["contribution"]["metric_0"]) == {"mean", "low", "high", "num_rows"}


def test_a_subset_has_the_figures_of_its_rows():
    values = np.arange(12.0).reshape(4, 3, 1)
    whole = made(values, [0, 0, 1, 2])
    part = whole.subset(row.labels_first for row in whole.rows)
    assert [row.index for row in part.rows] == [0, 0, 2]
    assert part.num_images == 2
    assert part.of("rollout", "metric_0").tolist() == [1.0, 4.0, 10.0]
    with pytest.raises(ArgumentError, match="`rows` must hold one bool for each of the 4 rows; got 2"):
        whole.subset([True, False])


def test_maps_on_the_same_rows_stand_side_by_side():
    values = np.arange(12.0).reshape(2, 3, 2)
    whole = made(values, [0, 1])

    def part(first, last, **changed):
        parts = {**vars(whole), "methods": whole.methods[first:last], "values": values[:, first:last]}
        curves = {"insertion": whole.curves["insertion"][first:last], "shares": whole.curves["shares"]}
        return Evaluation(**{**parts, "curves": curves, **changed})

    joined = Evaluation.join([part(0, 2), part(2, 3)])
    assert joined.values.tolist() == values.tolist()
    assert (joined.methods, joined.metrics, joined.rows) == (whole.methods, whole.metrics, whole.rows)
    assert {name: curve.tolist() for name, curve in joined.curves.items()} == {
        name: curve.tolist() for name, curve in whole.curves.items()
    }
    assert Evaluation.join([part(0, 2), part(2, 3, curves={})]).curves == {}
    assert Evaluation.join([part(2, 3), part(0, 1)]).of("contribution", "metric_1").tolist() == [1.0, 7.0]

    # They must be of the same rows, metrics and settings, and of different maps.
    swapped = whole.rows[::-1]
    with pytest.raises(ArgumentError, match=r"`parts` must have the same rows \(images and their explained classes\)"):
        Evaluation.join([part(0, 2), part(2, 3, rows=swapped)])
    with pytest.raises(ArgumentError, match="`parts` must have the same metrics; they differ"):
        Evaluation.join([part(0, 2), part(2, 3, metrics=whole.metrics[::-1])])
    with pytest.raises(ArgumentError, match=r"the same settings \(num_steps\)"):
        Evaluation.join([part(0, 2), part(2, 3, settings={**whole.settings, "num_steps": 8})])
    with pytest.raises(ArgumentError, match="must be of different maps; got 'rollout' twice"):
        Evaluation.join([part(0, 2), part(1, 3)])
    with pytest.raises(ArgumentError, match="must hold at least one evaluation"):
        Evaluation.join([])


def test_unknown_names_are_told_the_known_ones():
    with pytest.raises(ArgumentError, match="`method` must be one of contribution, rollout, gmar-l1; got 'gmar'"):
        made(np.ones((1, 3, 1)), [0]).of("gmar", "metric_0")
    with pytest.raises(ArgumentError, match="`metric` must be one of metric_0; got 'saco'"):
        made(np.ones((1, 3, 1)), [0]).of("rollout", "saco")


def test_figures_of_another_shape_are_refused():
    with pytest.raises(ArgumentError, match=r"`values` must be of shape \(rows, methods, metrics\), \(1, 3, 1\)"):
        Evaluation(**{**vars(made(np.ones((1, 3, 1)), [0])), "values": np.ones((1, 2, 1))})


def test_the_file_gives_back_every_figure(tmp_path):
    values = np.random.default_rng(2).normal(size=(3, 3, 2))
    values[1, 2, 0] = np.nan
    before = made(values, [0, 1, 1])
    before.save(tmp_path / "rows.safetensors")
    after = Evaluation.load(tmp_path / "rows.safetensors")
    assert np.array_equal(after.values, values, equal_nan=True)
    assert (after.rows, after.metrics, after.methods) == (before.rows, before.metrics, before.methods)
    assert after.settings == before.settings
    assert np.array_equal(Evaluation.load(tmp_path).values, values, equal_nan=True)  # its folder will do
    assert repr(after) == (
        "Evaluation(2 images, 3 rows; methods: contribution, rollout, gmar-l1; metrics: metric_0, metric_1)"
    )
    assert {name: curve.tolist() for name, curve in after.curves.items()} == {
        name: curve.tolist() for name, curve in before.curves.items()
    }


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "rows.safetensors"
    with pytest.raises(ArtifactError, match=r"an evaluation \(rows.safetensors"):
        Evaluation.load(path)
    path.write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
    with pytest.raises(ArtifactError, match=r"must be an evaluation .*; it is something else.*gmar-hf evaluate"):
        Evaluation.load(path)
    made(np.ones((1, 3, 1)), [0]).save(path)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ArtifactError, match="it cannot be used"):
        Evaluation.load(path)


def test_files_whose_figures_are_not_as_they_say_are_refused(tmp_path):
    good = made(np.arange(18.0).reshape(3, 3, 2), [0, 1, 1])
    path = tmp_path / "rows.safetensors"
    good.save(path)
    with FORMAT.reading(path) as artifact:
        content, tensors = artifact.content, artifact.tensors

    def refusal(changed_content, **changed_tensors):
        whole = {**content, **changed_content} if isinstance(changed_content, dict) else changed_content
        FORMAT.write(path, whole, {**tensors, **changed_tensors})
        with pytest.raises(ArtifactError, match=r"must be an evaluation .*; it cannot be used") as refused:
            Evaluation.load(path)
        return str(refused.value)

    method, metric, row = (content[name][0] for name in ("methods", "metrics", "rows"))
    assert "`content` must be an object; got 1 entries" in refusal([1])
    assert "must have an object as 'settings'; got 'text'" in refusal({"settings": "text"})
    assert "must have a string as 'methods[0].name'; got 5" in refusal({"methods": [{**method, "name": 5}]})
    assert "as 'methods[0].forwards'; got 'two'" in refusal({"methods": [{**method, "forwards": "two"}]})
    assert "as 'metrics[0].higher_is_better'; got 1" in refusal({"metrics": [{**metric, "higher_is_better": 1}]})
    assert "as 'rows[0].target'; got -1" in refusal({"rows": [{**row, "target": -1}]})
    assert "as 'rows[0].score'; got 1000000" in refusal({"rows": [{**row, "score": 10**30}]})
    assert "must name every map and figure once" in refusal({"methods": [method] * 3})
    assert "must name every map and figure once" in refusal({"metrics": [metric] * 2})
    refusal({"rows": [{**row, "more": 1}] * 3})
    refusal({"rows": content["rows"][:2]})

    # Arrays of other shapes and types, and numbers that no figure is.
    values, curve, shares = (tensors[name] for name in ("values", "curves.insertion", "curves.shares"))
    for other in (values[0], values[:2], values.float(), values.long(), values / 0):
        assert "`values` must be of shape (3, 3, 2), float64" in refusal({}, values=other)
    for other in (curve[0], curve[:2], curve[:, :1], curve.float(), curve * np.nan):
        assert "`curves.insertion` must be of shape (3, 2), float64 and finite" in refusal(
            {}, **{"curves.insertion": other}
        )
    for other in (shares[0], shares[None], shares.float()):
        assert "`shares` must be of shape (points,)" in refusal({}, **{"curves.shares": other})


def test_checkpoints_whose_figures_are_not_as_they_say_are_refused(tmp_path):
    path = tmp_path / "batch.safetensors"
    good = Measured(
        number=3, rows=[Row("a.png", 0, "cat", 0.5, None, 0)], values=np.ones((1, 2, 1)),
        curves={"insertion": np.ones((2, 5))}, curve_rows={"insertion": 1}, seconds=[0.1, 0.2], num_maps=1,
        forwards=[1.0, None], settings={"methods": ["a", "b"], "metrics": ["insertion"]},
    )  # fmt: skip
    good.save(path)
    assert Measured.load(path).rows == good.rows
    Measured(number=0, rows=[], values=np.zeros((0, 2, 1)), settings=good.settings).save(path)
    assert Measured.load(path).rows == []  # of a batch of which nothing could be read

    first = dataclasses.replace(
        good, values=good.values[:, :1], curves={"insertion": np.ones((1, 5))}, seconds=[0.1], forwards=[1.0]
    )
    for part, done in ((good, {3}), (first, set())):  # of a batch that was stopped behind its first map
        part.save(path)
        assert Measured.load(path).done == done

    counts = {"num_images": "all", "num_unlabelled": 0, "num_unreadable": 0}
    for changed in (
        {"number": -1}, {"number": "3"}, {"curve_rows": {}}, {"curve_rows": {"insertion": 1.5}}, {"seconds": [0.1]},
        {"seconds": [None, None]}, {"forwards": []}, {"num_maps": 0}, {"counts": counts}, {"counts": {}},
        {"unreadable": [{}]}, {"unreadable": "none"}, {"settings": {}}, {"values": np.ones((1, 2, 2))},
        {"values": np.full((1, 2, 1), np.inf)}, {"curves": {"insertion": np.full((2, 5), np.nan)}},
        {"curves": {"insertion": np.ones(5)}}, {"settings": {"methods": ["a"], "metrics": ["insertion"]}},
    ):  # fmt: skip
        dataclasses.replace(good, **changed).save(path)
        with pytest.raises(ArtifactError, match="must be a checkpoint of an evaluation; it cannot be used"):
            Measured.load(path)
