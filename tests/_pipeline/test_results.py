"""What the pipeline gives: still dicts in lists, and plain JSON where that is asked for."""

import copy
import json
import math
import pickle

import pytest
import torch

import gmar_hf
from tests.helpers.explainers import make_explainer, photo


@pytest.fixture(scope="module")
def results():
    asked = dict(method=["gmar", "contribution"], return_overlay=True, return_head_maps=True, return_explanation=True)
    return make_explainer()(photo(), target=["cat", "dog"], versus="bird", **asked)


def test_results_are_dicts_in_lists(results):
    assert isinstance(results, list)
    for result in results:
        assert isinstance(result, dict)
        assert isinstance(result, gmar_hf.ExplanationResult)
        assert dict(**result) == dict(result.items())
    batch = make_explainer()([photo(0), photo(1)])
    assert isinstance(batch, list)
    assert [len(of_image) for of_image in batch] == [1, 1]


def test_results_are_copied_and_pickled_whole(results):
    for again in (pickle.loads(pickle.dumps(results[0])), copy.deepcopy(results[0]), copy.copy(results[0])):
        assert again.keys() == results[0].keys()
        torch.testing.assert_close(again["attribution"], results[0]["attribution"])
        assert again._repr_html_() == results[0]._repr_html_()


def test_json_holds_everything_but_pictures_and_what_has_a_file(results):
    for result in results:
        entries = json.loads(json.dumps(result.to_dict(), allow_nan=False))
        assert result.keys() - entries.keys() == {"heatmap", "overlay", "explanation"}
        for name, entry in entries.items():
            if isinstance(result[name], torch.Tensor):
                torch.testing.assert_close(torch.tensor(entry), result[name])
            else:
                assert entry == (list(result[name]) if isinstance(result[name], tuple) else result[name])


def test_json_has_no_nan(results):
    odd = copy.copy(results[0])
    odd.update(score=math.nan, attribution=torch.tensor([[1.0, -math.inf]]))
    entries = odd.to_dict()
    assert (entries["score"], entries["attribution"]) == (None, [[1.0, None]])


def test_top_heads_are_those_of_largest_magnitude():
    (result,) = make_explainer()(photo(), method="contribution")
    result["head_contribution"] = torch.tensor([[0.5, -2.0], [1.0, 0.0]])
    expected = [dict(layer=0, head=1, head_contribution=-2.0), dict(layer=1, head=0, head_contribution=1.0)]
    assert result.top_heads(2) == expected
    result.update(head_contribution=None, head_importance=torch.tensor([[0.25, 0.75]]))
    assert result.top_heads(1) == [dict(layer=0, head=1, head_importance=0.75)]
    result["head_importance"] = None
    assert result.top_heads() == []
