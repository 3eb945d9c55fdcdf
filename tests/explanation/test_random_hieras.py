"""Hieras of random stages, mask units, strides, heads and images, each against the float64 `hiera_oracle`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from transformers import HieraConfig, HieraForImageClassification

import gmar_hf
from tests.explanation.test_windows import METHODS
from tests.helpers import hiera_oracle, window_oracle, zoo

pytest.importorskip("hypothesis")
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.examples import FEW, many

# Errors by the size of a tensor's largest number; of sums, by that of their largest term, since terms may cancel.
TOLERANCES = {torch.float64: 1e-6, torch.float32: 2e-5}


@dataclass(frozen=True, kw_only=True)
class Call:
    """A call of `explain`, and the numbers that the model is made of."""

    config: dict[str, Any]
    batch: int
    seed: int
    dtype: torch.dtype
    method: str


@st.composite
def calls(draw: Any) -> Call:
    num_stages = draw(st.integers(1, 3))
    stride = draw(st.sampled_from([(1, 1), (1, 2), (2, 1), (2, 2), (3, 1)]))
    unit = [draw(st.integers(1, 2)) * step ** (num_stages - 1) for step in stride]
    patches = [draw(st.integers(1, 2)) * size for size in unit]
    patch = draw(st.integers(2, 3)), draw(st.integers(2, 3))
    overlap = draw(st.booleans())
    return Call(
        config={
            "embed_dim": 8,
            "image_size": [size * number for size, number in zip(patch, patches, strict=True)],
            "patch_size": [2 * size - 1 if overlap else size for size in patch],
            "patch_stride": list(patch),
            "patch_padding": [size - 1 if overlap else 0 for size in patch],
            "depths": draw(st.lists(st.integers(1, 2), min_size=num_stages, max_size=num_stages)),
            "num_heads": draw(st.lists(st.sampled_from([1, 2, 4]), min_size=num_stages, max_size=num_stages)),
            "num_query_pool": draw(st.integers(0, num_stages - 1)),
            "query_stride": list(stride),
            "masked_unit_size": unit,
            "masked_unit_attention": draw(st.lists(st.booleans(), min_size=num_stages, max_size=num_stages)),
            "num_labels": 3,
        },
        batch=draw(st.integers(1, 2)),
        seed=draw(st.integers(0, 1000)),
        dtype=draw(st.sampled_from(list(TOLERANCES))),
        method=draw(st.sampled_from(sorted(METHODS))),
    )


def check(call: Call) -> None:
    """Compare every tensor of an explanation with the oracle's."""
    model = zoo.build(HieraForImageClassification, HieraConfig(**call.config)).to(call.dtype)
    images = zoo.pixel_values(model, call.batch, call.seed)
    arguments, reference, points = METHODS[call.method]
    actual = gmar_hf.explain(model, images, return_head_maps=True, **arguments)
    runs = [
        (hiera_oracle.reference_runs(model, images, actual.target.tolist(), point), share) for point, share in points
    ]

    def mean(function: Any) -> np.ndarray:
        return np.stack([sum(share * function(run[image]) for run, share in runs) for image in range(call.batch)])

    maps = mean(lambda run: window_oracle.head_maps(run, reference)[0])
    expected = {
        "head_maps": maps,
        "head_contribution": mean(window_oracle.head_contributions),
        "head_contribution_centred": mean(window_oracle.centred_head_contributions),
        "attribution": np.nansum(maps, axis=(1, 2)),
    }
    size = max(np.nanmax(np.abs(tensor)) for tensor in expected.values())
    for name, tensor in {**expected, "readout": mean(window_oracle.readout).reshape(call.batch, -1)}.items():
        found = getattr(actual, name).double().numpy()
        assert np.array_equal(np.isnan(found), np.isnan(tensor)), name
        error = np.nanmax(np.abs(found - tensor)) / (1 if name == "readout" else size)
        assert error <= TOLERANCES[call.dtype], (name, error)
    assert actual.prefix_contribution.numel() == 0
    assert math.prod(actual.attribution.shape[1:]) == runs[0][0][0].covered_by_hidden[0].size


@pytest.mark.slow
@FEW
@given(calls())
def test_a_few_calls(call):
    check(call)


@pytest.mark.campaign
@many(500)
@given(calls())
def test_many_calls(call):
    check(call)
