"""Parity at the size that people use: a ViT-B/16 at 224 pixels."""

from tests.helpers.measure_parity import vit_base_errors


def test_vit_base_agrees_with_explicit_attention_in_float64():
    errors = vit_base_errors()
    assert set(errors) >= {"head_score (L1)", "head_score (L2)", "head_contribution", "head_maps", "attribution"}
    assert max(errors.values()) <= 1e-5, errors
