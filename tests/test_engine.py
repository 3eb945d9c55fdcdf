"""`explain` as users meet it: the model is as before whatever happens, and bad input is refused in words."""

from __future__ import annotations

import copy
import math
import threading
import warnings
from types import SimpleNamespace

import pytest
import state
import torch
import zoo
from torch import nn
from transformers import (
    BeitConfig,
    BeitForSemanticSegmentation,
    CLIPConfig,
    CLIPModel,
    Dinov2Config,
    Dinov2ForImageClassification,
    Siglip2Config,
    Siglip2ForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)

import gmar_hf

METHODS = ["gmar", "contribution", "rollout", "gradient-rollout", "attention"]
# peft 0.21 still calls a method that transformers 5.20 renamed.
OLD_NAMES_IN_PEFT = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
STAGES = ["forward", "late in the forward", "target", "head's backward", "encoder's backward"]


def broken(model: nn.Module, stage: str, error: BaseException):
    """Make a model fail at a stage, by hooks of the user's own; return the target to explain."""

    def fail(*args):
        raise error

    layers = model.vit.layers if hasattr(model, "vit") else model.vision_model.encoder.layers
    if stage == "forward":
        layers[0].register_forward_pre_hook(fail)
    if stage == "late in the forward":
        layers[2].register_forward_hook(fail)
    if stage == "encoder's backward":
        layers[1].register_full_backward_hook(fail)

    def target(logits: torch.Tensor) -> torch.Tensor:
        if stage == "target":
            raise error
        if stage == "head's backward":
            logits.register_hook(fail)
        return logits[:, 1]

    return target


