"""Maps of contributions with other value references and on the path, against explicit attention in float64."""

import itertools

import numpy as np
import pytest
import torch

import gmar_hf
from gmar_hf import ArgumentError
from gmar_hf.explanation.methods import METHODS
from gmar_hf.explanation.path import path_points
from tests.helpers import oracle, zoo
from tests.helpers.sampling import sample
from tests.helpers.state import snapshot

TOLERANCE = 1e-5
TARGETS = [1, 3]
# By hand: the roots of 3x^2 - 1 and 5x^3 - 3x, moved from [-1, 1] to [0, 1].
POINTS = {
    1: [(0.5, 1.0)],
    2: [(0.5 - 12**-0.5, 0.5), (0.5 + 12**-0.5, 0.5)],
    3: [(0.5 - 0.15**0.5, 5 / 18), (0.5, 8 / 18), (0.5 + 0.15**0.5, 5 / 18)],
    "recommended": [(1 / 3, 0.6), (3 / 4, 0.4)],
}
KINDS = {
    "removal": ({"method": "removal"}, "output", None),
    "contribution from the output": ({"method": "contribution", "value_reference": "output"}, "output", None),
    "centred contribution": ({"method": "contribution", "value_reference": 1.0}, 1.0, None),
    "path": ({"method": "path"}, 0.0, 2),
    "half-centred path": ({"method": "path", "value_reference": 0.5}, 0.5, 2),
    "recommended": ({"method": "recommended"}, 0.5, "recommended"),
    "recommended at three": ({"method": "recommended", "num_points": 3}, 0.5, 3),
    "path of one point": ({"method": "path", "num_points": 1}, 0.0, 1),
    "removal on a path of three": ({"method": "path", "num_points": 3, "value_reference": "output"}, "output", 3),
}


def expected_terms(model, images, targets, subtract, num_points):
    """Terms of tokens (batch, layers, heads, tokens) and of heads, plain and centred, and a reference."""
    terms, heads, centred = 0.0, 0.0, 0.0
    for scale, weight in [(1.0, 1.0)] if num_points is None else POINTS[num_points]:
        references = oracle.explicit_reference(model, images, targets, scale)
        parts = [oracle.referenced_token_contributions(each, subtract, scale) for each in references]
        terms = terms + weight * np.stack(parts)
        heads = heads + weight * np.stack([oracle.head_contributions(each) for each in references]) / scale
        parts = [oracle.centred_head_contributions(each) for each in references]
        centred = centred + weight * np.stack(parts) / scale
    return terms, heads, centred, references[0]


def error(actual, expected):
    expected = torch.as_tensor(expected)
    assert actual.shape == expected.shape
    return ((actual.double() - expected).abs().max() / expected.abs().max()).item() if expected.numel() else 0.0


def check_every_field(model, images, kind):
    """Hold an explanation of two images against explicit attention."""
    options, subtract, num_points = KINDS[kind]
    terms, heads, centred, reference = expected_terms(model, images, TARGETS, subtract, num_points)
    prefix = reference.num_prefix_tokens
    maps = terms[..., prefix:].reshape(*terms.shape[:3], reference.rows, reference.cols)
    actual = gmar_hf.explain(model, images, TARGETS, **options, return_head_maps=True)
    assert error(actual.head_maps, maps) <= TOLERANCE
    assert error(actual.prefix_contribution, terms[..., :prefix]) <= TOLERANCE
    assert error(actual.attribution, maps.sum(axis=(1, 2))) <= TOLERANCE
    assert error(actual.head_contribution, heads) <= TOLERANCE
    assert error(actual.head_contribution_centred, centred) <= TOLERANCE
    later = gmar_hf.explain(model, images, TARGETS, **options, start_layer=1)
    assert error(later.attribution, maps[:, 1:].sum(axis=(1, 2))) <= TOLERANCE
    assert later.head_maps is None


class TestParity:
    @pytest.mark.parametrize(("family", "kind"), sample(itertools.product(sorted(zoo.MODELS), KINDS)))
    def test_every_field(self, family, kind):
        model = zoo.MODELS[family]()
        check_every_field(model, zoo.pixel_values(model, batch=2), kind)

    def test_removal_is_the_slope_of_a_bias_on_the_scores(self):
        """By autograd: zeros are added to the scores of each key in each head, and differentiated."""
        model = zoo.MODELS["vit"]().double()
        images = zoo.pixel_values(model, batch=2).double()
        biases = []

        def attend(module, query, key, value, attention_mask, scaling=None, **kwargs):
            bias = torch.zeros(*query.shape[:2], 1, key.shape[2], dtype=query.dtype, requires_grad=True)
            biases.append(bias)
            attention = (query @ key.transpose(-2, -1) * scaling + bias).softmax(dim=-1)
            return (attention @ value).transpose(1, 2), None

        from transformers import AttentionInterface

        AttentionInterface.register("biased", attend)
        plain = model.config._attn_implementation
        model.set_attn_implementation("biased")
        logits = model(pixel_values=images).logits
        slopes = torch.autograd.grad(logits[[0, 1], TARGETS].sum(), biases)
        model.set_attn_implementation(plain)
        expected = torch.stack(slopes, dim=1)[:, :, :, 0]
        actual = gmar_hf.explain(model, images, TARGETS, method="removal", return_head_maps=True)
        terms = torch.cat([actual.prefix_contribution, actual.head_maps.flatten(-2)], dim=-1)
        assert error(terms, expected) <= TOLERANCE
        assert terms.sum(dim=-1).abs().max() <= 1e-6 * expected.abs().max()


