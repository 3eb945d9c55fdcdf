"""A survey of attention inside windows, whose layers have different numbers of heads: numbers, files, rankings."""

import copy
import math

import numpy as np
import pytest
import torch

import gmar_hf
from gmar_hf.errors import ArgumentError, UnsupportedModelError
from gmar_hf.evaluation import DEFAULT_METHODS
from gmar_hf.evaluation.maps.map_lookup import default_methods
from gmar_hf.report.page import PAGE_FILE
from gmar_hf.surveys.scoring import score_heads
from tests.helpers import hiera_oracle, reduced_oracle, window_oracle, zoo
from tests.helpers.explainers import image_processor, photo

HEADS = [1, 1, 2, 2, 4]
NUM_IMAGES = 4


@pytest.fixture(scope="module")
def model():
    model = zoo.swin_padded()
    model.config.id2label = dict(enumerate("abcde"))
    return model


@pytest.fixture(scope="module")
def processor():
    return image_processor(zoo.image_size(zoo.swin_padded()))


@pytest.fixture(scope="module")
def survey(model, processor, tmp_path_factory):
    folder = tmp_path_factory.mktemp("survey")
    samples = [{"image": photo(seed), "label": seed % 2} for seed in range(NUM_IMAGES)]
    report = gmar_hf.survey(model, samples, processor, target="label", batch_size=2, output_dir=folder, top_images=2)
    return report, folder


def close(actual, expected) -> bool:
    """Whether numbers agree to a share of the largest; NaN of heads that a layer lacks on both sides."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert np.array_equal(np.isnan(actual), np.isnan(expected))
    return np.nanmax(np.abs(actual - expected)) < 1e-5 * np.nanmax(np.abs(expected))


ORACLES = {
    "swin_padded": window_oracle.reference_runs,
    "segformer": reduced_oracle.reference_runs,
    "pvt": reduced_oracle.reference_runs,
    "hiera": hiera_oracle.reference_runs,
}


@pytest.mark.parametrize(
    "name", ["swin_padded", "pvt", *(pytest.param(name, marks=pytest.mark.slow) for name in ("segformer", "hiera"))]
)
def test_scores_are_those_of_the_oracle(name):
    model = zoo.STAGED[name]()
    images = zoo.pixel_values(model)
    scores = score_heads(model, images, torch.tensor([1, 3]))
    for image, run in enumerate(ORACLES[name](model, images, [1, 3])):
        l1, l2 = (np.full((len(run.layers), run.num_heads), np.nan) for _ in range(2))
        for index, layer in enumerate(run.layers):
            l1[index, : layer.num_heads] = np.abs(layer.gradient).sum(axis=(0, 2, 3))
            l2[index, : layer.num_heads] = np.sqrt(np.square(layer.gradient).sum(axis=(0, 2, 3)))
        contribution = window_oracle.head_contributions(run)
        shares = [norm / np.nansum(norm, axis=1, keepdims=True) for norm in (l1, l2)]
        for got, expected in zip(
            scores.values[image], (l1, l2, *shares, contribution, np.abs(contribution)), strict=True
        ):
            assert close(got, expected)


@pytest.mark.parametrize(
    "name", ["swin_padded", "segformer", pytest.param("hiera", marks=pytest.mark.slow)]
)  # a class token, as PVT's, has a position of its own
def test_habits_are_those_of_the_maps_tokens(name):
    """Of one image: contribution less `<mean O, sum dO>` is what the oracle centres on the image's own mean."""
    model = zoo.STAGED[name]()
    images = zoo.pixel_values(model, batch=1)
    scores = score_heads(model, images, torch.tensor([1]))
    (run,) = ORACLES[name](model, images, [1])
    assert close(scores.values[0, 4] - scores.means.habit, window_oracle.centred_head_contributions(run))


def test_class_tokens_have_a_position_of_their_own():
    """Of PVT's layers the last alone has one."""
    model = zoo.pvt()
    means = score_heads(model, zoo.pixel_values(model), torch.tensor([1, 3])).means
    assert means.output.shape[:3] == (4, 2, 2)
    assert means.output[:3, :, 0].eq(0).all()
    assert means.output[3, :, 0].ne(0).all()
    # The head reads the class token alone.
    assert means.gradient[3, :, 0].ne(0).any()
    assert means.gradient[3, :, 1].eq(0).all()


def test_means_and_rankings(survey):
    report, _ = survey
    assert report.settings["model"]["heads_by_layer"] == HEADS
    for statistics in (report.overall, report.per_class("a"), report.correct, report.wrong):
        if statistics.num_explanations:
            assert statistics.num_heads == sum(HEADS)
            assert (~statistics.mean["contribution_abs"].isnan()).sum(dim=1).tolist() == HEADS
    ranked = report.top_heads(sum(HEADS))
    assert sorted((layer, head) for layer, head, _ in ranked) == [
        (layer, head) for layer, heads in enumerate(HEADS) for head in range(heads)
    ]
    assert [value for *_, value in ranked] == sorted((value for *_, value in ranked), reverse=True)
    with pytest.raises(ArgumentError, match=r"`k` must be a whole number .*; got 11"):
        report.top_heads(sum(HEADS) + 1)
    assert report.prunable_heads(1.0) == [(layer, head) for layer, head, _ in reversed(ranked)]
    weights, _ = report.class_weights(torch.tensor([0]))
    torch.testing.assert_close(weights.nansum(dim=-1), torch.ones(1, len(HEADS)))
    assert [len(heads) for heads in report.settings["top_images"]["heads"]] == [4] * len(HEADS)
    assert report.settings["top_images"]["heads"][0][1:] == [[], [], []]
    with pytest.raises(ArgumentError, match="`head` must be"):
        report.top_images(0, 1)
    assert "5 layers of 1, 1, 2, 2, 4 heads" in repr(report)


