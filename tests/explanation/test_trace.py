"""The one forward and its backwards: how many, how large, and at what size numbers pass through them."""

from __future__ import annotations

import contextlib
import copy
import gc
import math
import weakref
from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import ViTConfig, ViTForImageClassification
from transformers.modeling_outputs import ImageClassifierOutput

import gmar_hf
from gmar_hf.explanation import blocks
from gmar_hf.explanation.parity import check_parity
from tests.helpers import zoo
from tests.helpers.sampling import pick, sample_product
from tests.helpers.zoo import relative_error

BACKWARD_METHODS = ["gmar", "contribution", "gradient-rollout"]
FORWARD_METHODS = ["rollout", "attention"]


class Watch(TorchDispatchMode):
    """Counts operations, and remembers the largest tensor that one of them made."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter = Counter()
        self.largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.calls[func.__name__] += 1
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, torch.Tensor):
                self.largest = max(self.largest, tensor.untyped_storage().nbytes() // tensor.element_size())
        return out

    def attention(self) -> tuple[int, int]:
        """Return how often attention ran forwards and backwards."""
        names = {name: number for name, number in self.calls.items() if "attention" in name}
        backward = sum(number for name, number in names.items() if "backward" in name)
        return sum(names.values()) - backward, backward


def watch(model, *args, **kwargs) -> Watch:
    pixels = zoo.pixel_values(model)
    with Watch() as seen:
        gmar_hf.explain(model, pixels, *args, **kwargs)
    return seen


class TestNumberOfPasses:
    @pytest.mark.parametrize(("name", "reads_few"), [("vit", True), ("siglip", False), ("deit_teacher", True)])
    def test_torchs_backward_as_far_as_needed(self, name, reads_few):
        """Not through the first layer, and through the last one only where the head reads most tokens."""
        model, layers = zoo.MODELS[name](), 3
        between = (layers, layers - 2 if reads_few else layers - 1)
        assert watch(model, 1).attention() == between
        assert watch(model, 1, "gradient-rollout").attention() == between
        assert watch(model, 1, "contribution").attention() == between
        assert watch(model, 1, "contribution", return_maps=False).attention() == between
        assert watch(model, 1, return_head_maps=True).attention() == between

    @pytest.mark.parametrize("method", FORWARD_METHODS)
    def test_methods_of_one_forward(self, method):
        assert watch(zoo.vit(), 1, method).attention() == (3, 0)
        assert watch(zoo.vit(), [[1, 2], [3, 4]], method).attention() == (3, 0)

    @pytest.mark.parametrize("method", BACKWARD_METHODS)
    def test_one_forward_for_all_targets(self, method):
        model = zoo.vit()
        num_forwards = []
        model.vit.register_forward_hook(lambda *args: num_forwards.append(1))
        forward, backward = watch(model, 1, method).attention()
        assert watch(model, [[0, 1, 2, 3]] * 2, method).attention() == (forward, 4 * backward)
        assert len(num_forwards) == 2

    @pytest.mark.parametrize("method", BACKWARD_METHODS)
    def test_parameters_get_no_gradients(self, method):
        # Nothing of a weight's shape is made: its gradient would be.
        model = zoo.vit()
        shapes = {tuple(parameter.shape) for name, parameter in model.named_parameters() if "layers" in name}
        made = set()

        class Shapes(TorchDispatchMode):
            def __torch_dispatch__(self, func, types, args=(), kwargs=None):
                out = func(*args, **(kwargs or {}))
                if isinstance(out, torch.Tensor) and func.__name__.startswith(("mm", "bmm", "addmm", "sum")):
                    made.add(tuple(out.shape))
                return out

        pixels = zoo.pixel_values(model)
        with Shapes():
            gmar_hf.explain(model, pixels, 1, method)
        assert not made & {shape for shape in shapes if len(shape) == 2}
        assert all(parameter.grad is None for parameter in model.parameters())


class TestMemory:
    @pytest.mark.parametrize(
        ("method", "kwargs"),
        [
            ("gmar", {"norm": "l1", "return_head_maps": True}),
            ("gmar", {"norm": "l2"}),
            ("contribution", {}),
            ("rollout", {}),
            ("gradient-rollout", {}),
            ("attention", {}),
        ],
        ids=str,
    )
    def test_nothing_of_tokens_squared(self, method, kwargs):
        narrow = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
        config = ViTConfig(**narrow, image_size=128, patch_size=2, num_labels=3)
        model = zoo.build(ViTForImageClassification, config)
        tokens = 64 * 64 + 1
        pixels = zoo.pixel_values(model, batch=1)
        with Watch() as seen:
            out = gmar_hf.explain(model, pixels, 1, method, **kwargs)
        assert out.attribution.shape == (1, 64, 64)
        assert seen.largest <= max(blocks.BLOCK_ELEMENTS * 8, 16 * tokens)
        assert seen.largest < tokens**2 / 8

    def test_the_watch_sees_the_backward(self):
        matrix = torch.ones(3, 3, requires_grad=True)
        with Watch() as seen:
            torch.autograd.grad((matrix @ torch.ones(3, 200) @ torch.ones(200, 300)).sum(), matrix)
        assert seen.largest == 200 * 300
        assert seen.calls["mm.default"] == 4


class TestNothingStays:
    @pytest.fixture(autouse=True, scope="class")
    @staticmethod
    def only_what_is_new():
        """What was there before is none of the garbage collector's business, which takes seconds to look through."""
        gc.collect()
        gc.freeze()
        yield
        gc.unfreeze()

    def live_tensors(self) -> int:
        return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())

    @pytest.mark.parametrize("method", [*BACKWARD_METHODS, *FORWARD_METHODS])
    def test_no_tensor_waits_for_the_garbage_collector(self, method):
        model = zoo.beit_relative()
        pixels = zoo.pixel_values(model)
        gmar_hf.explain(model, pixels, [[0, 1]] * 2, method)
        gc.collect()
        gc.disable()
        try:
            before = self.live_tensors()
            out = gmar_hf.explain(model, pixels, [[0, 1]] * 2, method, return_head_maps=True)
            assert self.live_tensors() == before + len(out.tensors())
            del out
            assert self.live_tensors() == before
        finally:
            gc.enable()

    def test_a_failure_leaves_nothing(self):
        model = zoo.vit()
        pixels = zoo.pixel_values(model)

        def fail() -> None:
            with contextlib.suppress(ValueError):
                gmar_hf.explain(model, pixels, lambda logits: logits)

        fail()
        gc.collect()
        before = self.live_tensors()
        fail()
        gc.collect()
        assert self.live_tensors() == before

    def test_the_model_is_let_go(self):
        model = zoo.clip()
        pixels = zoo.pixel_values(model)
        gmar_hf.explain(model, pixels)
        with gmar_hf.retain_attention(model) as attentions:
            model(pixel_values=pixels)
        gone = weakref.ref(model), weakref.ref(model.vision_model), weakref.ref(model.config)
        del model
        gc.collect()
        assert [reference() for reference in gone] == [None] * 3
        assert len(attentions) == 3

    def test_results_hold_no_graph(self):
        model = zoo.vit()
        out = gmar_hf.explain(model, zoo.pixel_values(model), return_head_maps=True)
        assert all(tensor.grad_fn is None and not tensor.requires_grad for tensor in out.tensors().values())