class TestState:
    """Attention implementation, flags, gradients, hooks, random state: as before."""

    @pytest.mark.parametrize("method", METHODS)
    @pytest.mark.parametrize("name", sorted(zoo.MODELS))
    def test_after_success(self, name, method):
        model = zoo.MODELS[name]()
        state.make_uneven(model)
        before = state.snapshot(model)
        gmar_hf.explain(model, zoo.pixel_values(model), method=method, return_head_maps=True)
        assert state.snapshot(model) == before

    @pytest.mark.parametrize("error", [RuntimeError("mine"), KeyboardInterrupt("mine")], ids=["error", "interrupt"])
    @pytest.mark.parametrize("stage", STAGES)
    @pytest.mark.parametrize("name", ["vit", "clip"])
    def test_after_a_failure(self, name, stage, error):
        model = zoo.MODELS[name]()
        target = broken(model, stage, error)
        state.make_uneven(model)
        before = state.snapshot(model)
        for _ in range(2):
            with pytest.raises(type(error), match="mine"):
                gmar_hf.explain(model, zoo.pixel_values(model), target)
            assert state.snapshot(model) == before

    @pytest.mark.parametrize(
        "implementations",
        [
            {"": "eager", "vision_config": "sdpa", "text_config": "eager"},
            {"": "sdpa", "vision_config": "eager", "text_config": "sdpa"},
            {"": "eager", "vision_config": "eager", "text_config": "eager"},
        ],
        ids=str,
    )
    @pytest.mark.parametrize("name", ["clip", "siglip"])
    def test_implementations_that_differ(self, name, implementations):
        model = zoo.MODELS[name]()
        plain = gmar_hf.explain(model, zoo.pixel_values(model), 1)
        model.config._attn_implementation = implementations
        before = state.snapshot(model)
        found = gmar_hf.explain(model, zoo.pixel_values(model), 1)
        assert torch.equal(found.attribution, plain.attribution)
        assert state.snapshot(model) == before
        assert {name: config._attn_implementation for name, config in self.named(model)} == implementations

    def named(self, model):
        return [("", model.config)] + [
            (name, getattr(model.config, name)) for name in ("vision_config", "text_config")
        ]

    def test_training_mode_makes_no_difference(self):
        config = ViTConfig(**zoo.NARROW, **zoo.SQUARE, attention_probs_dropout_prob=0.5, hidden_dropout_prob=0.5)
        model = zoo.build(ViTForImageClassification, config)
        plain = gmar_hf.explain(model, zoo.pixel_values(model), 1)
        model.train()
        found = gmar_hf.explain(model, zoo.pixel_values(model), 1)
        assert torch.equal(found.attribution, plain.attribution)
        assert all(module.training for module in model.modules())

    def test_in_the_middle_of_training(self):
        # A graph, gradients and an optimizer's step are pending while a batch is explained.
        def train(model: nn.Module, *, explain: bool) -> dict[str, torch.Tensor]:
            torch.manual_seed(0)  # BEiT drops paths at random: an explanation must draw nothing
            optimizer = torch.optim.AdamW(model.train().parameters(), lr=1e-2)
            for number in range(2):
                images = zoo.pixel_values(model, seed=number)
                loss = model(pixel_values=images, labels=torch.tensor([1, 2])).loss
                if explain:
                    gmar_hf.explain(model, images)
                loss.backward()
                if explain:
                    gmar_hf.explain(model, images, method="contribution")
                optimizer.step()
                optimizer.zero_grad()
            return model.state_dict()

        plain, found = train(zoo.beit_relative(), explain=False), train(zoo.beit_relative(), explain=True)
        assert all(torch.equal(found[name], tensor) for name, tensor in plain.items())

    @pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
    def test_modes_of_autograd(self, mode):
        model = zoo.vit()
        with mode():
            before = state.snapshot(model)
            gmar_hf.explain(model, zoo.pixel_values(model))
            assert state.snapshot(model) == before

    def test_inputs_are_left_alone(self):
        model = zoo.vit()
        pixels = zoo.pixel_values(model).requires_grad_()
        target = torch.tensor([1, 2])
        copies = pixels.detach().clone(), target.clone()
        out = gmar_hf.explain(model, pixels, target)
        assert torch.equal(pixels, copies[0])
        assert torch.equal(target, copies[1])
        assert pixels.grad is None
        out.target.add_(1)
        assert torch.equal(target, copies[1])

    def test_a_target_that_writes_into_the_logits(self):
        model = zoo.vit()
        plain = gmar_hf.explain(model, zoo.pixel_values(model), lambda logits: logits[:, 1] * 2)
        found = gmar_hf.explain(model, zoo.pixel_values(model), lambda logits: logits.mul_(2)[:, 1])
        assert torch.equal(found.logits, plain.logits)
        assert torch.equal(found.head_contribution, plain.head_contribution)

    def test_gradient_checkpointing_is_not_in_the_way(self):
        model = zoo.vit()
        plain = gmar_hf.explain(model, zoo.pixel_values(model), 1, return_head_maps=True)
        enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        enable({"use_reentrant": False})
        found = gmar_hf.explain(model.train(), zoo.pixel_values(model), 1, return_head_maps=True)
        assert torch.equal(found.head_maps, plain.head_maps)


class TestInferenceMode:
    """Tensors made inside cannot be kept for a backward: they are copied."""

    @pytest.mark.parametrize("method", METHODS)
    def test_everything_made_inside(self, method):
        model = zoo.vit()
        mask = torch.ones(2, 17)
        mask[0, -3:] = 0
        target = torch.tensor([1, 2])
        plain = gmar_hf.explain(model, zoo.pixel_values(model), target, method, attention_mask=mask)
        with torch.inference_mode():
            found = gmar_hf.explain(
                model, zoo.pixel_values(model), target.clone(), method, attention_mask=mask.clone()
            )
            wide = mask.clone()[:, None, None].expand(-1, 1, 17, -1) == 1
            other = gmar_hf.explain(model, zoo.pixel_values(model), target.clone(), method, attention_mask=wide)
        assert torch.equal(found.attribution, plain.attribution)
        torch.testing.assert_close(other.attribution, plain.attribution)

    def test_a_model_made_inside_is_refused(self):
        with torch.inference_mode():
            model = zoo.vit()
        with pytest.raises(gmar_hf.ArgumentError, match=r"must have been loaded outside `torch\.inference_mode`"):
            gmar_hf.explain(model, zoo.pixel_values(zoo.vit()))