def test_files_cards_and_pages(survey):
    report, folder = survey
    loaded = gmar_hf.HeadImportanceReport.from_pretrained(folder)
    for key, mean in report.mean.items():
        assert torch.equal(loaded.mean[key].nan_to_num(), mean.nan_to_num())
    assert "of 5 layers of 1, 1, 2, 2, 4 heads" in (folder / "README.md").read_text()
    for name in ("README.md", PAGE_FILE):
        assert "nan" not in (folder / name).read_text().lower().split()
    assert "of 10 heads make half of all contributions" in (folder / PAGE_FILE).read_text()
    # GMAR has no place here, nor have its head weights.
    assert "head_weights=" not in (folder / "README.md").read_text()
    assert len(report.to_pandas()) == sum(HEADS)
    assert report.plot() is not None
    assert "figcaption" in report._repr_html_()


def test_reports_side_by_side(survey, model, processor):
    report, _ = survey
    other = gmar_hf.survey(model, [{"image": photo(9), "label": 1}], processor, target="label")
    comparison = report.compare(other)
    assert not any(math.isnan(value) for value in comparison.rank_correlation.values())
    assert all(head["head"] < HEADS[head["layer"]] for head in comparison.moved)
    merged = report.merge(other)
    assert merged.num_images == NUM_IMAGES + 1
    assert (~merged.mean["l1"].isnan()).sum(dim=1).tolist() == HEADS


def test_a_survey_goes_on(model, processor, survey, tmp_path, monkeypatch):
    samples = [{"image": photo(seed), "label": seed % 2} for seed in range(NUM_IMAGES)]
    from gmar_hf.surveys import explained_batch

    num_calls = []

    def stop(*args, **kwargs):
        num_calls.append(1)
        if len(num_calls) > 1:
            raise KeyboardInterrupt
        return score_heads(*args, **kwargs)

    monkeypatch.setattr(explained_batch, "score_heads", stop)
    arguments = {"target": "label", "batch_size": 2, "output_dir": tmp_path, "top_images": 2}
    with pytest.raises(KeyboardInterrupt):
        gmar_hf.survey(model, samples, processor, **arguments)
    monkeypatch.undo()
    report = gmar_hf.survey(model, samples, processor, **arguments)
    assert torch.equal(report.mean["contribution"].nan_to_num(), survey[0].mean["contribution"].nan_to_num())


@pytest.mark.parametrize(
    ("by_layer", "words"),
    [
        ([1, 1, 2, 2], "must have the heads of 5 layers, 4 at most"),
        ([1, 1, 2, 2, 5], "must have the heads of 5 layers, 4 at most"),
        ([1, 1, 2, 3, 4], "`moments` must be finite"),
        (None, "`moments` must be finite"),
        ("1", "must have a list as 'model.heads_by_layer'"),
    ],
)
def test_settings_that_do_not_fit(survey, by_layer, words):
    report, _ = survey
    settings = copy.deepcopy(dict(report.settings))
    settings["model"]["heads_by_layer"] = by_layer
    with pytest.raises(ArgumentError, match=words):
        gmar_hf.HeadImportanceReport(report.moments, report.weight_sample, settings, report.means)


def test_what_is_not_defined(model, processor, survey):
    images = zoo.pixel_values(model)
    with pytest.raises(UnsupportedModelError, match="its layers stand in stages"):
        gmar_hf.centred_head_contribution(model, images, 1, reference=images)
    with pytest.raises(UnsupportedModelError, match="its layers stand in stages"):
        gmar_hf.survey(model, [{"image": photo()}], processor, describe_heads=True)
    with pytest.raises(ArgumentError, match="`method` must be one of"):
        gmar_hf.explain(model, images, head_weights=survey[0])


def test_default_maps_are_those_that_are_defined(model):
    names = default_methods(model)
    assert {"contribution", "removal", "path", "recommended", "random"} <= set(names)
    assert not {"gmar-l1", "rollout", "legrad", "attention", "gmar-shuffled"} & set(names)
    assert default_methods(zoo.vit()) == list(DEFAULT_METHODS)


@pytest.mark.slow
def test_an_evaluation(model, processor):
    evaluation = gmar_hf.evaluate(
        model, [{"image": photo(seed)} for seed in range(2)], processor, metrics=["sparseness"]
    )
    assert [method["name"] for method in evaluation.methods] == default_methods(model)
