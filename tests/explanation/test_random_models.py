"""Models of random families and shapes, images, dtypes, targets and options, each against the float64 oracle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

import gmar_hf
from tests.explanation.test_engine_parity import METHODS, expected_fields
from tests.explanation.test_passes import KINDS, expected_terms
from tests.helpers import oracle, zoo

pytest.importorskip("hypothesis")
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.examples import FEW, many
from tests.helpers.random_models import FAMILIES, Shape, shapes

# Errors by the size of a tensor's largest number; of sums, by that of their largest term, since terms may cancel.
TOLERANCES = {torch.float64: 1e-6, torch.float32: 2e-5, torch.float16: 0.02, torch.bfloat16: 0.15}
CONTRIBUTIONS = {"head_maps", "prefix_contribution", "head_contribution", "head_contribution_centred"}


def curved(logits: torch.Tensor) -> torch.Tensor:
    """A scalar of an image whose slope depends on the image: one that is summed too early would show."""
    return logits[:, 0] - logits[:, -1] ** 2 / 4


@dataclass(frozen=True, kw_only=True)
class Call:
    """A call of `explain`, and how the oracle is asked for the same."""

    family: str
    shape: Shape
    batch: int
    seed: int
    dtype: torch.dtype
    attention: str
    target: Any
    options: dict[str, Any]
    kind: str  # of `METHODS` or `KINDS`


@st.composite
def calls(draw: Any) -> Call:
    family = draw(st.sampled_from(sorted(FAMILIES)))
    shape = draw(shapes(FAMILIES[family]))
    batch, kind = draw(st.integers(1, 3)), draw(st.sampled_from([*METHODS, *KINDS]))
    label = st.integers(0, shape.num_labels - 1)
    one_each = st.lists(label, min_size=batch, max_size=batch)
    several = st.integers(1, 2).flatmap(
        lambda number: st.lists(st.lists(label, min_size=number, max_size=number), min_size=batch, max_size=batch).map(
            torch.tensor
        )
    )
    options = {"start_layer": draw(st.integers(0, shape.num_layers - 1))}
    if kind in METHODS:
        options["residual_weight"] = draw(st.sampled_from([0.0, 0.3, 1.0, 2.5]))
    return Call(
        family=family,
        shape=shape,
        batch=batch,
        seed=draw(st.integers(0, 1000)),
        dtype=draw(st.sampled_from(list(TOLERANCES))),
        attention=draw(st.sampled_from(["sdpa", "eager"])),
        target=draw(st.one_of(st.none(), label, one_each, one_each.map(torch.tensor), several, st.just(curved))),
        options=options,
        kind=kind,
    )


def oracle_targets(call: Call, explanation: gmar_hf.Explanation) -> list[Any]:
    """Return what the oracle is asked for, target by target of an image: of predicted classes those that were found.

    Two logits may be as good as equal, and a rounded model may take the other one.
    """
    if callable(call.target):
        return [call.target]
    return explanation.target.reshape(call.batch, -1).T.tolist()


def expected_tensors(call: Call, model: PreTrainedModel, images: torch.Tensor, target: Any) -> dict[str, np.ndarray]:
    """Return what the oracle says of one target an image."""
    start_layer = call.options["start_layer"]
    if call.kind in METHODS:
        references = oracle.explicit_reference(model, images, target)
        fields = expected_fields(references, call.kind, call.options["residual_weight"], start_layer)
        return {name: value for name, value in fields.items() if value is not None}
    _, subtract, num_points = KINDS[call.kind]
    terms, heads, centred, reference = expected_terms(model, images, target, subtract, num_points)
    prefix = reference.num_prefix_tokens
    maps = terms[..., prefix:].reshape(*terms.shape[:3], reference.rows, reference.cols)
    return {
        "head_maps": maps,
        "prefix_contribution": terms[..., :prefix],
        "attribution": maps[:, start_layer:].sum(axis=(1, 2)),
        "head_contribution": heads,
        "head_contribution_centred": centred,
    }


def check(call: Call) -> None:
    """Compare every tensor of an explanation with the oracle's."""
    model = FAMILIES[call.family].build(call.shape).to(call.dtype)
    names = {"": call.attention, "vision_config": call.attention}
    model.set_attn_implementation(names if "vision_config" in model.config.sub_configs else call.attention)
    images = zoo.pixel_values(model, call.batch, call.seed, call.shape.image_size)
    method = {**METHODS, **KINDS}[call.kind][0]
    actual = gmar_hf.explain(model, images, call.target, **method, **call.options, return_head_maps=True)
    targets = oracle_targets(call, actual)
    by_target = [expected_tensors(call, model, images, target) for target in targets]
    has_axis = isinstance(call.target, torch.Tensor) and call.target.ndim == 2
    errors = {}
    for name, first in by_target[0].items():
        expected = np.stack([each[name] for each in by_target], axis=1) if has_axis and name != "logits" else first
        found = getattr(actual, name).double().numpy()
        assert found.shape == expected.shape, name
        if name == "logits":  # a sum that may cancel: how far the model itself is off tells how far that goes
            with torch.no_grad():
                by_itself = model(pixel_values=images.to(call.dtype)).logits.double().numpy()
            allowed = np.abs(by_itself - expected).max()
            errors[name] = max(0.0, np.abs(found - expected).max() - 2 * allowed) / scale(call, by_target, name)
        elif expected.size:
            errors[name] = np.abs(found - expected).max() / scale(call, by_target, name)
    if call.target is None and "logits" in by_target[0]:
        logits = by_target[0]["logits"]
        lacking = logits.max(axis=1) - logits[range(call.batch), targets[0]]
        errors["target"] = lacking.max() / np.abs(logits).max()
    tolerance = TOLERANCES[call.dtype]
    too_large = {name: error for name, error in errors.items() if not error <= tolerance}
    assert not too_large, f"above {tolerance}: {too_large}"


def scale(call: Call, by_target: list[dict[str, np.ndarray]], name: str) -> float:
    """Return the size of what a tensor's numbers are sums of: contributions may cancel, with one token altogether."""
    names = {name}
    if name in CONTRIBUTIONS or (name == "attribution" and (call.kind in KINDS or call.kind == "contribution")):
        names |= CONTRIBUTIONS
    return max(np.abs(each[name]).max() for each in by_target for name in names if name in each and each[name].size)


@pytest.mark.slow
@FEW
@given(calls())
def test_a_few_calls(call):
    check(call)


@pytest.mark.campaign
@many(1000)
@given(calls())
def test_many_calls(call):
    check(call)
