"""Explicit attention probabilities and their gradients, whatever a user does around them."""

from __future__ import annotations

import pytest
import torch
from transformers import ViTConfig, ViTForImageClassification

import gmar_hf
from tests.helpers import state, zoo
from tests.helpers.sampling import sample_product
from tests.helpers.threads import in_threads


def droopy_vit():
    """A ViT with dropout everywhere."""
    config = ViTConfig(
        **zoo.NARROW,
        **zoo.SQUARE,
        num_labels=zoo.NUM_LABELS,
        attention_probs_dropout_prob=0.3,
        hidden_dropout_prob=0.2,
    )
    return zoo.build(ViTForImageClassification, config)


def retained(model, pixels=None, **kwargs):
    """The attentions of a forward, of which the second logit is differentiated; by default of the zoo's images."""
    pixels = zoo.pixel_values(model) if pixels is None else pixels
    with gmar_hf.retain_attention(model) as attentions:
        model(pixel_values=pixels, **kwargs).logits[:, 1].sum().backward()
    return attentions


def enable_checkpointing(model, **kwargs) -> None:
    """Call what releases before and after 5.20 name differently."""
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable(kwargs)


class TestProbabilities:
    @pytest.mark.parametrize("name", sorted(zoo.MODELS))
    def test_equal_eager_attentions(self, name):
        model = zoo.MODELS[name]()
        pixels = zoo.pixel_values(model)
        with gmar_hf.retain_attention(model) as attentions:
            logits = model(pixel_values=pixels).logits
        with torch.no_grad():
            expected = zoo.explicit(name)(pixel_values=pixels, output_attentions=True)
        torch.testing.assert_close(logits, expected.logits)
        assert len(attentions) == len(expected.attentions) == 3
        for attention, eager in zip(attentions, expected.attentions, strict=True):
            torch.testing.assert_close(attention, eager)
            torch.testing.assert_close(attention.sum(dim=-1), torch.ones(attention.shape[:-1]))

    @pytest.mark.parametrize(("name", "trainable"), sample_product(sorted(zoo.MODELS), [True, False]))
    def test_grad_equals_autograd(self, name, trainable):
        model = zoo.MODELS[name]().requires_grad_(trainable)
        with gmar_hf.retain_attention(model) as attentions:
            expected = torch.autograd.grad(
                model(pixel_values=zoo.pixel_values(model)).logits[:, 1].sum(), list(attentions)
            )
            model(pixel_values=zoo.pixel_values(model)).logits[:, 1].sum().backward()
        assert all(gradient.abs().max() > 0 for gradient in expected)
        for attention, gradient in zip(attentions, expected, strict=True):
            torch.testing.assert_close(attention.grad, gradient)

    def test_gradient_is_a_slope(self):
        # An own forward with one attention entry nudged: what `.grad` promises, without autograd.
        model = zoo.vit().double()
        pixels = zoo.pixel_values(model, batch=1)
        slope = retained(model, pixels)[2].grad[0, 1, 0, 5]

        attention = model.vit.layers[2].attention
        value = {}
        attention.v_proj.register_forward_hook(lambda module, args, output: value.update(v=output))

        def nudge(step: float) -> torch.Tensor:
            def hook(module, args):
                (context,) = args
                change = torch.zeros_like(context)
                change[0, 0, 8:16] = step * value["v"][0, 5, 8:16]
                return (context + change,)

            handle = attention.o_proj.register_forward_pre_hook(hook)
            with torch.no_grad():
                logit = model(pixel_values=pixels).logits[0, 1]
            handle.remove()
            return logit

        torch.testing.assert_close(slope, (nudge(1e-3) - nudge(-1e-3)) / 2e-3, rtol=1e-5, atol=0)

    def test_sequence(self):
        model = zoo.vit()
        with gmar_hf.retain_attention(model) as attentions:
            assert len(attentions) == 0
            assert list(attentions) == []
            model(pixel_values=zoo.pixel_values(model))
        assert [attention.shape for attention in attentions[:2]] == [(2, 3, 17, 17)] * 2
        assert attentions[-1] is attentions[2]
        with pytest.raises(IndexError):
            attentions[3]

    def test_output_attentions_of_a_forward_inside(self):
        model = zoo.vit()
        with gmar_hf.retain_attention(model) as attentions:
            outputs = model(pixel_values=zoo.pixel_values(model), output_attentions=True)
        assert all(a is b for a, b in zip(outputs.attentions, attentions, strict=True))

    def test_padding_mask(self):
        model = zoo.vit()
        mask = torch.ones(2, 17)
        mask[0, -3:] = 0
        for attention in retained(model, attention_mask=mask):
            assert (attention[0, ..., -3:] == 0).all()
            assert (attention[1] > 0).all()

    def test_padding_that_attends_to_nothing_has_gradients(self):
        model = zoo.vit()
        pixels = zoo.pixel_values(model)
        mask = torch.ones(len(pixels), 1, 17, 17, dtype=torch.bool)
        mask[:, :, -3:] = mask[..., -3:] = False
        with gmar_hf.retain_attention(model) as attentions:
            model(pixel_values=pixels, attention_mask=mask).logits[:, 1].sum().backward()
        for attention in attentions:
            assert (attention[:, :, -3:] == 0).all()
            assert attention.grad is None or attention.grad.isfinite().all()
        assert all(parameter.grad.isfinite().all() for parameter in model.parameters())

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
    def test_other_dtypes(self, dtype):
        model = zoo.beit_relative().to(dtype)
        for attention in retained(model):
            assert attention.dtype == attention.grad.dtype == dtype
            sums = attention.double().sum(dim=-1)
            torch.testing.assert_close(sums, torch.ones_like(sums), rtol=0, atol=1e-12 if dtype.itemsize > 4 else 0.02)

    def test_autocast(self):
        model = zoo.vit()
        plain = retained(model)
        with torch.autocast("cpu", torch.bfloat16):
            attentions = retained(model)
        for attention, expected in zip(attentions, plain, strict=True):
            torch.testing.assert_close(attention.float(), expected, rtol=0, atol=0.05)
            assert attention.grad.abs().max() > 0