class TestSizes:
    """Scores of any size: their gradients must neither vanish nor overflow on the way."""

    LINEAR = ("head_score", "head_contribution", "head_maps", "prefix_contribution")

    @pytest.mark.parametrize("method", [*BACKWARD_METHODS, *FORWARD_METHODS])
    @pytest.mark.parametrize("exponent", [-60, -20, 20, 30])
    def test_powers_of_two_are_exact(self, method, exponent):
        # In float32 a power of two changes no digit: the gradients' size passes beside the arithmetic.
        model = zoo.vit()
        pixels = zoo.pixel_values(model)
        plain = gmar_hf.explain(model, pixels, lambda logits: logits[:, 1], method, return_head_maps=True)
        scaled = gmar_hf.explain(
            model, pixels, lambda logits: logits[:, 1] * 2.0**exponent, method, return_head_maps=True
        )
        assert torch.equal(scaled.readout, plain.readout)
        for name in self.LINEAR:
            if getattr(plain, name) is not None:
                assert torch.equal(getattr(scaled, name), getattr(plain, name) * 2.0**exponent), name
        if plain.head_importance is not None:
            assert torch.equal(scaled.head_importance, plain.head_importance)
        if method == "contribution":
            assert torch.equal(scaled.attribution, plain.attribution * 2.0**exponent)
        elif method != "gradient-rollout":  # whose map has a part without gradients
            assert torch.equal(scaled.attribution, plain.attribution)

    @pytest.mark.parametrize("norm", ["l1", "l2"])
    def test_squares_do_not_vanish(self, norm):
        model = zoo.vit()
        pixels = zoo.pixel_values(model)
        plain = gmar_hf.explain(model, pixels, 1, norm=norm)
        tiny = gmar_hf.explain(model, pixels, lambda logits: logits[:, 1] * 1e-30, norm=norm)
        torch.testing.assert_close(tiny.head_importance, plain.head_importance)
        torch.testing.assert_close(tiny.readout, plain.readout)
        assert (tiny.head_score > 0).all()

    @pytest.mark.parametrize("factor", [1e-30, 1e-8, 1e-4, 1.0, 1e4, 1e8, 1e30])
    @pytest.mark.parametrize("name", ["vit", "beit_relative", "dinov2_registers"])
    def test_float16(self, name, factor):
        model = zoo.MODELS[name]().half()
        pixels = zoo.pixel_values(model)
        plain = gmar_hf.explain(model, pixels, 1, return_head_maps=True)
        scaled = gmar_hf.explain(model, pixels, lambda logits: logits[:, 1] * factor, return_head_maps=True)
        for name in self.LINEAR:
            assert relative_error(getattr(scaled, name) / factor, getattr(plain, name)) < 0.01, name
        assert relative_error(scaled.head_importance, plain.head_importance) < 0.01

    def test_each_image_has_its_own_size(self):
        model = zoo.vit().half()
        pixels = zoo.pixel_values(model, batch=4)
        factors = torch.tensor([1e-8, 1.0, 1e4, -1e8])
        plain = gmar_hf.explain(model, pixels, 1)
        scaled = gmar_hf.explain(model, pixels, lambda logits: logits[:, 1] * factors)
        expected = plain.head_contribution * factors[:, None, None]
        for image in range(4):
            assert relative_error(scaled.head_contribution[image], expected[image]) < 0.01

    @pytest.mark.parametrize(("name", "dtype"), sample_product(sorted(zoo.MODELS), [torch.float16, torch.bfloat16]))
    def test_no_layer_is_lost(self, name, dtype):
        model = zoo.MODELS[name]().to(dtype)
        out = gmar_hf.explain(model, zoo.pixel_values(model), 1, return_head_maps=True)
        assert (out.head_score > 0).all()
        assert (out.head_contribution != 0).all()
        assert all(tensor.dtype == torch.float32 for name, tensor in out.tensors().items() if name != "target")

    @pytest.mark.parametrize("name", pick(sorted(zoo.MODELS), 6))
    def test_float16_loses_no_digits_to_small_gradients(self, name):
        # The same rounded weights in float32: what is left is the rounding of float16's normal numbers.
        model = zoo.MODELS[name]().half()
        pixels = zoo.pixel_values(model)
        plain = gmar_hf.explain(copy.deepcopy(model).float(), pixels, 1)
        half = gmar_hf.explain(model, pixels, 1)
        for field, tolerance in (("head_score", 0.0025), ("head_contribution", 0.008)):
            actual, expected = getattr(half, field), getattr(plain, field)
            by_layer = (actual - expected).abs().amax(dim=-1) / expected.abs().amax(dim=-1)
            assert (by_layer < tolerance).all(), field

    @pytest.mark.parametrize("kind", ["half", "autocast"])
    @pytest.mark.parametrize("factor", [2.0**-14, 2.0**10, 300.0])
    @pytest.mark.parametrize("name", ["vit", "siglip"])
    def test_heads_of_any_gain_in_float16(self, name, factor, kind):
        # SigLIP's mean over tokens makes small gradients smaller; a gain of 300 overflows fp16 at the first scale.
        model = zoo.MODELS[name]()
        with torch.no_grad():
            model.classifier.weight *= factor
        model = model.half()
        pixels = zoo.pixel_values(model)
        plain = gmar_hf.explain(copy.deepcopy(model).float(), pixels, 1)
        with torch.autocast("cpu", torch.float16, enabled=kind == "autocast"):
            out = gmar_hf.explain(model if kind == "half" else model.float(), pixels, 1)
        assert relative_error(out.readout, plain.readout) < 0.002
        assert relative_error(out.head_contribution, plain.head_contribution) < 0.02

    def test_logits_are_float32_for_a_callable(self):
        model = zoo.vit().half()
        seen = []

        def target(logits: torch.Tensor) -> torch.Tensor:
            seen.append(logits.dtype)
            return logits.softmax(dim=-1)[:, 1]

        gmar_hf.explain(model, zoo.pixel_values(model), target)
        assert seen == [torch.float32]

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    @pytest.mark.parametrize("name", ["vit", "beit_relative"])
    def test_autocast(self, name, dtype):
        model = zoo.MODELS[name]()
        pixels = zoo.pixel_values(model)
        plain = gmar_hf.explain(model, pixels, 1, return_head_maps=True)
        with torch.autocast("cpu", dtype):
            out = gmar_hf.explain(model, pixels, 1, return_head_maps=True)
            tiny = gmar_hf.explain(model, pixels, lambda logits: logits[:, 1] * 1e-8, return_head_maps=True)
            assert torch.is_autocast_enabled("cpu")
        tolerance = 0.01 if dtype == torch.float16 else 0.08
        for name in (*self.LINEAR, "attribution", "readout"):
            assert relative_error(getattr(out, name), getattr(plain, name)) < tolerance, name
        assert relative_error(tiny.head_maps * 1e8, plain.head_maps) < tolerance

    @pytest.mark.parametrize("method", ["gmar", "rollout", "attention"])
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_reductions_under_autocast_keep_float32(self, method, dtype):
        # Without prefix tokens a rollout's map sums to one; rounded products of rows would not, this closely.
        model = zoo.siglip()
        with torch.autocast("cpu", dtype):
            out = gmar_hf.explain(model, zoo.pixel_values(model), 1, method)
        for shares in (out.attribution.flatten(1), out.readout, out.head_importance):
            sums = shares.sum(dim=-1)
            torch.testing.assert_close(sums, torch.ones_like(sums), rtol=0, atol=2e-6)


