"""`explain` as users meet it: around wrapped models, at other sizes, and with bad input, refused in words."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    BeitConfig,
    BeitForSemanticSegmentation,
    CLIPConfig,
    CLIPModel,
    Dinov2Config,
    Dinov2ForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)

import gmar_hf
from gmar_hf.explanation.parity import check_parity
from gmar_hf.metrics import head_ablation
from gmar_hf.models.refusals import OFF_THE_INTERFACE
from tests.helpers import state, zoo
from tests.helpers.explainers import image_processor, make_explainer, name_classes, photo
from tests.helpers.sampling import sample_product

METHODS = ["gmar", "contribution", "removal", "path", "recommended", "rollout", "gradient-rollout", "attention"]
# peft 0.21 still calls a method that transformers 5.20 renamed.
OLD_NAMES_IN_PEFT = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


class Around(nn.Module):
    """A module of the user's around a model, which a function calls; it has no config."""

    def __init__(self, model: nn.Module, call: Callable[[nn.Module, torch.Tensor], Any]) -> None:
        super().__init__()
        self.model, self.call = model, call

    def forward(self, pixel_values: torch.Tensor) -> Any:
        return self.call(self.model, pixel_values)


def once(model: nn.Module, pixels: torch.Tensor) -> Any:
    return model(pixel_values=pixels)


def twice(model: nn.Module, pixels: torch.Tensor) -> Any:
    model(pixel_values=pixels.flip(-1))
    return model(pixel_values=pixels)


def distributed(model: nn.Module) -> nn.Module:
    """What trains on several processes, in one."""
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    return nn.parallel.DistributedDataParallel(model)


def not_compiling(graph: torch.fx.GraphModule, inputs: list) -> None:
    raise AssertionError("the model was compiled")


RUNNERS = {
    "DataParallel": nn.DataParallel,
    "DistributedDataParallel": distributed,
    "torch.compile": lambda model: torch.compile(model, backend=not_compiling),
    "both": lambda model: torch.compile(nn.DataParallel(model), backend=not_compiling),
}


@pytest.fixture(autouse=True)
def no_process_group():
    yield
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