class TestForwards:
    def test_a_second_forward_replaces_the_first(self):
        model = zoo.vit()
        with gmar_hf.retain_attention(model) as attentions:
            model(pixel_values=zoo.pixel_values(model, batch=1))
            first = list(attentions)
            model(pixel_values=zoo.pixel_values(model, batch=3, seed=1))
            assert [attention.shape[0] for attention in attentions] == [3, 3, 3]
            assert not any(old is new for old in first for new in attentions)

    def test_a_second_forward_of_the_same_images(self):
        model = zoo.vit()
        pixels = zoo.pixel_values(model)
        with gmar_hf.retain_attention(model) as attentions:
            with torch.no_grad():
                model(pixel_values=pixels)
            assert not any(attention.requires_grad for attention in attentions)
            model(pixel_values=pixels).logits[:, 1].sum().backward()
        assert all(attention.grad is not None for attention in attentions)

    @pytest.mark.parametrize("is_alone", [True, False])
    @pytest.mark.parametrize("name", ["vit", "clip", "dinov2"])
    def test_backbone_called_directly(self, name, is_alone):
        model = zoo.MODELS[name]()
        backbone = next(part for part in model.children() if hasattr(part, "config"))
        pixels = zoo.pixel_values(model)
        with gmar_hf.retain_attention(backbone if is_alone else model) as attentions:
            for batch in (2, 1):
                backbone(pixel_values=pixels[:batch]).last_hidden_state.sum().backward()
                assert len(attentions) == 3
                assert all(attention.grad.shape[0] == batch for attention in attentions)

    @pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
    def test_without_gradients(self, mode):
        model = zoo.vit()
        with mode(), gmar_hf.retain_attention(model) as attentions:
            model(pixel_values=zoo.pixel_values(model))
        for attention, expected in zip(attentions, retained(model), strict=True):
            assert torch.equal(attention, expected)
            assert not attention.requires_grad

    def test_a_failing_forward(self):
        model = zoo.vit()
        before = state.snapshot(model)
        with gmar_hf.retain_attention(model) as attentions:
            with pytest.raises(ValueError, match="32"):
                model(pixel_values=torch.zeros(1, 3, 16, 16))
            model(pixel_values=zoo.pixel_values(model))
            assert len(attentions) == 3
        assert state.snapshot(model) == before

    def test_a_forward_that_fails_on_its_way_is_not_mixed_with_the_one_before(self):
        model = zoo.vit()
        with gmar_hf.retain_attention(model) as attentions:
            model(pixel_values=zoo.pixel_values(model, batch=1))
            handle = model.vit.layers[1].register_forward_pre_hook(lambda *args: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                model(pixel_values=zoo.pixel_values(model, batch=2))
            assert [attention.shape[0] for attention in attentions] == [2]
            handle.remove()
            model(pixel_values=zoo.pixel_values(model, batch=3))
            assert [attention.shape[0] for attention in attentions] == [3, 3, 3]

    def test_only_the_last_layers_trainable(self):
        model = zoo.vit().requires_grad_(False)
        model.vit.layers[2].requires_grad_(True)
        assert all(attention.grad.abs().max() > 0 for attention in retained(model))


class TestTraining:
    def test_dropout_is_transformers_own(self):
        model = droopy_vit().train()
        pixels = zoo.pixel_values(model)
        torch.manual_seed(0)
        with gmar_hf.retain_attention(model) as attentions:
            logits = model(pixel_values=pixels).logits
        model.set_attn_implementation("eager")
        torch.manual_seed(0)
        torch.testing.assert_close(logits, model(pixel_values=pixels).logits)
        for attention in attentions:
            torch.testing.assert_close(attention.sum(dim=-1), torch.ones(2, 3, 17))  # as they were before dropout

    @pytest.mark.parametrize("trainable", [True, False])
    @pytest.mark.parametrize("model_of", [zoo.vit, zoo.beit_relative, droopy_vit])
    def test_gradient_checkpointing(self, model_of, trainable):
        def gradients(*, checkpointing: bool) -> tuple[list, dict]:
            model = model_of().requires_grad_(trainable).train()
            if checkpointing:
                enable_checkpointing(model, use_reentrant=False)
            torch.manual_seed(0)
            attentions = retained(model)
            assert len(attentions) == 3
            return [attention.grad for attention in attentions], dict(model.named_parameters())

        plain, parameters = gradients(checkpointing=False)
        again, parameters_again = gradients(checkpointing=True)
        torch.testing.assert_close(again, plain)
        for name, parameter in parameters.items():
            torch.testing.assert_close(parameters_again[name].grad, parameter.grad)

    def test_reentrant_gradient_checkpointing(self):
        plain, model = zoo.vit().train(), zoo.vit().train()
        enable_checkpointing(model, use_reentrant=True)
        attentions = retained(model, zoo.pixel_values(model).requires_grad_())
        for attention, expected in zip(attentions, retained(plain), strict=True):
            torch.testing.assert_close(attention, expected)
            torch.testing.assert_close(attention.grad, expected.grad)

    def test_a_training_step_inside(self):
        def step(model, context) -> list[torch.Tensor]:
            with context:
                loss = model(pixel_values=zoo.pixel_values(model), labels=torch.tensor([1, 2])).loss
                loss.backward()
            return [parameter.grad for parameter in model.parameters()]

        first, second = zoo.vit().train(), zoo.vit().train()
        inside, plain = step(first, gmar_hf.retain_attention(first)), step(second, torch.enable_grad())
        torch.testing.assert_close(inside, plain)


class TestNesting:
    def test_explain_inside_the_block(self):
        model = zoo.vit()
        pixels = zoo.pixel_values(model)
        plain = gmar_hf.explain(model, pixels, 1)
        with gmar_hf.retain_attention(model) as attentions:
            logits = model(pixel_values=pixels).logits
            before = list(attentions)
            out = gmar_hf.explain(model, pixels, 1)
            assert all(a is b for a, b in zip(attentions, before, strict=True))
            logits[:, 1].sum().backward()
        assert torch.equal(out.attribution, plain.attribution)
        l1 = torch.stack([attention.grad.abs().sum(dim=(-2, -1)) for attention in attentions], dim=1)
        torch.testing.assert_close(out.head_score, l1)

    def test_inside_a_callable_target(self):
        model = zoo.vit()
        pixels = zoo.pixel_values(model)
        plain = gmar_hf.explain(model, pixels, 1, return_head_maps=True)
        kept = []

        def target(logits: torch.Tensor) -> torch.Tensor:
            with gmar_hf.retain_attention(model) as attentions:
                logits_again = model(pixel_values=pixels).logits
            kept.extend(attentions)
            torch.testing.assert_close(logits_again, logits)
            return logits[:, 1]

        before = state.snapshot(model)
        out = gmar_hf.explain(model, pixels, target, return_head_maps=True)
        assert state.snapshot(model) == before
        assert len(kept) == 3
        assert torch.equal(out.head_maps, plain.head_maps)

    def test_two_models_side_by_side(self):
        models = zoo.vit(), zoo.beit_relative()
        with gmar_hf.retain_attention(models[0]) as first, gmar_hf.retain_attention(models[1]) as second:
            for model in models:
                model(pixel_values=zoo.pixel_values(model)).logits[:, 0].sum().backward()
        assert [attention.grad.shape for attention in first] == [(2, 3, 17, 17)] * 3
        assert [attention.grad.shape for attention in second] == [(2, 4, 16, 16)] * 3

    def test_two_blocks_of_one_model(self):
        model = zoo.vit()
        with gmar_hf.retain_attention(model) as outer:
            model(pixel_values=zoo.pixel_values(model, batch=1))
            with gmar_hf.retain_attention(model) as inner:
                model(pixel_values=zoo.pixel_values(model, batch=2))
            model(pixel_values=zoo.pixel_values(model, batch=3))
        assert [attention.shape[0] for attention in (outer[0], inner[0])] == [3, 2]


class TestState:
    @pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt])
    @pytest.mark.parametrize("name", ["vit", "clip", "beit_relative"])
    def test_put_back(self, name, error):
        model = zoo.MODELS[name]()
        state.make_uneven(model)
        before = state.snapshot(model)
        try:
            with gmar_hf.retain_attention(model) as attentions, torch.no_grad():
                model(pixel_values=zoo.pixel_values(model))
                if error is not None:
                    raise error
        except (RuntimeError, KeyboardInterrupt) as caught:
            assert type(caught) is error  # noqa: PT017
        assert state.snapshot(model) == before
        assert len(attentions) == 3

    def test_usable_after_the_block(self):
        model = zoo.vit()
        pixels = zoo.pixel_values(model)
        with gmar_hf.retain_attention(model) as attentions:
            logits = model(pixel_values=pixels).logits
        logits[:, 1].sum().backward()
        assert all(attention.grad is not None for attention in attentions)
        before = [attention.clone() for attention in attentions]
        model(pixel_values=zoo.pixel_values(model, seed=1))
        assert all(torch.equal(a, b) for a, b in zip(attentions, before, strict=True))

    def test_threads(self):
        model = zoo.vit()
        tensors: dict[int, list] = {}

        def work(batch: int) -> None:
            pixels = zoo.pixel_values(model, batch=batch)
            for _ in range(10):
                with gmar_hf.retain_attention(model) as attentions:
                    score = model(pixel_values=pixels).logits[:, 1].sum()
                tensors[batch] = [*attentions, *torch.autograd.grad(score, list(attentions))]

        in_threads(lambda: work(1), lambda: work(2))
        for batch in (1, 2):
            assert [tensor.shape[0] for tensor in tensors[batch]] == [batch] * 6
        assert model.config._attn_implementation == "sdpa"

    def test_what_is_no_model_is_refused(self):
        with (
            pytest.raises(gmar_hf.ArgumentTypeError, match="must be a transformers model"),
            gmar_hf.retain_attention(torch.nn.Linear(2, 2)),
        ):
            pass


@pytest.mark.parametrize("model", [3, None, "google/vit-base-patch16-224", torch.nn.Linear(2, 2)])
def test_what_is_no_model(model):
    words = "`model` must be a transformers model"
    with pytest.raises(gmar_hf.ArgumentTypeError, match=words), gmar_hf.retain_attention(model):
        raise AssertionError("not reached")