def in_threads(*functions) -> None:
    """Run functions at once, and raise what one of them raised."""
    barrier = threading.Barrier(len(functions))
    errors = []

    def work(function):
        try:
            barrier.wait()
            function()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


class TestThreads:
    def explaining(self, model: nn.Module, method: str = "gmar", times: int = 8):
        """Return a function that explains again and again, and checks each result."""
        pixels = zoo.pixel_values(model)
        expected = gmar_hf.explain(model, pixels, 1, method, return_head_maps=True)

        def run() -> None:
            for _ in range(times):
                found = gmar_hf.explain(model, pixels, 1, method, return_head_maps=True)
                for name, tensor in expected.tensors().items():
                    assert torch.equal(found.tensors()[name], tensor), name

        return run

    def test_two_models(self):
        models = zoo.vit(), zoo.clip()
        before = [state.snapshot(model) for model in models]
        in_threads(*(self.explaining(model) for model in models))
        assert [state.snapshot(model) for model in models] == before

    def test_one_model(self):
        model = zoo.beit_relative()
        state.make_uneven(model)
        before = state.snapshot(model)
        in_threads(*(self.explaining(model, method) for method in ("gmar", "contribution", "rollout")))
        assert state.snapshot(model) == before

    def test_two_models_of_one_config(self):
        config = ViTConfig(**zoo.NARROW, **zoo.SQUARE, num_labels=zoo.NUM_LABELS)
        models = [zoo.build(ViTForImageClassification, config, seed) for seed in range(2)]
        in_threads(*(self.explaining(model) for model in models))
        assert config._attn_implementation == "sdpa"

    def test_retaining_and_explaining_one_model(self):
        model = zoo.vit()
        pixels = zoo.pixel_values(model)
        with gmar_hf.retain_attention(model) as expected:
            model(pixel_values=pixels)

        def retain() -> None:
            for _ in range(8):
                with gmar_hf.retain_attention(model) as attentions:
                    model(pixel_values=pixels)
                assert all(torch.equal(a, b) for a, b in zip(attentions, expected, strict=True))

        in_threads(retain, self.explaining(model))
        assert model.config._attn_implementation == "sdpa"

    @pytest.mark.parametrize("own", ["sdpa", "eager"])
    def test_a_bystander_of_one_config_is_trained(self, own):
        config = ViTConfig(**zoo.NARROW, **zoo.SQUARE, num_labels=zoo.NUM_LABELS)
        explained = zoo.build(ViTForImageClassification, config, seed=0)
        bystander = zoo.build(ViTForImageClassification, config, seed=1).train()
        explained.set_attn_implementation(own)
        alone = zoo.build(ViTForImageClassification, copy.deepcopy(config), seed=1).train()
        images = zoo.pixel_values(bystander)

        def train(model: nn.Module) -> None:
            optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
            for _ in range(15):
                optimizer.zero_grad()
                model(pixel_values=images, labels=torch.tensor([1, 2])).loss.backward()
                optimizer.step()

        train(alone)
        in_threads(self.explaining(explained, times=12), lambda: train(bystander))
        for name, tensor in alone.state_dict().items():
            assert torch.equal(bystander.state_dict()[name], tensor), name
        assert bystander.training
        assert config._attn_implementation == own

    def test_a_bystander_runs_in_the_middle(self):
        config = ViTConfig(**zoo.NARROW, **zoo.SQUARE, num_labels=zoo.NUM_LABELS)
        explained, bystander = (zoo.build(ViTForImageClassification, config, seed) for seed in range(2))
        explained.set_attn_implementation("eager")
        images = zoo.pixel_values(explained)
        with torch.no_grad():
            plain = bystander(pixel_values=images, output_attentions=True)
        outputs = []

        def target(logits: torch.Tensor) -> torch.Tensor:
            outputs.append(bystander(pixel_values=images, output_attentions=True))
            return logits[:, 1]

        # In the forward too: a hook of the user's runs another model.
        explained.vit.layers[1].register_forward_pre_hook(
            lambda *args: outputs.append(bystander(pixel_values=images, output_attentions=True)) and None
        )
        gmar_hf.explain(explained, images, target)
        assert len(outputs) == 2
        for found in outputs:
            assert torch.equal(found.logits, plain.logits)
            assert all(torch.equal(a, b) for a, b in zip(found.attentions, plain.attentions, strict=True))


