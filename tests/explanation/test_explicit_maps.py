"""The formulas by full matrices, which the engine's maps are held against, are those of the oracle."""

import pytest
import torch

from gmar_hf.explanation.explicit_maps import FORMULAS, map_errors
from gmar_hf.explanation.methods import METHODS
from tests.helpers import oracle, zoo

RULES = {
    "gmar": oracle.gmar_map,
    "contribution": oracle.contribution_map,
    "rollout": oracle.rollout_map,
    "gradient-rollout": oracle.gradient_rollout_map,
    "attention": oracle.raw_attention_map,
    "removal": lambda reference: summed(reference, "output"),
    "path": lambda reference: summed(reference, 0.0),
    "recommended": lambda reference: summed(reference, 0.5),
}


def summed(reference, subtract):
    by_token = oracle.referenced_token_contributions(reference, subtract).sum(axis=(0, 1))
    return oracle.patch_map(by_token, reference.rows, reference.cols)


@pytest.fixture(scope="module")
def reference():
    model = zoo.deit_teacher()
    return oracle.explicit_reference(model, zoo.pixel_values(model, batch=1), 1)[0]


@pytest.mark.parametrize("method", sorted(RULES))
def test_formulas(method, reference):
    matrices = (torch.from_numpy(each)[None] for each in (reference.attention, reference.gradient, reference.readout))
    row = FORMULAS[method](*matrices)
    assert zoo.relative_error(row[0, 2:].unflatten(0, (3, 5)), RULES[method](reference)) < 1e-12


@pytest.mark.parametrize(
    "name",
    ["swin", "hiera", *(pytest.param(name, marks=pytest.mark.slow) for name in ("swinv2_padded", "hiera_unmerged"))],
)
def test_maps_inside_windows(name):
    model = zoo.STAGED[name]()
    errors = map_errors(model, zoo.pixel_values(model))
    assert list(errors) == ["contribution", "removal", "path", "recommended"]
    assert max(errors.values()) < 1e-5


def test_every_method_has_one():
    assert set(RULES) == set(FORMULAS) == set(METHODS)


def test_the_engine_agrees():
    model = zoo.dinov2_registers()
    errors = map_errors(model, zoo.pixel_values(model))
    assert list(errors) == list(METHODS)
    assert max(errors.values()) < 1e-5