class TestWhatCannotBeTraced:
    def skipping(self, layer: int) -> torch.nn.Module:
        """A ViT one of whose layers runs and is then ignored."""
        model = zoo.vit()
        model.vit.layers[layer].register_forward_hook(lambda module, args, output: args[0])
        return model

    @pytest.mark.parametrize(
        ("method", "layer"),
        [(method, layer) for method in BACKWARD_METHODS for layer in range(3)]
        + [(method, 2) for method in FORWARD_METHODS],
    )
    def test_a_layer_that_nobody_reads(self, method, layer):
        model = self.skipping(layer)
        words = "does not come from all of its attention layers, one after another"
        with pytest.raises(gmar_hf.UnsupportedModelError, match=f"ViTForImageClassification cannot be.*{words}"):
            gmar_hf.explain(model, zoo.pixel_values(model), 1, method)

    @pytest.mark.parametrize("method", ["gmar", "rollout"])
    def test_fewer_layers_than_the_config_says(self, method):
        model = zoo.vit()
        del model.vit.layers[1]
        with pytest.raises(gmar_hf.UnsupportedModelError, match="2 of the 3 layers in its config go through"):
            gmar_hf.explain(model, zoo.pixel_values(model), 1, method)
        model.config.num_hidden_layers = 2
        assert gmar_hf.explain(model, zoo.pixel_values(model), 1, method).head_importance.shape == (2, 2, 3)

    def test_logits_that_do_not_read_the_backbone(self):
        model = zoo.vit()
        model.register_forward_hook(lambda module, args, output: type(output)(logits=output.logits.detach() * 2))
        with pytest.raises(gmar_hf.UnsupportedModelError, match="its logits do not depend on the backbone's"):
            gmar_hf.explain(model, zoo.pixel_values(model), 1)

    @pytest.mark.parametrize("method", ["gmar", "rollout"])
    def test_scores_that_do_not_depend_on_the_image(self, method):
        model = zoo.vit()
        pixels = zoo.pixel_values(model)
        with pytest.raises(gmar_hf.ArgumentError, match=r"got a score with no gradient for image\(s\) \[0, 1\]"):
            gmar_hf.explain(model, pixels, lambda logits: logits[:, 1] * 0, method)
        with pytest.raises(gmar_hf.ArgumentError, match=r"got a score with no gradient for image\(s\) \[1\]"):
            gmar_hf.explain(model, pixels, lambda logits: logits[:, 1] * torch.tensor([1.0, 0.0]), method)
        constant = torch.ones(2, requires_grad=True)
        with pytest.raises(gmar_hf.ArgumentError, match="`target` must depend on what the model sees"):
            gmar_hf.explain(model, pixels, lambda logits: constant * 2, method)
        with torch.no_grad():
            model.classifier.weight[1] = 0
        with pytest.raises(gmar_hf.ArgumentError, match="whether the classifier's weights are all zero"):
            gmar_hf.explain(model, pixels, 1, method)

    @pytest.mark.parametrize("method", ["gmar", "rollout"])
    def test_a_slope_that_is_not_finite(self, method):
        model = zoo.vit()
        with pytest.raises(gmar_hf.NonFiniteError, match="Check that `target` has a finite slope everywhere"):
            gmar_hf.explain(model, zoo.pixel_values(model), lambda logits: (logits[:, 1] * 0).sqrt(), method)

    def test_gradients_that_overflow_inside(self):
        model = zoo.vit()
        with torch.no_grad():
            for layer in model.vit.layers:
                layer.attention.o_proj.weight *= math.inf
        # The logits are NaN before any gradient is.
        with pytest.raises(gmar_hf.NonFiniteError, match="The logits must be finite"):
            gmar_hf.explain(model, zoo.pixel_values(model), 1)
        model = zoo.vit()
        model.vit.layers[1].mlp.register_full_backward_hook(lambda module, grads, outputs: (grads[0] * math.inf,))
        with pytest.raises(gmar_hf.NonFiniteError, match="got NaN or infinity inside the encoder"):
            gmar_hf.explain(model, zoo.pixel_values(model), 1)


class MultiLayerHead(ViTForImageClassification):
    """A head that reads an earlier layer's class token beside the last one's, as DINOv2's own linear heads do."""

    def forward(self, pixel_values=None, **kwargs):
        states = self.vit(pixel_values, output_hidden_states=True)
        read = states.last_hidden_state[:, 0] + 2 * states.hidden_states[1][:, 0]
        return ImageClassifierOutput(logits=self.classifier(read))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_every_path_from_the_logits_is_followed(dtype):
    model = zoo.vit()
    model.__class__ = MultiLayerHead
    images = zoo.pixel_values(model, batch=2)
    truth = check_parity(model, images)  # explicit attention, autograd from the logits
    assert truth.agrees, truth.errors
    exact = gmar_hf.explain(model, images, 1, method="contribution")
    plain = gmar_hf.explain(zoo.vit(), images, 1, method="contribution")
    assert relative_error(exact.head_contribution, plain.head_contribution) > 0.05  # the other path counts
    half = gmar_hf.explain(model.to(dtype), images.to(dtype), 1, method="contribution")
    assert relative_error(half.head_contribution, exact.head_contribution) < (1e-6 if dtype == torch.float32 else 0.1)