class TestCompleteness:
    def test_the_gap_is_what_lacks_to_the_difference_of_scores(self):
        model = zoo.MODELS["beit_relative"]()
        images = zoo.pixel_values(model, batch=2)
        whole, without = (oracle.explicit_reference(model, images, TARGETS, scale) for scale in (1.0, 0.0))
        differences = [a.scalar - b.scalar for a, b in zip(whole, without, strict=True)]
        actual = gmar_hf.explain(model, images, TARGETS, method="path")
        gap = actual.head_contribution.sum(dim=(1, 2)).double() - torch.tensor(differences)
        torch.testing.assert_close(actual.completeness_gap.double(), gap, atol=1e-5, rtol=1e-4)

    def test_more_points_close_it(self):
        model = zoo.MODELS["vit"]()
        images = zoo.pixel_values(model, batch=2)
        gaps = [
            gmar_hf.explain(model, images, TARGETS, method="path", num_points=number).completeness_gap.abs().max()
            for number in (1, 12)
        ]
        assert gaps[1] < 1e-4
        assert gaps[1] < gaps[0]

    def test_other_methods_have_none(self):
        model = zoo.MODELS["vit"]()
        images = zoo.pixel_values(model)
        assert gmar_hf.explain(model, images, method="removal").completeness_gap is None
        assert gmar_hf.explain(model, images, method="path", num_masks=2).completeness_gap is None


class TestSeveral:
    METHODS = ("gmar", "contribution", "removal", "gradient-rollout", "rollout", "attention", "path")

    @pytest.mark.parametrize("family", ["vit", "beit_relative"])
    def test_each_is_as_alone(self, family):
        model = zoo.MODELS[family]()
        images = zoo.pixel_values(model, batch=2)
        targets = torch.tensor([[1, 0], [3, 2]])
        together = gmar_hf.explain(model, images, targets, method=self.METHODS)
        for method, explanation in zip(self.METHODS, together, strict=True):
            alone = gmar_hf.explain(model, images, targets, method=method)
            assert explanation.settings == alone.settings
            for name, tensor in alone.tensors().items():
                torch.testing.assert_close(getattr(explanation, name), tensor, rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize(
        ("methods", "num_forwards"), [(METHODS[:-1], 1), (("contribution",), 1), (("gmar", "path"), 4)]
    )
    def test_they_share_passes(self, methods, num_forwards):
        """The path has two passes of its own, and a forward without attention for its gap."""
        model = zoo.MODELS["vit"]()
        images = zoo.pixel_values(model)
        calls = []
        handle = model.vit.register_forward_hook(lambda *args: calls.append(1))
        before = snapshot(model)
        gmar_hf.explain(model, images, method=methods)
        assert snapshot(model) == before
        handle.remove()
        assert len(calls) == num_forwards

    def test_without_logits_a_path_has_its_own_passes_alone(self):
        model = zoo.MODELS["deit"]()
        images = zoo.pixel_values(model, batch=2)
        whole = gmar_hf.explain(model, images, TARGETS, method="path")
        forwards = []
        handle = model.deit.register_forward_hook(lambda *args: forwards.append(1))
        bare = gmar_hf.explain(model, images, TARGETS, method="path", return_logits=False)
        handle.remove()
        assert len(forwards) == 2
        assert (bare.logits, bare.completeness_gap) == (None, None)
        assert torch.equal(bare.attribution, whole.attribution)
        assert bare.settings == whole.settings
        with pytest.raises(ArgumentError, match="`return_logits` must be True where the predicted class"):
            gmar_hf.explain(model, images, method="path", return_logits=False)

    def test_options_go_to_the_methods_that_take_them(self):
        model = zoo.MODELS["vit"]()
        images = zoo.pixel_values(model)
        gmar, path = gmar_hf.explain(model, images, method=["gmar", "path"], num_points=3, value_reference=0.5)
        assert (gmar.settings["num_points"], gmar.settings["value_reference"]) == (None, None)
        assert (path.settings["num_points"], path.settings["value_reference"]) == (3, 0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "gmar", "num_points": 2}, "`num_points` must come with method \"path\".*got method 'gmar'"),
        ({"method": "contribution", "num_points": 1}, "`num_points` must come with"),
        ({"method": "path", "num_points": 0}, "`num_points` must be .*; got 0"),
        ({"method": "path", "num_points": True}, "`num_points` must be"),
        ({"method": "rollout", "value_reference": 0.5}, "`value_reference` must come with"),
        ({"method": "removal", "value_reference": 0.5}, "`value_reference` must come with"),
        ({"method": "path", "value_reference": 1.5}, r"`value_reference` must be a share in \[0, 1\]; got 1.5"),
        ({"method": "path", "value_reference": "mean"}, "`value_reference` must be .* or \"output\"; got 'mean'"),
        ({"method": ["gmar", "rollout"], "num_points": 2}, "`num_points` must come with"),
        ({"method": []}, "`method` must"),
        ({"method": ["path", "path"]}, "`method` must"),
        ({"method": ["path", "paths"]}, "Did you mean 'path'"),
    ],
)
def test_bad_arguments_are_refused(options, message):
    model = zoo.MODELS["vit"]()
    with pytest.raises(ArgumentError, match=message):
        gmar_hf.explain(model, zoo.pixel_values(model), **options)


@pytest.mark.parametrize("num_points", [1, 2, 3])
def test_points_are_those_of_gauss_and_legendre(num_points):
    np.testing.assert_allclose(path_points(METHODS["path"], num_points), POINTS[num_points], atol=1e-15)


def test_recommended_points_are_exact_for_lines():
    points = path_points(METHODS["recommended"], 2)
    assert sum(weight for _, weight in points) == pytest.approx(1)
    assert sum(weight * scale for scale, weight in points) == pytest.approx(1 / 2)  # the integral of a line
