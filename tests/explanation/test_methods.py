"""The registry, and each step on one layer small enough to compute by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gmar_hf.errors import ArgumentError
from gmar_hf.evaluation.maps.map_lookup import find_map_methods
from gmar_hf.evaluation.maps.map_registry import MAP_METHODS
from gmar_hf.explanation.engine import explain
from gmar_hf.explanation.layer import LayerGradients
from gmar_hf.explanation.methods import METHODS, get_method
from gmar_hf.explanation.request import requests_of
from gmar_hf.explanation.steps import StepView
from gmar_hf.models.recorders import AttentionCall
from tests.helpers import zoo

# Two tokens, one image. With these scores the first head attends evenly, the second to the first token only.
QUERY = torch.tensor([[[[1.0], [1.0]], [[1.0], [1.0]]]])
KEY = torch.tensor([[[[0.0], [0.0]], [[1000.0], [0.0]]]])
VALUE = torch.tensor([[[[1.0], [3.0]], [[2.0], [5.0]]]])
EVEN, FIRST = [[0.5, 0.5], [0.5, 0.5]], [[1.0, 0.0], [1.0, 0.0]]


def view(
    head_weights=None, residual_weight=1.0, is_last=True, output_grad=None, value_grad=None, gradient_size=1.0,
    value_reference=None,
) -> StepView:  # fmt: skip
    gradients = LayerGradients(
        call=AttentionCall(
            module=nn.Identity(), query=QUERY, key=KEY, value=VALUE, bias=None, scaling=1.0, dropout=0.0
        ),
        index=0,
        is_last=is_last,
        output=None,
        output_grad=output_grad,
        value_grad=value_grad,
        gradient_size=torch.tensor([[gradient_size]]),
        attention_scale=1.0,
    )
    return StepView(
        layer=gradients,
        residual_weight=residual_weight,
        head_weights=head_weights,
        value_reference=value_reference,
    )


ROW = torch.tensor([[0.2, 0.8]])


@pytest.mark.parametrize(("norm", "expected"), [("l1", [16.0, 14.0]), ("l2", [160**0.5, 116**0.5])])
@pytest.mark.parametrize("is_last", [True, False])
def test_norms_where_one_query_is_read(norm, expected, is_last):
    # G = dO V^T: first rows zero, second rows 4 (1, 3) and 2 (2, 5).
    output_grad = torch.tensor([[[[0.0], [4.0]], [[0.0], [2.0]]]])
    norms = view(output_grad=output_grad, is_last=is_last).layer.gradient_norm(norm)
    torch.testing.assert_close(norms, torch.tensor([expected]))


class TestSteps:
    @pytest.mark.parametrize("name", ["gmar", "rollout"])
    def test_rollout(self, name):
        # row @ (0.25 EVEN + 0.75 FIRST) = 0.25 (0.5, 0.5) + 0.75 (1, 0), then half and half with the row.
        weights = torch.tensor([[0.25, 0.75]])
        found = METHODS[name].step(ROW, view(head_weights=weights))
        torch.testing.assert_close(found, (torch.tensor([[0.875, 0.125]]) + ROW) / 2)
        heavy = METHODS[name].step(ROW, view(head_weights=weights, residual_weight=3.0))
        torch.testing.assert_close(heavy, (torch.tensor([[0.875, 0.125]]) + 3 * ROW) / 4)
        bare = METHODS[name].step(ROW, view(head_weights=weights, residual_weight=0.0))
        torch.testing.assert_close(bare, torch.tensor([[0.875, 0.125]]))

    def test_attention_reads_the_last_layer_only(self):
        weights = torch.tensor([[0.5, 0.5]])
        step = METHODS["attention"].step
        torch.testing.assert_close(step(ROW, view(head_weights=weights)), torch.tensor([[0.75, 0.25]]))
        assert torch.equal(step(ROW, view(head_weights=weights, is_last=False)), ROW)

    def test_gradient_rollout(self):
        # G = dO V^T: head 1 [[1, 3], [-2, -6]], head 2 [[2, 5], [2, 5]]; relu(G A) halved:
        # E = ([[0.5, 1.5], [0, 0]] + [[2, 0], [2, 0]]) / 2 = [[1.25, 0.75], [1, 0]].
        output_grad = torch.tensor([[[[1.0], [-2.0]], [[1.0], [1.0]]]])
        step = METHODS["gradient-rollout"].step
        expected = ROW + torch.tensor([[0.2 * 1.25 + 0.8, 0.2 * 0.75]])
        torch.testing.assert_close(step(ROW, view(output_grad=output_grad)), expected)
        scaled = view(output_grad=output_grad * 8, gradient_size=1 / 8)
        torch.testing.assert_close(step(ROW, scaled), expected)

    def test_contribution(self):
        # V dV: head 1 (1, 3) * (1, -2) = (1, -6), head 2 (2, 5) * (3, 0.2) = (6, 1).
        value_grad = torch.tensor([[[[1.0], [-2.0]], [[3.0], [0.2]]]])
        found = METHODS["contribution"].step(ROW, view(value_grad=value_grad, value_reference=0.0))
        torch.testing.assert_close(found, ROW + torch.tensor([[7.0, -5.0]]))
        # Less the mean values, 2 and 3.5: head 1 (-1, 1) * (1, -2), head 2 (-1.5, 1.5) * (3, 0.2).
        centred = METHODS["contribution"].step(ROW, view(value_grad=value_grad, value_reference=1.0))
        torch.testing.assert_close(centred, ROW + torch.tensor([[-1 - 4.5, -2 + 0.3]]))


class TestRegistry:
    """New rows need no line here."""

    def test_the_tasks_own_method_comes_first(self):
        assert next(iter(METHODS)) == "gmar"
        assert get_method("gmar") is METHODS["gmar"]

    def test_methods_of_one_forward_weigh_heads_alike(self):
        for name in ("rollout", "attention"):
            assert (METHODS[name].needs, METHODS[name].weights) == (None, "uniform")

    @pytest.mark.parametrize("name", ["GMAR", "saliency", "", None, 3])
    def test_unknown_names_list_the_valid_ones(self, name):
        listed = ", ".join(f'"{known}"' for known in METHODS)
        with pytest.raises(ArgumentError) as caught:
            get_method(name)
        assert str(caught.value).split(" Did you mean")[0] == f"`method` must be one of {listed}; got {name!r}."

    @pytest.mark.parametrize(
        ("name", "advice"),
        [
            ("legrad", "`evaluate` alone draws it: `gmar-hf evaluate --methods legrad`."),
            ("legrd", "Did you mean 'legrad'?"),
            ("path-half-centred", 'In Python pass method="path", value_reference=0.5.'),
            ("path-centred", 'In Python pass method="path", value_reference=1.0.'),
            ("GMAR", "Did you mean 'gmar'?"),
        ],
    )
    def test_a_map_of_evaluate_is_told_how_to_get(self, name, advice):
        for method in (name, ["gmar", name]):
            with pytest.raises(ArgumentError) as caught:
                requests_of(method)
            assert str(caught.value).endswith(f"; got {name!r}. {advice}")

    def test_every_name_is_known_on_both_sides(self):
        """`evaluate` draws each method, and `explain` knows what to say of each map."""
        assert len(find_map_methods(list(METHODS))) == len(METHODS)
        for name in MAP_METHODS.keys() - METHODS.keys():
            with pytest.raises(ArgumentError, match=r"`evaluate` alone|In Python pass"):
                get_method(name)

    def test_what_is_advised_draws_the_same_map(self):
        model = zoo.vit()
        pixel_values, target = zoo.pixel_values(model), torch.tensor([1, 0])
        for name in ("path-half-centred-4", "gmar-l2"):
            advised = explain(model, pixel_values, target, **MAP_METHODS[name].options).attribution
            torch.testing.assert_close(advised, MAP_METHODS[name].draw(model, pixel_values, target))
