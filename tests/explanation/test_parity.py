"""The check users run on their own model finds agreement, and finds a mistake."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

import gmar_hf
from gmar_hf.explanation import finite_differences, layer
from gmar_hf.explanation.parity import TOLERANCE, check_parity
from tests.helpers import state, zoo

NAMES = ["logits", "head_score (L1)", "head_score (L2)", "head_contribution", "head_maps", "attribution"]


@pytest.mark.parametrize("name", sorted(zoo.MODELS))
def test_every_family_agrees(name):
    model = zoo.MODELS[name]()
    state.make_uneven(model)
    before = state.snapshot(model)
    parity = check_parity(model, zoo.pixel_values(model))
    assert state.snapshot(model) == before
    assert list(parity.errors) == NAMES
    assert all(error < 1e-5 for error in parity.errors.values()), parity.errors
    assert list(parity.gradient_errors) == [0, 1, 2]
    assert all(error < parity.gradient_tolerance / 5 for error in parity.gradient_errors.values())
    assert parity.agrees
    assert parity.explanation.head_maps is not None


@pytest.mark.parametrize("name", sorted(zoo.STAGED))
def test_windows_agree(name):
    model = zoo.STAGED[name]()
    state.make_uneven(model)
    before = state.snapshot(model)
    parity = check_parity(model, zoo.pixel_values(model))
    assert state.snapshot(model) == before
    assert list(parity.errors) == ["logits", "head_contribution", "head_maps", "attribution"]
    assert all(error < 1e-5 for error in parity.errors.values()), parity.errors
    assert parity.agrees
    assert len(parity.gradient_errors) == 3


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_under_an_outer_mode(mode):
    model = zoo.beit_relative()
    with mode():
        assert check_parity(model, zoo.pixel_values(model)).agrees


def test_other_dtypes():
    assert max(check_parity(zoo.vit().double(), zoo.pixel_values(zoo.vit())).errors.values()) < 1e-6
    errors = check_parity(zoo.vit().bfloat16(), zoo.pixel_values(zoo.vit())).errors
    assert 1e-4 < max(errors.values()) < 0.2


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["vit", "beit_relative", "clip"])
def test_gradients_in_other_dtypes(name, dtype):
    model = zoo.MODELS[name]().to(dtype)
    parity = check_parity(model, zoo.pixel_values(model))
    assert parity.gradient_tolerance == {torch.float64: 0.005, torch.float16: 0.15, torch.bfloat16: 0.4}[dtype]
    assert parity.gradient_agrees


class Cut(nn.Module):
    """An MLP of which a share, in the middle of other computations, is hidden from autograd."""

    def __init__(self, inner: nn.Module, share: float) -> None:
        super().__init__()
        self.inner, self.share = inner, share

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.inner(x)
        return out * (1 - self.share) + out.detach() * self.share


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_cut_that_no_module_shows_is_found(place, dtype):
    model = zoo.vit().to(dtype)
    model.vit.layers[place].mlp = Cut(model.vit.layers[place].mlp, share=0.9)
    parity = check_parity(model, zoo.pixel_values(model))
    assert not parity.gradient_agrees
    assert not parity.agrees
    if dtype in (torch.float64, torch.float32):
        assert parity.engine_agrees  # both sides go through the same graph
        # All layers up to the one whose MLP is cut; those behind it have their own gradient.
        wrong = [index for index, error in parity.gradient_errors.items() if error > parity.gradient_tolerance]
        assert wrong == list(range(place + 1))


def test_a_small_cut_is_found_in_float32():
    model = zoo.vit()
    model.vit.layers[2].mlp = Cut(model.vit.layers[2].mlp, share=0.02)
    assert not check_parity(model, zoo.pixel_values(model)).gradient_agrees


def test_gradients_against_derivatives_by_hand():
    """In float64 the error is that of the formula: it vanishes with the square of the step."""
    model = zoo.vit().double()
    pixels, target = zoo.pixel_values(model), torch.tensor([1, 3])
    errors = []
    for step in (2.0**-8, 2.0**-9):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(finite_differences, "STEPS", (step,))
            errors.append(finite_differences.gradient_errors(model, pixels, target))
    for index, error in errors[0].items():
        assert error / errors[1][index] == pytest.approx(4, rel=0.05)


class TestAMistakeIsFound:
    """Break one thing in the engine; the check names what differs."""

    def differing(self, name: str = "vit") -> list[str]:
        model = zoo.MODELS[name]()
        parity = check_parity(model, zoo.pixel_values(model))
        assert not parity.agrees
        return [name for name, error in parity.errors.items() if error > TOLERANCE]

    def test_norms(self, monkeypatch):
        l1, l2 = layer.NORMS["l1"], layer.NORMS["l2"]
        monkeypatch.setitem(layer.NORMS, "l1", l2)
        assert self.differing() == ["head_score (L1)", "attribution"]
        monkeypatch.setitem(layer.NORMS, "l1", l1)
        monkeypatch.setitem(layer.NORMS, "l2", lambda *args: l2(*args) * (1 + 2e-4))
        assert self.differing() == ["head_score (L2)"]

    def test_contributions(self, monkeypatch):
        whole = layer.head_contribution
        monkeypatch.setattr(layer, "head_contribution", lambda output, grad: whole(output[:, :, 1:], grad[:, :, 1:]))
        assert self.differing() == ["head_contribution"]

    def test_maps_by_token(self, monkeypatch):
        whole = layer.token_contribution
        monkeypatch.setattr(layer, "token_contribution", lambda value, grad: whole(value, grad).roll(1, dims=-1))
        assert self.differing() == ["head_maps"]

    def test_a_bias_that_is_dropped(self, monkeypatch):
        from gmar_hf.explanation import steps

        fuse = steps.fuse
        monkeypatch.setattr(
            steps, "fuse", lambda row, weights, call: fuse(row, weights, dataclasses.replace(call, bias=None))
        )
        assert self.differing("beit_relative") == ["attribution"]

    def test_attention_itself(self, monkeypatch):
        from gmar_hf.models import recorders

        sdpa = recorders.scaled_dot_product_attention
        monkeypatch.setattr(
            recorders,
            "scaled_dot_product_attention",
            lambda *args, scale, **kwargs: sdpa(*args, scale=scale * 1.1, **kwargs),
        )
        assert set(self.differing()) >= {"logits", "head_score (L1)", "head_score (L2)", "head_contribution"}


def test_a_model_that_cannot_be_explained():
    model = zoo.convnext()
    with pytest.raises(gmar_hf.UnsupportedModelError, match="ConvNextForImageClassification cannot be explained"):
        check_parity(model, zoo.pixel_values(model))
