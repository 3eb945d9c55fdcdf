"""Whatever happens inside `explain`, whoever else is at work: the model is as before, and so are the others."""

from __future__ import annotations

import copy
import threading

import pytest
import torch
from torch import nn
from transformers import ViTConfig, ViTForImageClassification

import gmar_hf
from tests.helpers import state, zoo
from tests.helpers.sampling import sample_product
from tests.helpers.threads import in_threads

METHODS = ["gmar", "contribution", "removal", "path", "recommended", "rollout", "gradient-rollout", "attention"]
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

    @pytest.mark.parametrize(("name", "method"), sample_product(sorted(zoo.MODELS), METHODS))
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
        out = gmar_hf.explain(model, zoo.pixel_values(model), 1)
        assert torch.equal(out.attribution, plain.attribution)
        assert state.snapshot(model) == before
        configs = {
            "": model.config,
            "vision_config": model.config.vision_config,
            "text_config": model.config.text_config,
        }
        assert {name: config._attn_implementation for name, config in configs.items()} == implementations

    def test_training_mode_makes_no_difference(self):
        config = ViTConfig(**zoo.NARROW, **zoo.SQUARE, attention_probs_dropout_prob=0.5, hidden_dropout_prob=0.5)
        model = zoo.build(ViTForImageClassification, config)
        plain = gmar_hf.explain(model, zoo.pixel_values(model), 1)
        model.train()
        out = gmar_hf.explain(model, zoo.pixel_values(model), 1)
        assert torch.equal(out.attribution, plain.attribution)
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

        plain, explained = (train(zoo.beit_relative(), explain=explain) for explain in (False, True))
        assert all(torch.equal(explained[name], tensor) for name, tensor in plain.items())

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
        out = gmar_hf.explain(model, zoo.pixel_values(model), lambda logits: logits.mul_(2)[:, 1])
        assert torch.equal(out.logits, plain.logits)
        assert torch.equal(out.head_contribution, plain.head_contribution)

    def test_gradient_checkpointing_is_not_in_the_way(self):
        model = zoo.vit()
        plain = gmar_hf.explain(model, zoo.pixel_values(model), 1, return_head_maps=True)
        enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        enable({"use_reentrant": False})
        out = gmar_hf.explain(model.train(), zoo.pixel_values(model), 1, return_head_maps=True)
        assert torch.equal(out.head_maps, plain.head_maps)


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
            boolean = mask.clone()[:, None, None].expand(-1, 1, 17, -1) == 1
            same, *wide = (
                gmar_hf.explain(
                    model, zoo.pixel_values(model), target.clone(), method, attention_mask=inside
                ).attribution
                for inside in (mask.clone(), boolean, torch.zeros(boolean.shape).masked_fill(~boolean, -1e9))
            )
        assert torch.equal(same, plain.attribution)
        for attribution in wide:
            torch.testing.assert_close(attribution, plain.attribution)

    def test_a_model_made_inside_is_refused(self):
        with torch.inference_mode():
            model = zoo.vit()
        with pytest.raises(gmar_hf.ArgumentError, match=r"must have been loaded outside `torch\.inference_mode`"):
            gmar_hf.explain(model, zoo.pixel_values(zoo.vit()))


class TestThreads:
    def explaining(self, model: nn.Module, method: str = "gmar", times: int = 8):
        """Return a function that explains again and again, and checks each result."""
        pixels = zoo.pixel_values(model)
        expected = gmar_hf.explain(model, pixels, 1, method, return_head_maps=True)

        def run() -> None:
            for _ in range(times):
                tensors = gmar_hf.explain(model, pixels, 1, method, return_head_maps=True).tensors()
                for name, tensor in expected.tensors().items():
                    assert torch.equal(tensors[name], tensor), name

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

    def test_another_threads_forward_of_the_same_model_in_the_middle(self):
        # Between the backbone and the head: what the other thread sees must not be taken for this one's hidden state.
        model = zoo.vit()
        pixels = zoo.pixel_values(model)
        expected = gmar_hf.explain(model, pixels, 1)
        others = []

        def elsewhere(*args) -> None:
            if threading.current_thread() is threading.main_thread():
                in_threads(lambda: others.append(model(pixel_values=zoo.pixel_values(model, batch=3)).logits))

        model.classifier.register_forward_pre_hook(elsewhere)
        out = gmar_hf.explain(model, pixels, 1)
        assert others[0].shape == (3, 5)
        assert torch.equal(out.readout, expected.readout)
        assert torch.equal(out.attribution, expected.attribution)

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

    @pytest.mark.parametrize("implementation", ["sdpa", "eager"])
    def test_a_bystander_of_one_config_is_trained(self, implementation):
        config = ViTConfig(**zoo.NARROW, **zoo.SQUARE, num_labels=zoo.NUM_LABELS)
        explained = zoo.build(ViTForImageClassification, config, seed=0)
        bystander = zoo.build(ViTForImageClassification, config, seed=1).train()
        explained.set_attn_implementation(implementation)
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
        assert config._attn_implementation == implementation

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
        for output in outputs:
            assert torch.equal(output.logits, plain.logits)
            assert all(torch.equal(a, b) for a, b in zip(output.attentions, plain.attentions, strict=True))


class TestNesting:
    def test_explain_inside_a_target(self):
        model, second = zoo.vit(), zoo.deit()
        pixels = zoo.pixel_values(model)
        plain = gmar_hf.explain(model, pixels, 1, return_head_maps=True)
        inner = []

        def target(logits: torch.Tensor) -> torch.Tensor:
            inner.append(gmar_hf.explain(model, pixels, 1, return_head_maps=True))
            gmar_hf.explain(second, zoo.pixel_values(second))
            return logits[:, 1]

        state.make_uneven(model)
        before = state.snapshot(model)
        outer = gmar_hf.explain(model, pixels, target, return_head_maps=True)
        assert state.snapshot(model) == before
        for out in (outer, *inner):
            assert torch.equal(out.head_maps, plain.head_maps)