class TestWrappers:
    @OLD_NAMES_IN_PEFT
    @pytest.mark.parametrize(("name", "method"), sample_product(["vit", "beit_relative", "siglip"], METHODS))
    def test_peft(self, name, method):
        from peft import LoraConfig, get_peft_model

        base = zoo.MODELS[name]()
        wrapped = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj", "v_proj"], lora_dropout=0.5))
        zoo.perturb(wrapped, seed=5, std=0.1)
        pixels = zoo.pixel_values(base)
        before = state.snapshot(wrapped)
        assert wrapped.training or any(module.training for module in wrapped.modules())
        out = gmar_hf.explain(wrapped, pixels, 1, method, return_head_maps=True)
        assert state.snapshot(wrapped) == before
        assert out.settings["model_class"] == type(zoo.MODELS[name]()).__name__
        merged = copy.deepcopy(wrapped).merge_and_unload()
        expected = gmar_hf.explain(merged, pixels, 1, method, return_head_maps=True)
        for key, tensor in expected.tensors().items():
            torch.testing.assert_close(out.tensors()[key], tensor, rtol=1e-3, atol=1e-5)
        with pytest.raises(gmar_hf.ArgumentError, match=f"argument that {type(merged).__name__} knows"):
            gmar_hf.explain(wrapped, pixels, colour="blue")

    @OLD_NAMES_IN_PEFT
    def test_peft_retains_attention(self):
        from peft import LoraConfig, get_peft_model

        wrapped = get_peft_model(zoo.vit(), LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
        with gmar_hf.retain_attention(wrapped) as attentions:
            wrapped(pixel_values=zoo.pixel_values(zoo.vit())).logits[:, 1].sum().backward()
        assert all(attention.grad.abs().max() > 0 for attention in attentions)

    @pytest.mark.parametrize("kind", ["device_map", "offload"])
    @pytest.mark.parametrize("method", METHODS)
    def test_accelerate(self, kind, method):
        import accelerate

        pixels = zoo.pixel_values(zoo.vit())
        expected = gmar_hf.explain(zoo.vit(), pixels, 1, method, return_head_maps=True)
        model = zoo.vit()
        model.classifier.requires_grad_(False)
        if kind == "device_map":
            accelerate.dispatch_model(model, {"": "cpu"}, force_hooks=True)
        else:
            accelerate.cpu_offload(model, execution_device=torch.device("cpu"))
        flags = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
        assert set(flags.values()) == {True, False}
        out = gmar_hf.explain(model, pixels, 1, method, return_head_maps=True)
        # Of layers whose weights come and go all tokens are multiplied, not those alone that are read.
        torch.testing.assert_close(out.head_maps, expected.head_maps, atol=1e-6, rtol=0)
        torch.testing.assert_close(out.attribution, expected.attribution, atol=1e-6, rtol=0)
        assert {name: parameter.requires_grad for name, parameter in model.named_parameters()} == flags

    # torch's compiler looks at tensors in ways that torch warns of.
    @pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
    @pytest.mark.parametrize("stance", ["force_eager", pytest.param("default", marks=pytest.mark.slow)])
    def test_compiled(self, stance):
        model = zoo.vit()
        pixels = zoo.pixel_values(model, size=(24, 40))
        expected = gmar_hf.explain(model, pixels, 1, interpolate_pos_encoding=True)
        compiled = torch.compile(model, backend="eager")
        with torch.compiler.set_stance(stance):
            out = gmar_hf.explain(compiled, pixels, 1, interpolate_pos_encoding=True)
        assert torch.equal(out.attribution, expected.attribution)
        assert out.settings["model_class"] == "ViTForImageClassification"

    @pytest.mark.parametrize("wrap", RUNNERS.values(), ids=RUNNERS)
    def test_what_only_runs_a_model_is_looked_through(self, wrap):
        """One rule at every door; a compiled model is not compiled once more for a pass of another kind."""
        model, data = name_classes(zoo.vit()), [{"image": photo()}] * 2
        pixels = zoo.pixel_values(model)
        expected = gmar_hf.explain(model, pixels, 1, "contribution")
        wrapped = wrap(model)
        before = state.snapshot(model)
        out = gmar_hf.explain(wrapped, pixels, 1, "contribution")
        assert torch.equal(out.attribution, expected.attribution)
        assert out.settings == expected.settings
        assert check_parity(wrapped, pixels).agrees
        assert gmar_hf.describe_heads(wrapped, pixels).attention_distance.shape == (2, 3, 3)
        result, named = (
            make_explainer(one, image_processor=image_processor())(photo())[0] for one in (wrapped, model)
        )
        assert torch.equal(result["attribution"], named["attribution"])
        report, plain = (gmar_hf.survey(one, data, image_processor(), batch_size=2) for one in (wrapped, model))
        assert torch.equal(report.mean["contribution"], plain.mean["contribution"])
        assert report.settings["model"] == plain.settings["model"]
        options = {"methods": ["rollout", "legrad"], "metrics": ["insertion", "sparseness"], "num_steps": 2}
        found, same = (gmar_hf.evaluate(one, data, image_processor(), **options) for one in (wrapped, model))
        assert (found.values == same.values).all()
        assert state.snapshot(model) == before

    def test_compiled_in_place(self, monkeypatch):
        model = zoo.vit()
        expected = gmar_hf.explain(model, zoo.pixel_values(model), 1)

        def compiled(*args, **kwargs):
            raise AssertionError("the compiled model was called")

        for module in (model, model.vit.layers[1]):
            module._compiled_call_impl = compiled
        out = gmar_hf.explain(model, zoo.pixel_values(model), 1)
        assert torch.equal(out.attribution, expected.attribution)
        assert model._compiled_call_impl is model.vit.layers[1]._compiled_call_impl is compiled

    def test_a_part_that_is_compiled(self):
        def compiled(*args, **kwargs):
            raise AssertionError("the compiled part was called")

        model = zoo.vit()
        pixels = zoo.pixel_values(model)
        expected = gmar_hf.explain(model, pixels, 1, "path")
        model.vit = torch.compile(model.vit, backend=compiled)
        before = vars(model.vit)["forward"]
        out = gmar_hf.explain(model, pixels, 1, "path")
        assert torch.equal(out.attribution, expected.attribution)
        assert vars(model.vit)["forward"] is before

    @pytest.mark.parametrize("how", [{"method": "path", "num_points": 3}, {"method": "contribution", "num_masks": 4}])
    def test_a_module_that_normalises_pixels_where_they_are(self, how):
        class Own(nn.Module):
            def __init__(self, model: nn.Module, is_in_place: bool) -> None:
                super().__init__()
                self.model, self.config, self.is_in_place = model, model.config, is_in_place

            def forward(self, pixel_values: torch.Tensor) -> Any:
                normalised = pixel_values.sub_(0.3).div_(0.7) if self.is_in_place else (pixel_values - 0.3) / 0.7
                return self.model(pixel_values=normalised)

        in_place, other = (Own(zoo.vit(), is_in_place) for is_in_place in (True, False))
        pixels = zoo.pixel_values(zoo.vit())
        kept = pixels.clone()
        out, expected = (gmar_hf.explain(each, pixels, 1, **how) for each in (in_place, other))
        assert torch.equal(out.attribution, expected.attribution)
        assert torch.equal(pixels, kept)
        assert check_parity(in_place, pixels).agrees
        ablated, ablated_other = (head_ablation(each, pixels, 1) for each in (in_place, other))
        torch.testing.assert_close(ablated.change, ablated_other.change, atol=1e-6, rtol=0)

    def test_what_torch_has_traced(self):
        model = zoo.vit()
        pixels = zoo.pixel_values(model)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's of what a trace holds fast, and that it will go
            traced = torch.jit.trace(model, pixels, strict=False)
        with pytest.raises(gmar_hf.UnsupportedModelError, match="it is TorchScript, which no hook reaches"):
            gmar_hf.explain(traced, pixels, 1)

    def test_a_backbone_that_runs_twice(self):
        with pytest.raises(gmar_hf.UnsupportedModelError, match="it attends 6 times, with 3 layers in its config"):
            gmar_hf.explain(Around(zoo.vit(), twice), zoo.pixel_values(zoo.vit()), 1)

    def test_a_module_without_a_config(self):
        model, pixels = Around(zoo.vit(), once), zoo.pixel_values(zoo.vit())
        out, expected = (gmar_hf.explain(each, pixels, 1) for each in (model, model.model))
        assert torch.equal(out.attribution, expected.attribution)
        assert check_parity(model, pixels).agrees
        words = "Around must have a `config` that tells of its layers and heads; it has none"
        for call in (
            lambda: gmar_hf.describe_heads(model, pixels),
            lambda: gmar_hf.explain(model, pixels, 1, head_weights=torch.ones(3, 3)),
            lambda: gmar_hf.silence_heads(model, [(0, 1)]).__enter__(),
        ):
            with pytest.raises(gmar_hf.UnsupportedModelError, match=words):
                call()

    def test_a_module_of_the_users_around_a_backbone(self):
        class Own(nn.Module):
            def __init__(self, model: nn.Module) -> None:
                super().__init__()
                self.backbone, self.head = model.vit, model.classifier

            def forward(self, pixel_values: torch.Tensor) -> SimpleNamespace:
                return SimpleNamespace(
                    logits=self.head(self.backbone(pixel_values=pixel_values).last_hidden_state[:, 0])
                )

        model = zoo.vit()
        pixels = zoo.pixel_values(model)
        expected = gmar_hf.explain(model, pixels, 1)
        out = gmar_hf.explain(Own(model), pixels, 1)
        assert torch.equal(out.attribution, expected.attribution)
        assert out.settings["model_class"] == "Own"


class TestResults:
    def test_settings(self):
        model = zoo.deit()
        out = gmar_hf.explain(
            model, zoo.pixel_values(model), method="rollout", residual_weight=0.5, start_layer=1, return_head_maps=True
        )
        assert {name: value for name, value in out.settings.items() if name != "versions"} == {
            "method": "rollout",
            "norm": "l1",
            "residual_weight": 0.5,
            "start_layer": 1,
            "return_maps": True,
            "return_head_maps": True,
            "head_weights": None,
            "num_masks": 0,
            "mask_baseline": "blur",
            "mask_pattern": "pairs",
            "seed": 0,
            "num_points": None,
            "value_reference": None,
            "grid": {"prefix": 2, "rows": 4, "cols": 8},
            "patch_size": [8, 4],
            "model_class": "DeiTForImageClassification",
            "model_dtype": "float32",
            "model_kwargs": {},
        }

    def test_one_output(self):
        config = ViTConfig(**zoo.NARROW, **zoo.SQUARE, num_labels=1)
        model = zoo.build(ViTForImageClassification, config)
        out = gmar_hf.explain(model, zoo.pixel_values(model))
        assert out.target.tolist() == [0, 0]
        assert out.logits.shape == (2, 1)

    @pytest.mark.parametrize("name", ["vit", "dinov2"])
    def test_pixels_of_another_dtype(self, name):
        model = zoo.MODELS[name]()
        pixels = zoo.pixel_values(model)
        expected = gmar_hf.explain(model, pixels.half().float(), 1)
        assert torch.equal(gmar_hf.explain(model, pixels.half(), 1).attribution, expected.attribution)

    def test_interpolation(self):
        model = zoo.vit()
        pixels = zoo.pixel_values(model, size=(24, 56))
        out = gmar_hf.explain(model, pixels, interpolate_pos_encoding=True)
        assert out.attribution.shape == (2, 3, 7)
        assert out.settings["grid"] == {"prefix": 1, "rows": 3, "cols": 7}
        assert out.settings["model_kwargs"] == {"interpolate_pos_encoding": True}
        # What is left of a patch at the right and at the bottom is not seen by the model.
        uneven = zoo.pixel_values(model, size=(26, 60))
        assert gmar_hf.explain(model, uneven, interpolate_pos_encoding=True).attribution.shape == (2, 3, 7)


class TestBadInput:
    @pytest.mark.parametrize(
        ("pixels", "words"),
        [
            (torch.zeros(2, 3, 32, 32, dtype=torch.uint8), r"got uint8 \(2, 3, 32, 32\)\."),
            (torch.zeros(2, 3, 32, 32, dtype=torch.long), r"got int64 \(2, 3, 32, 32\)\."),
            (torch.zeros(0, 3, 32, 32), r"got float32 \(0, 3, 32, 32\)\."),
            (torch.zeros(3, 32, 32), r"got float32 \(3, 32, 32\)\."),
            (torch.zeros(2, 64, 192), "are put together by `gmar_hf.images.images_from_patches`"),
            (torch.zeros(2, 1, 3, 32, 32), r"got float32 \(2, 1, 3, 32, 32\)\."),
        ],
    )
    def test_shape_and_dtype(self, pixels, words):
        with pytest.raises(gmar_hf.ArgumentError, match=words) as caught:
            gmar_hf.explain(zoo.vit(), pixels)
        assert str(caught.value).startswith(
            "`pixel_values` must be floating point (batch, channels, height, width) with at least one image; got "
        )

    def test_the_meta_device(self):
        model = zoo.vit()
        pixels = zoo.pixel_values(model)
        with pytest.raises(gmar_hf.ArgumentTypeError, match=r"real numbers; got one on the meta device"):
            gmar_hf.explain(model, pixels.to("meta"))
        empty = copy.deepcopy(model).to("meta")
        for images in (pixels, pixels.to("meta")):
            with pytest.raises(gmar_hf.ArgumentError, match="`model` must have its weights; got some on the meta"):
                gmar_hf.explain(empty, images)

    @pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # torch's own jvp
    @pytest.mark.parametrize("name", ["vmap", "grad", "jvp", "grad of parameters"])
    def test_transforms_of_torch_func(self, name):
        model = zoo.vit()
        pixels, parameters = zoo.pixel_values(model), dict(model.named_parameters())

        def explained(pixels):
            return gmar_hf.explain(model, pixels).attribution

        def of_parameters(parameters):
            scores = torch.func.functional_call(model, parameters, (pixels,)).logits
            return scores.sum() + explained(pixels).sum()

        calls = {
            "vmap": lambda: torch.func.vmap(lambda image: explained(image[None]))(pixels),
            "grad": lambda: torch.func.grad(lambda pixels: explained(pixels).sum())(pixels),
            "jvp": lambda: torch.func.jvp(explained, (pixels,), (pixels,)),
            "grad of parameters": lambda: torch.func.grad(of_parameters)(parameters),
        }
        with pytest.raises(gmar_hf.ArgumentError, match=r"outside the transforms of `torch\.func`"):
            calls[name]()

    @pytest.mark.parametrize("pixels", [None, [[0.0]], "cat.jpg", {"pixel_values": torch.zeros(1, 3, 32, 32)}])
    def test_no_tensor(self, pixels):
        with pytest.raises(gmar_hf.ArgumentTypeError) as caught:
            gmar_hf.explain(zoo.vit(), pixels)
        assert str(caught.value) == (
            "`pixel_values` must be a tensor (batch, channels, height, width); "
            f"got {type(pixels).__name__}. Make it with the image processor: "
            '`image_processor(images, return_tensors="pt")["pixel_values"]`.'
        )

    @pytest.mark.parametrize("name", ["vit", "clip", "dinov2"])
    @pytest.mark.parametrize("channels", [1, 4])
    def test_channels(self, name, channels):
        model = zoo.MODELS[name]()
        with pytest.raises(gmar_hf.ArgumentError) as caught:
            gmar_hf.explain(model, torch.zeros(2, channels, 32, 32))
        assert str(caught.value) == (
            f"`pixel_values` must have 3 channels for {type(model).__name__}; got {channels}. Convert the images."
        )

    @pytest.mark.parametrize(
        ("name", "takes"), [*((name, "32 x 32") for name in ("vit", "deit", "clip", "siglip")), ("ijepa", "24 x 40")]
    )
    @pytest.mark.parametrize("size", [(16, 24), (64, 64)])
    def test_size(self, name, takes, size):
        model = zoo.MODELS[name]()
        before = state.snapshot(model)
        with pytest.raises(gmar_hf.ArgumentError) as caught:
            gmar_hf.explain(model, torch.zeros(2, 3, *size))
        assert str(caught.value) == (
            f"`pixel_values` must be {takes} pixels for {type(model).__name__}; got {size[0]} x {size[1]}. Resize to "
            "that, or pass `interpolate_pos_encoding=True`."
        )
        assert caught.value.__cause__ is not None
        assert state.snapshot(model) == before

    def test_interpolation_that_the_model_does_not_offer(self):
        # DINOv2 always interpolates, and transformers would swallow the argument.
        model = zoo.dinov2_registers()
        with pytest.raises(gmar_hf.ArgumentError) as caught:
            gmar_hf.explain(model, zoo.pixel_values(model), interpolate_pos_encoding=True)
        assert str(caught.value) == (
            "`interpolate_pos_encoding` must be an argument that Dinov2WithRegistersForImageClassification knows; it "
            "does not. It was made for images of 32 x 32 pixels: resize to that, or leave the argument out."
        )
        assert gmar_hf.explain(model, zoo.pixel_values(model, size=(16, 24))).attribution.shape == (2, 2, 3)

    @pytest.mark.parametrize("name", ["vit", "clip", "dinov2", "beit_relative"])
    def test_unknown_arguments(self, name):
        model = zoo.MODELS[name]()
        with pytest.raises(gmar_hf.ArgumentError) as caught:
            gmar_hf.explain(model, zoo.pixel_values(model), traget=3)
        assert str(caught.value) == (
            f"`traget` must be an argument that {type(model).__name__} knows; it does not. `explain` itself has "
            "target, method, norm, residual_weight, start_layer, return_maps, return_head_maps, return_logits, "
            "head_weights, "
            "num_masks, mask_baseline, mask_pattern, seed, num_points, value_reference. Did you mean 'target'?"
        )

    def test_labels(self):
        model = zoo.vit()
        with pytest.raises(gmar_hf.ArgumentError, match="Say what to explain by `target`"):
            gmar_hf.explain(model, zoo.pixel_values(model), labels=torch.tensor([0, 1]))

    @pytest.mark.parametrize(
        ("kwargs", "words"),
        [
            (
                {"method": "lime"},
                '`method` must be one of "gmar", "contribution", "removal", "path", "recommended", "rollout"',
            ),
            ({"norm": "l3"}, '`norm` must be one of "l1", "l2"; got \'l3\''),
            ({"residual_weight": -1}, "`residual_weight` must be a number that is 0 or more; got -1"),
            ({"start_layer": -1}, "`start_layer` must be a whole number of 0 or more; got -1"),
            ({"start_layer": 3}, r"`start_layer` must be in \[0, 2\]; got 3"),
            ({"target": 5}, r"`target` must be in \[0, 4\] \(the model has 5 classes\); got 5"),
            ({"target": "tabby"}, "`target` must be None, an int"),
            ({"output_attentions": True}, "`output_attentions` must not be given .* by `gmar_hf.retain_attention`"),
            ({"return_dict": False}, "`return_dict` must not be given"),
            ({"target": [0]}, "`target` must have one row for each of the 2 images"),
        ],
    )
    def test_arguments(self, kwargs, words):
        model = zoo.vit()
        before = state.snapshot(model)
        with pytest.raises(gmar_hf.GMARError, match=words):
            gmar_hf.explain(model, zoo.pixel_values(model), **kwargs)
        assert state.snapshot(model) == before

    @pytest.mark.parametrize("method", METHODS)
    def test_weights_that_are_nan(self, method):
        model = zoo.vit()
        with torch.no_grad():
            model.vit.layers[1].mlp.fc1.weight[0, 0] = math.nan
        with pytest.raises(gmar_hf.NonFiniteError) as caught:
            gmar_hf.explain(model, zoo.pixel_values(model), method=method)
        assert str(caught.value) == (
            "The logits must be finite; got NaN or infinity for image(s) [0, 1] of the batch. Check `pixel_values` "
            "and the model's weights for NaN, or use bfloat16 or float32 instead of float16."
        )
        assert isinstance(caught.value, ArithmeticError)

    def test_pixels_that_are_nan(self):
        model = zoo.vit()
        pixels = zoo.pixel_values(model, batch=3)
        pixels[1, 0, 0, 0] = math.nan
        with pytest.raises(gmar_hf.NonFiniteError, match=r"image\(s\) \[1\] of the batch"):
            gmar_hf.explain(model, pixels)


def test_arguments_that_the_model_knows_and_cannot_use():
    model = zoo.vit()
    words = (
        "`bool_masked_pos` must be something that this ViTForImageClassification can use; its forward fails with it"
    )
    with pytest.raises(gmar_hf.ArgumentError, match=words):  # it has no mask token
        gmar_hf.explain(model, zoo.pixel_values(model), bool_masked_pos=torch.zeros(2, 16, dtype=torch.bool))
    for name in ("return_maps", "return_head_maps", "return_logits", "interpolate_pos_encoding"):
        with pytest.raises(gmar_hf.ArgumentError, match=f"`{name}` must be True or False; got 'no'"):
            gmar_hf.explain(model, zoo.pixel_values(model), **{name: "no"})


class TestModelsThatAreRefused:
    """By the class's name and the reason; the state comes back (`test_engine_parity` has every method)."""

    @pytest.mark.parametrize(
        ("name", "reason"),
        [
            *((name, OFF_THE_INTERFACE) for name in ("convnext", "resnet")),
            ("pvt_v2_linear", "its attention is not over one grid of the same tokens and"),
        ],
    )
    def test_architectures(self, name, reason):
        model = zoo.REFUSED[name]()
        state.make_uneven(model)
        before = state.snapshot(model)
        with pytest.raises(gmar_hf.UnsupportedModelError) as caught:
            gmar_hf.explain(model, zoo.pixel_values(model))
        assert str(caught.value).startswith(f"{type(model).__name__} cannot be explained: {reason}")
        assert "Use a model like ViT, DeiT, BEiT" in str(caught.value)
        assert state.snapshot(model) == before

    @pytest.mark.parametrize("name", ["pvt_v2_linear", "convnext"])
    def test_another_size_does_not_hide_the_reason(self, name):
        with pytest.raises(gmar_hf.UnsupportedModelError):
            gmar_hf.explain(zoo.REFUSED[name](), torch.zeros(2, 3, 64, 64))

    @pytest.mark.parametrize("model", [None, "google/vit-base-patch16-224", 3, zoo.vit])
    def test_what_is_no_module(self, model):
        with pytest.raises(gmar_hf.ArgumentTypeError) as caught:
            gmar_hf.explain(model, torch.zeros(1, 3, 32, 32))
        assert str(caught.value) == (
            f"`model` must be an image classifier of transformers; got {type(model).__name__}. "
            "Load it with `AutoModelForImageClassification.from_pretrained`."
        )

    def test_what_is_no_model_of_transformers(self):
        model = nn.Sequential(nn.Flatten(), nn.Linear(3072, 2))
        with pytest.raises(
            gmar_hf.ArgumentTypeError, match="must be a transformers model or hold one; got Sequential"
        ):
            gmar_hf.explain(model, torch.zeros(1, 3, 32, 32))

    def test_without_logits(self):
        words = r"ViTModel cannot be explained: it returns no logits of shape \(batch, classes\)"
        with pytest.raises(gmar_hf.UnsupportedModelError, match=words):
            gmar_hf.explain(zoo.vit().vit, torch.zeros(1, 3, 32, 32))

    def test_logits_for_every_pixel(self):
        config = BeitConfig(
            **{**zoo.NARROW, "num_hidden_layers": 4}, **zoo.SQUARE, use_auxiliary_head=False, out_indices=[1, 2, 3, 4]
        )
        model = zoo.build(BeitForSemanticSegmentation, config)
        with pytest.raises(gmar_hf.UnsupportedModelError, match="BeitForSemanticSegmentation cannot be explained"):
            gmar_hf.explain(model, torch.zeros(1, 3, 32, 32))

    def test_two_towers(self):
        config = CLIPConfig(vision_config={**zoo.WIDE, **zoo.SQUARE}, text_config=zoo.TEXT, projection_dim=8)
        model = zoo.build(CLIPModel, config)
        with pytest.raises(gmar_hf.GMARError, match=r"CLIPModel|CLIPAttention"):
            gmar_hf.explain(model, torch.zeros(1, 3, 32, 32), input_ids=torch.ones(1, 4, dtype=torch.long))

    def test_patches_that_the_tokens_do_not_fit(self):
        model = zoo.build(Dinov2ForImageClassification, Dinov2Config(**zoo.DINO, **zoo.SQUARE))
        model.config.patch_size = 4
        with pytest.raises(gmar_hf.UnsupportedModelError, match="got 17 tokens for 8 x 8 patches"):
            gmar_hf.explain(model, torch.zeros(1, 3, 32, 32))


def test_no_warnings_and_no_output(capsys, caplog):
    model = zoo.beit_relative()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for method in METHODS:
            gmar_hf.explain(model, zoo.pixel_values(model), method=method, return_head_maps=True)
    assert capsys.readouterr() == ("", "")
    assert not caplog.records


@pytest.mark.parametrize(
    "options",
    [
        {"method": "recommended"},
        {"method": "contribution", "num_masks": 4},
        {"num_masks": 2, "mask_pattern": "partition"},
    ],
)
def test_another_default_device(options):
    """The user's `torch.set_default_device` is for the user's tensors."""
    model = zoo.vit()
    pixels, options = zoo.pixel_values(model), {"method": "contribution", **options}
    expected = gmar_hf.explain(model, pixels, 0, **options)
    with torch.device("meta"):
        found = gmar_hf.explain(model, pixels, 0, **options)
    assert torch.equal(found.attribution, expected.attribution)
