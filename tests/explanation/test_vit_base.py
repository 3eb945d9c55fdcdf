"""Parity at the size that people use, a ViT-B/16 at 224 pixels, and at a small one."""

import pytest

from tests.helpers import zoo
from tests.helpers.measure_parity import vit_errors


@pytest.mark.parametrize("settings", [{**zoo.WIDE, **zoo.SQUARE}, pytest.param({}, marks=pytest.mark.campaign)])
def test_vit_agrees_with_explicit_attention_in_float64(settings):
    errors = vit_errors(**settings)
    assert set(errors) >= {"head_score (L1)", "head_score (L2)", "head_contribution", "head_maps", "attribution"}
    assert max(errors.values()) <= 1e-5, errors
