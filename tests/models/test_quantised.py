"""Weights in 8 and 4 bits, by torchao and bitsandbytes, on the CPU: what the same weights in float explain."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from transformers import ViTConfig, ViTForImageClassification

import gmar_hf
from gmar_hf.explanation.methods import METHODS
from gmar_hf.explanation.parity import check_parity
from tests.helpers import zoo
from tests.helpers.state import snapshot

TOLERANCE = 2e-5  # of the largest: weights are the same numbers, kernels order their sums in other ways


def make_model():
    """A ViT whose layers are as wide as kernels want them; its classifier is left in float."""
    shape = dict(hidden_size=64, intermediate_size=128, num_attention_heads=4, num_hidden_layers=3)
    return zoo.build(ViTForImageClassification, ViTConfig(**shape, image_size=32, patch_size=8, num_labels=5)).eval()


def is_quantised(module, name):
    return isinstance(module, nn.Linear) and "classifier" not in name


def assert_explained_alike(model, expected, tolerance=TOLERANCE, but=()):
    pixels = zoo.pixel_values(expected)
    for method in METHODS:
        out, wanted = (gmar_hf.explain(each, pixels, 1, method, return_head_maps=True) for each in (model, expected))
        for name, tensor in wanted.tensors().items():
            if tensor.is_floating_point() and name not in but:
                assert zoo.relative_error(out.tensors()[name], tensor) < tolerance, (method, name)


def with_weights(weight_of, model):
    """A model in float that has the weights of a quantised one."""
    plain = make_model()
    for (_, module), (name, quantised) in zip(plain.named_modules(), model.named_modules(), strict=True):
        if is_quantised(module, name):
            with torch.no_grad():
                module.weight.copy_(weight_of(quantised))
    return plain


class TestTorchao:
    @pytest.fixture(scope="class")
    @classmethod
    def configs(cls):
        return pytest.importorskip("torchao.quantization", reason="torchao is not installed")

    def quantised(self, config):
        from torchao.quantization import quantize_

        model = make_model()
        quantize_(model, config, filter_fn=is_quantised)
        return model

    def weight_only(self, configs):
        return {
            "int8": configs.Int8WeightOnlyConfig(),
            "int4": configs.IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=configs.PerGroup(32)),
            "float8": configs.Float8WeightOnlyConfig(),
        }

    @pytest.mark.parametrize("kind", ["int8", "int4", "float8"])
    def test_weights_alone(self, configs, kind):
        model = self.quantised(self.weight_only(configs)[kind])
        before = [(type(each), id(each), each.requires_grad) for each in model.parameters()]
        plain = with_weights(lambda module: module.weight.dequantize(), model)
        assert zoo.relative_error(plain.vit.layers[0].mlp.fc1.weight, make_model().vit.layers[0].mlp.fc1.weight) > 1e-3
        assert_explained_alike(model, plain)
        assert [(type(each), id(each), each.requires_grad) for each in model.parameters()] == before
        assert check_parity(model, zoo.pixel_values(model)).agrees

    def test_activations_too(self, configs):
        model = self.quantised(configs.Int8DynamicActivationInt8WeightConfig())
        with pytest.raises(gmar_hf.UnsupportedModelError) as caught:
            gmar_hf.explain(model, zoo.pixel_values(model), 1)
        assert str(caught.value) == (
            "ViTForImageClassification is quantised (torchao Int8Tensor, activations too): no gradient passes its "
            "`vit.layers.0.attention.o_proj`. Quantise weights alone, such as by `Int8WeightOnlyConfig`, or load it "
            "in float."
        )


class TestBitsandbytes:
    @pytest.fixture(scope="class")
    @classmethod
    def library(cls):
        return pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")

    def quantised(self, make_layer, make_weight):
        """As transformers' loading does it: layers are replaced, and moving them to their device quantises them."""
        model = make_model()
        for name, module in list(model.named_modules()):
            if is_quantised(module, name):
                layer = make_layer(module.in_features, module.out_features, bias=module.bias is not None)
                layer.weight = make_weight(module.weight.detach().clone())
                layer.bias = nn.Parameter(module.bias.detach().clone(), requires_grad=False)
                model.set_submodule(name, layer)
        return model.to("cpu").eval()

    def in_4_bits(self, library, **how):
        return self.quantised(
            lambda *shape, bias: library.nn.Linear4bit(*shape, bias=bias, compute_dtype=torch.float32, **how),
            lambda weight: library.nn.Params4bit(weight, requires_grad=False, **how),
        )

    def dequantised(self, library, model, *, are_scales_rounded=False):
        functional = library.functional

        def weight_of(layer):
            state = copy.copy(layer.weight.quant_state)
            if are_scales_rounded:
                if state.nested:
                    state.absmax = functional.dequantize_blockwise(state.absmax, state.state2) + state.offset
                state.absmax, state.nested = state.absmax.bfloat16().float(), False
            return functional.dequantize_4bit(layer.weight.data, state)

        return with_weights(weight_of, model)

    @pytest.mark.parametrize("kind", ["nf4", "fp4"])
    @pytest.mark.parametrize("compress_statistics", [False, True])
    def test_weights_in_4_bits(self, library, kind, compress_statistics):
        how = dict(quant_type=kind, compress_statistics=compress_statistics)
        model = self.in_4_bits(library, **how)
        plain = self.dequantised(library, model)
        before = snapshot(model)
        assert_explained_alike(model, plain)
        assert snapshot(model) == before
        assert check_parity(model, zoo.pixel_values(model)).agrees

    @pytest.mark.parametrize("compress_statistics", [False, True])
    def test_weights_that_a_forward_has_packed(self, library, compress_statistics):
        """The packed kernel has no backward; what is packed stays packed, and scales are as packing rounded them."""
        model = self.in_4_bits(library, quant_type="nf4", compress_statistics=compress_statistics)
        pixels = zoo.pixel_values(model)
        plain = self.dequantised(library, model, are_scales_rounded=True)
        with torch.no_grad():
            logits = model(pixel_values=pixels).logits
        layers = [module for module in model.modules() if isinstance(module, library.nn.Linear4bit)]
        if not all(getattr(layer.weight.quant_state, "packing_format_for_cpu", False) for layer in layers):
            pytest.skip("bitsandbytes packs no weights on this CPU")
        packed = [(layer.weight.data, layer.weight.quant_state) for layer in layers]
        content = [(data.clone(), copy.deepcopy(vars(state))) for data, state in packed]
        assert_explained_alike(model, plain)
        for layer, (data, state), (old_data, old_state) in zip(layers, packed, content, strict=True):
            assert layer.weight.data_ptr() == data.data_ptr()
            assert torch.equal(layer.weight.data, old_data)
            assert layer.weight.quant_state is state
            assert torch.equal(state.absmax, old_state["absmax"])
            assert layer.support_avx512bf16_for_cpu
        with torch.no_grad():
            assert torch.equal(model(pixel_values=pixels).logits, logits)

    @pytest.mark.filterwarnings("ignore:MatMul8bitLt:UserWarning")
    def test_llm_int8(self, library):
        """Its activations are rounded, too: within a few levels of 127 of the same weights in float."""
        model = self.quantised(
            lambda *shape, bias: library.nn.Linear8bitLt(*shape, bias=bias, has_fp16_weights=False, threshold=6.0),
            lambda weight: library.nn.Int8Params(weight, requires_grad=False, has_fp16_weights=False),
        )
        plain = with_weights(lambda layer: layer.weight.data.float() * layer.weight.SCB[:, None] / 127, model)
        assert_explained_alike(model, plain, tolerance=0.1, but=["completeness_gap"])  # a small difference of logits
        parity = check_parity(model, zoo.pixel_values(model))
        assert parity.gradient_agrees
        assert parity.gradient_tolerance == 0.4
