"""A request is checked, and what it does not ask for is not computed."""

from __future__ import annotations

import pytest
import torch

import gmar_hf
from gmar_hf.errors import ArgumentError
from gmar_hf.explanation import backward, layer, steps
from gmar_hf.explanation.request import Request
from tests.helpers import zoo


class TestRequest:
    NUMBER = "`residual_weight` must be a number that is 0 or more; got"
    WHOLE = "`start_layer` must be a whole number of 0 or more; got"

    @pytest.mark.parametrize(
        ("name", "values", "words"),
        [
            ("norm", ["L1", "l3", None, 1], '`norm` must be one of "l1", "l2"; got'),
            ("residual_weight", [-0.1, float("nan"), float("inf"), "1", None, True, torch.tensor(1.0)], NUMBER),
            ("start_layer", [-1, 1.0, "1", None, True], WHOLE),
            ("method", ["lime"], '`method` must be one of "gmar"'),
        ],
    )
    def test_values_that_are_refused(self, name, values, words):
        for value in values:
            with pytest.raises(ArgumentError) as caught:
                Request(**{name: value})
            assert str(caught.value).startswith(words)

    @pytest.mark.parametrize(
        ("method", "maps", "head_maps", "start"),
        [
            ("gmar", True, False, "output"),
            ("gmar", False, False, "output"),
            ("gmar", True, True, "value"),
            ("contribution", True, False, "value"),
            ("contribution", False, False, "output"),  # heads' contributions need no gradient of the values
            ("gradient-rollout", True, False, "output"),
            ("rollout", True, False, "head"),
            ("attention", False, False, "head"),
            ("rollout", True, True, "value"),
        ],
    )
    def test_where_the_graph_begins(self, method, maps, head_maps, start):
        assert Request(method=method, return_maps=maps, return_head_maps=head_maps).start == start


class TestNotComputed:
    """Functions that must not be called are replaced by ones that fail."""

    @pytest.fixture
    def forbid(self, monkeypatch):
        def fail(*args, **kwargs):
            raise AssertionError("computed what nobody asked for")

        def forbid(*names: str) -> None:
            for name in names:
                if name in layer.NORMS:
                    monkeypatch.setitem(layer.NORMS, name, fail)
                else:
                    (module,) = [each for each in (steps, layer, backward) if hasattr(each, name)]
                    monkeypatch.setattr(module, name, fail)

        return forbid

    @pytest.mark.parametrize(
        ("kwargs", "names"),
        [
            ({"norm": "l1"}, ["l2", "token_contribution", "fuse_gradient"]),
            ({"norm": "l2"}, ["l1", "token_contribution", "fuse_gradient"]),
            ({"return_maps": False}, ["l2", "token_contribution", "fuse", "fuse_gradient", "residual"]),
            ({"method": "contribution"}, ["l1", "l2", "fuse", "fuse_gradient", "residual", "head_weights"]),
            (
                {"method": "contribution", "return_maps": False},
                ["l1", "l2", "fuse", "fuse_gradient", "residual", "head_weights", "token_contribution"],
            ),
            ({"method": "gradient-rollout"}, ["l1", "l2", "fuse", "residual", "head_weights", "token_contribution"]),
            (
                {"method": "rollout"},
                ["l1", "l2", "fuse_gradient", "head_weights", "token_contribution", "head_contribution"],
            ),
            (
                {"method": "attention", "return_maps": False},
                ["l1", "l2", "fuse", "fuse_gradient", "head_weights", "token_contribution", "head_contribution"],
            ),
            ({"method": "rollout", "return_head_maps": True}, ["l1", "l2", "fuse_gradient", "head_weights"]),
        ],
        ids=str,
    )
    def test_other_quantities(self, forbid, kwargs, names):
        model = zoo.vit()
        forbid(*names)
        gmar_hf.explain(model, zoo.pixel_values(model), **kwargs)

    def test_the_fixture_bites(self, forbid):
        model = zoo.vit()
        forbid("l1")
        with pytest.raises(AssertionError, match="nobody asked"):
            gmar_hf.explain(model, zoo.pixel_values(model), norm="l1")

    @pytest.mark.parametrize("kwargs", [{"start_layer": 2}, {"method": "attention"}], ids=str)
    def test_layers_that_do_not_count_are_not_rolled_out(self, monkeypatch, kwargs):
        model = zoo.vit()
        calls = []
        fuse = steps.fuse
        monkeypatch.setattr(steps, "fuse", lambda *args: calls.append(1) or fuse(*args))
        gmar_hf.explain(model, zoo.pixel_values(model), **kwargs)
        assert len(calls) == 1  # that of the last layer