class TestNesting:
    def test_explain_inside_a_target(self):
        model, other = zoo.vit(), zoo.deit()
        pixels = zoo.pixel_values(model)
        plain = gmar_hf.explain(model, pixels, 1, return_head_maps=True)
        inner = []

        def target(logits: torch.Tensor) -> torch.Tensor:
            inner.append(gmar_hf.explain(model, pixels, 1, return_head_maps=True))
            gmar_hf.explain(other, zoo.pixel_values(other))
            return logits[:, 1]

        state.make_uneven(model)
        before = state.snapshot(model)
        outer = gmar_hf.explain(model, pixels, target, return_head_maps=True)
        assert state.snapshot(model) == before
        for found in (outer, *inner):
            assert torch.equal(found.head_maps, plain.head_maps)


class TestWrappers:
    @OLD_NAMES_IN_PEFT
    @pytest.mark.parametrize("name", ["vit", "beit_relative", "siglip"])
    @pytest.mark.parametrize("method", METHODS)
    def test_peft(self, name, method):
        from peft import LoraConfig, get_peft_model

        base = zoo.MODELS[name]()
        wrapped = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj", "v_proj"], lora_dropout=0.5))
        zoo.perturb(wrapped, seed=5, std=0.1)
        pixels = zoo.pixel_values(base)
        before = state.snapshot(wrapped)
        assert wrapped.training or any(module.training for module in wrapped.modules())
        found = gmar_hf.explain(wrapped, pixels, 1, method, return_head_maps=True)
        assert state.snapshot(wrapped) == before
        assert found.settings["model_class"] == type(zoo.MODELS[name]()).__name__
        merged = copy.deepcopy(wrapped).merge_and_unload()
        expected = gmar_hf.explain(merged, pixels, 1, method, return_head_maps=True)
        for key, tensor in expected.tensors().items():
            torch.testing.assert_close(found.tensors()[key], tensor, rtol=1e-3, atol=1e-5)
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
        found = gmar_hf.explain(model, pixels, 1, method, return_head_maps=True)
        assert torch.equal(found.head_maps, expected.head_maps)
        assert torch.equal(found.attribution, expected.attribution)
        assert {name: parameter.requires_grad for name, parameter in model.named_parameters()} == flags

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
        found = gmar_hf.explain(Own(model), pixels, 1)
        assert torch.equal(found.attribution, expected.attribution)
        assert found.settings["model_class"] == "Own"


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
            "grid": {"prefix": 2, "rows": 4, "cols": 8},
            "patch_size": [8, 4],
            "model_class": "DeiTForImageClassification",
            "model_dtype": "float32",
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
            (torch.zeros(2, 64, 192), r"SigLIP2 NaFlex's flattened patches, are not supported"),
            (torch.zeros(2, 1, 3, 32, 32), r"got float32 \(2, 1, 3, 32, 32\)\."),
        ],
    )
    def test_shape_and_dtype(self, pixels, words):
        with pytest.raises(gmar_hf.ArgumentError, match=words) as caught:
            gmar_hf.explain(zoo.vit(), pixels)
        assert str(caught.value).startswith(
            "`pixel_values` must be floating point (batch, channels, height, width) with at least one image; got "
        )

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
        assert str(caught.value) == f"`pixel_values` must have 3 channels for {type(model).__name__}; got {channels}."

    @pytest.mark.parametrize(
        ("name", "takes", "advice"),
        [
            ("vit", "32 x 32", "Resize to that, or pass `interpolate_pos_encoding=True`."),
            ("deit", "32 x 32", "Resize to that, or pass `interpolate_pos_encoding=True`."),
            ("clip", "32 x 32", "Resize to that, or pass `interpolate_pos_encoding=True`."),
            ("siglip", "32 x 32", "Resize to that, or pass `interpolate_pos_encoding=True`."),
            ("ijepa", "24 x 40", "Resize to that, or pass `interpolate_pos_encoding=True`."),
        ],
    )
    @pytest.mark.parametrize("size", [(16, 24), (64, 64)])
    def test_size(self, name, takes, advice, size):
        model = zoo.MODELS[name]()
        before = state.snapshot(model)
        with pytest.raises(gmar_hf.ArgumentError) as caught:
            gmar_hf.explain(model, torch.zeros(2, 3, *size))
        assert str(caught.value) == (
            f"`pixel_values` must be {takes} pixels for {type(model).__name__}; got {size[0]} x {size[1]}. {advice}"
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
            f"`traget` must be an argument that {type(model).__name__} knows; it does not. Leave it out."
        )

    def test_labels(self):
        model = zoo.vit()
        with pytest.raises(gmar_hf.ArgumentError, match="Say what to explain by `target`"):
            gmar_hf.explain(model, zoo.pixel_values(model), labels=torch.tensor([0, 1]))

    @pytest.mark.parametrize(
        ("kwargs", "words"),
        [
            ({"method": "lime"}, '`method` must be one of "gmar", "contribution", "rollout", "gradient-rollout"'),
            ({"norm": "l3"}, '`norm` must be "l1" or "l2"; got \'l3\''),
            ({"residual_weight": -1}, "`residual_weight` must be a number of 0 or more; got -1"),
            ({"start_layer": -1}, "`start_layer` must be a layer's index, 0 or more; got -1"),
            ({"start_layer": 3}, r"`start_layer` must be in \[0, 2\]; got 3"),
            ({"target": 5}, r"`target` must be in \[0, 4\] \(the model has 5 classes\); got 5"),
            ({"target": "tabby"}, "`target` must be None, an int"),
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


class TestModelsThatAreRefused:
    """By the class's name and the reason; the state comes back (`test_engine_parity` has every method)."""

    @pytest.mark.parametrize(
        ("name", "reason"),
        [
            ("data2vec_vision", "its attention does not go through transformers' attention interface"),
            ("swinv2", "its attention does not go through transformers' attention interface"),
            ("convnext", "its attention does not go through transformers' attention interface"),
            ("resnet", "its attention does not go through transformers' attention interface"),
            ("swin", "its attention is not over one grid of the same tokens and heads in every layer"),
            ("segformer", "its attention is not over one grid of the same tokens and heads in every layer"),
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

    @pytest.mark.parametrize("name", ["data2vec_vision", "swin", "convnext"])
    def test_another_size_does_not_hide_the_reason(self, name):
        model = zoo.REFUSED[name]()
        with pytest.raises((gmar_hf.UnsupportedModelError, gmar_hf.ArgumentError)) as caught:
            gmar_hf.explain(model, torch.zeros(2, 3, 64, 64))
        if name != "data2vec_vision":  # which does refuse the size itself
            assert isinstance(caught.value, gmar_hf.UnsupportedModelError)

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

    def test_naflex(self):
        config = Siglip2Config(
            vision_config={**zoo.WIDE, "num_patches": 16, "patch_size": 8}, text_config=zoo.TEXT, num_labels=3
        )
        model = zoo.build(Siglip2ForImageClassification, config)
        with pytest.raises(gmar_hf.ArgumentError, match="SigLIP2 NaFlex's flattened patches, are not supported"):
            gmar_hf.explain(model, torch.zeros(1, 16, 192))

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
