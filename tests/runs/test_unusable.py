"""One image on which a model's numbers are NaN costs a run that image, by name, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import gmar_hf
from gmar_hf import demo
from gmar_hf.errors import ArgumentError
from gmar_hf.evaluation import MapMethod
from gmar_hf.explanation.finiteness import of_images

NUM_IMAGES, BAD = 7, 3
LOGITS = "The logits must be finite; got NaN or infinity. Check `pixel_values`"


@pytest.fixture(scope="module")
def vit():
    return demo.load("vit")[0]


def data(*bad: int, fill: float = torch.nan) -> list[dict[str, torch.Tensor]]:
    items = [{"pixel_values": torch.randn(3, 64, 64, generator=torch.Generator().manual_seed(n))} for n in range(7)]
    for index in bad:
        items[index]["pixel_values"][0, 0, 0] = fill
    return items


def good(*bad: int) -> list[dict[str, torch.Tensor]]:
    return [item for index, item in enumerate(data()) if index not in bad]


@pytest.mark.parametrize("batch_size", [pytest.param(1, marks=pytest.mark.slow), 4, 7])
def test_a_survey_leaves_it_out(vit, batch_size):
    report = gmar_hf.survey(vit, data(BAD), batch_size=batch_size, max_unreadable=0.2, top_images=2)
    assert report.settings["counts"]["num_unreadable"] == 1
    assert report.settings["counts"]["num_images"] == NUM_IMAGES - 1
    (told,) = report.settings["unreadable"]
    assert told["image"] == f"item {BAD}"
    assert told["reason"].startswith(LOGITS)
    expected = gmar_hf.survey(vit, good(BAD), batch_size=batch_size)
    torch.testing.assert_close(report.mean["l1"], expected.mean["l1"], rtol=1e-6, atol=0)


def test_within_the_same_limit(vit):
    for ask in (gmar_hf.survey, evaluate):
        with pytest.raises(ArgumentError) as caught:
            ask(vit, data(BAD, 5), batch_size=4, max_unreadable=0)
        assert "more unreadable images than a share of 0; got 1 of 7 so far: 'item 3'." in str(caught.value)
        assert f"The first: {LOGITS}" in str(caught.value)


def test_pixel_values_that_the_dtype_does_not_hold():
    model = demo.load("vit")[0].half()
    report = gmar_hf.survey(model, data(BAD, fill=1e6), batch_size=4, max_unreadable=0.2)
    (told,) = report.settings["unreadable"]
    assert told["image"] == "item 3"
    assert "`pixel_values` must lie in what the model computes with" in told["reason"]


def evaluate(model, items, **kwargs):
    kwargs = {"methods": ["contribution"], "metrics": ["sparseness"], **kwargs}
    return gmar_hf.evaluate(model, items, **kwargs)


@pytest.mark.parametrize("batch_size", [pytest.param(1, marks=pytest.mark.slow), 4])
def test_an_evaluation_leaves_it_out(vit, batch_size):
    found = evaluate(vit, data(BAD), batch_size=batch_size, max_unreadable=0.2)
    assert found.settings["counts"]["num_unreadable"] == 1
    assert found.settings["unreadable"][0]["image"] == "item 3"
    assert [row.index for row in found.rows] == [0, 1, 2, 4, 5, 6]
    expected = evaluate(vit, good(BAD), batch_size=batch_size)
    np.testing.assert_allclose(found.values, expected.values, rtol=1e-5)


def test_a_map_that_is_not_finite(vit):
    def draw(model, pixel_values, target):
        maps = pixel_values[:, 0, ::8, ::8].clone()
        maps[pixel_values[:, 0, 0, 0] == 100] = torch.nan
        return maps

    method = MapMethod("mine", draw)
    found = evaluate(vit, data(BAD, fill=100), methods=["random", method], batch_size=4, max_unreadable=0.2)
    (told,) = found.settings["unreadable"]
    assert told["image"] == "item 3"
    assert told["reason"].startswith("`methods` must give finite maps")
    assert len(found.rows) == NUM_IMAGES - 1


def test_explain_names_the_images(vit):
    pixels = torch.stack([item["pixel_values"] for item in data(1, BAD)])
    with pytest.raises(gmar_hf.NonFiniteError, match=r"infinity for image\(s\) \[1, 3\] of the batch\. Check"):
        gmar_hf.explain(vit, pixels)
    with pytest.raises(gmar_hf.NonFiniteError, match=r"got NaN or infinity\. Check"):
        gmar_hf.explain(vit, pixels[1:2])
    root = lambda logits: (logits[:, 0] - logits[0, 0].detach()).clamp(min=0).sqrt()  # noqa: E731
    with pytest.raises(
        gmar_hf.NonFiniteError, match=r"infinity for image\(s\) \[0.* of the batch\. Check that `target`"
    ):
        gmar_hf.explain(vit, pixels[[0, 2]], root)
    assert of_images(torch.ones(2), torch.tensor([0.0, torch.nan])) == " for image(s) [1] of the batch"
