"""A module that cuts the gradient is refused by name; what only looks like one is not."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import nn

import gmar_hf
from gmar_hf.evaluation import MAP_METHODS
from tests.helpers import state, zoo


class Without(nn.Module):
    """Another module, with something done to its input or output that no gradient passes."""

    def __init__(self, module: nn.Module, how: str) -> None:
        super().__init__()
        self.inner, self.how = module, how

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.how == "no_grad":
            with torch.no_grad():
                return self.inner(x)
        return self.inner(x.detach()) if self.how == "detach" else self.inner(x).detach()


def blocked(how: str) -> nn.Module:
    model = zoo.vit()
    model.vit.layers[1].mlp = Without(model.vit.layers[1].mlp, how)
    return model


@pytest.mark.parametrize("how", ["no_grad", "detach", "detached output"])
@pytest.mark.parametrize("method", ["gmar", "contribution", "recommended"])
def test_a_cut_is_refused_by_name(how, method):
    model = blocked(how)
    before = state.snapshot(model)
    name = "vit.layers.1.mlp.inner.fc1" if how == "no_grad" else "vit.layers.1.mlp"
    with pytest.raises(gmar_hf.UnsupportedModelError, match=f"no gradient passes its `{name}`"):
        gmar_hf.explain(model, zoo.pixel_values(model), 1, method)
    assert state.snapshot(model) == before


@pytest.mark.parametrize("method", ["rollout", "attention"])
def test_what_needs_no_gradient_of_the_encoder_is_served(method):
    model = blocked("no_grad")
    pixels = zoo.pixel_values(model)
    out = gmar_hf.explain(model, pixels, 1, method)
    assert torch.equal(out.attribution, gmar_hf.explain(zoo.vit(), pixels, 1, method).attribution)


def test_a_head_that_is_cut():
    model = zoo.vit()
    model.classifier = Without(model.classifier, "no_grad")
    with pytest.raises(gmar_hf.UnsupportedModelError, match=r"its `classifier.inner` \(Linear\)"):
        gmar_hf.explain(model, zoo.pixel_values(model), 1, "rollout")


class Positions(nn.Module):
    """Adds nothing of its input: position embeddings of the input's shape, which are frozen."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(1, 17, width, generator=torch.Generator().manual_seed(0)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.table.expand(len(x), -1, -1).to(x.dtype)


class Gated(nn.Module):
    """A module with positions and a mask beside it."""

    def __init__(self, module: nn.Module, width: int) -> None:
        super().__init__()
        self.inner, self.positions, self.sign = module, Positions(width), nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x + self.positions(x)) * self.sign((x > 0) | True)


def test_positions_and_masks_cut_nothing():
    model = zoo.vit().requires_grad_(False)
    model.vit.layers[1].mlp = Gated(model.vit.layers[1].mlp, 24)
    out = gmar_hf.explain(model, zoo.pixel_values(model), 1, "contribution")
    assert out.attribution.isfinite().all()


@pytest.mark.parametrize(("dtype", "named"), [(torch.qint8, "int8"), (torch.float16, "float16")])
@pytest.mark.parametrize("part", ["mlp.fc1", "attention.q_proj", "all"])
@pytest.mark.parametrize("check", [gmar_hf.explain, lambda *args: gmar_hf.explain(*args, method="recommended")])
def test_dynamic_quantisation(dtype, named, part, check):
    model = zoo.vit()
    names = {nn.Linear} if part == "all" else {f"vit.layers.{layer}.{part}" for layer in range(3)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch means to move it to another package
        quantised = torch.ao.quantization.quantize_dynamic(copy.deepcopy(model), names, dtype=dtype)
    with pytest.raises(gmar_hf.UnsupportedModelError) as caught:
        check(quantised, zoo.pixel_values(model), 1)
    assert str(caught.value) == (
        f"ViTForImageClassification is quantised (torch.ao dynamic {named}): no gradient passes its linear layers. "
        "Load it in float."
    )


@pytest.mark.parametrize("name", ["legrad", "integrated-gradients", "grad-cam"])
def test_maps_for_comparison(name):
    model = blocked("no_grad")
    with pytest.raises(gmar_hf.UnsupportedModelError, match=r"no gradient passes its `vit.layers.1.mlp"):
        MAP_METHODS[name].draw(model, zoo.pixel_values(model), torch.tensor([1, 3]))


class WeightOnly(nn.Module):
    """Weights in int8, activations in float, as torchao and bitsandbytes have them: gradients pass."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.scale = linear.weight.detach().abs().amax(dim=1, keepdim=True) / 127
        self.register_buffer("weight", (linear.weight.detach() / self.scale).round().to(torch.int8))
        self.bias = linear.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, self.weight.to(x.dtype) * self.scale.to(x.dtype), self.bias)


def test_weights_alone_in_int8_are_served():
    model = zoo.vit()
    pixels = zoo.pixel_values(model)
    expected = gmar_hf.explain(model, pixels, 1, "contribution").attribution
    for layer in model.vit.layers:
        layer.mlp.fc1, layer.mlp.fc2 = WeightOnly(layer.mlp.fc1), WeightOnly(layer.mlp.fc2)
    actual = gmar_hf.explain(model, pixels, 1, "contribution").attribution
    assert zoo.relative_error(actual, expected) < 0.1


def test_an_operator_without_a_backward():
    with torch.library._scoped_library("gmar_hf_tests", "FRAGMENT") as library:
        library.define("double(Tensor x) -> Tensor")
        library.impl("double", lambda x: torch.from_numpy(2 * x.detach().numpy()), "CPU")

        class Kernel(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return torch.ops.gmar_hf_tests.double(x)

        model = zoo.vit()
        model.vit.layers[2].mlp = nn.Sequential(model.vit.layers[2].mlp, Kernel())
        with pytest.raises(gmar_hf.UnsupportedModelError, match=r"its `vit.layers.2.mlp.1` \(Kernel\)"):
            gmar_hf.explain(model, zoo.pixel_values(model), 1)
