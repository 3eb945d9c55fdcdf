"""A recorder gets its own model's calls, in its own thread, and nobody else notices."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import CLIPConfig, CLIPModel, ViTConfig, ViTForImageClassification, ViTModel

import gmar_hf
from gmar_hf.errors import ArgumentError, ArgumentTypeError, UnsupportedModelError
from gmar_hf.explanation.rollout import attention_blocks
from gmar_hf.models.attention import IMPLEMENTATION, recording
from gmar_hf.models.recorders import AttentionCall, ComputingRecorder, Recorder, call_of, is_recording
from gmar_hf.models.refusals import unsupported
from gmar_hf.models.wrappers import class_name
from tests.helpers import state, zoo
from tests.helpers.threads import in_threads


class Notebook(ComputingRecorder):
    """A recorder that writes everything down and computes plain attention."""

    def __init__(self) -> None:
        self.num_begun = 0
        self.calls: list[AttentionCall] = []

    def begin(self) -> None:
        self.num_begun += 1

    def attend(self, call: AttentionCall) -> tuple[torch.Tensor, None]:
        self.calls.append(call)
        scores = call.query @ call.key.transpose(-2, -1) * call.scaling
        scores = scores if call.bias is None else scores + call.bias
        return scores.softmax(dim=-1) @ call.value, None


class Silence(Recorder):
    """A recorder that hears and changes nothing."""


@torch.no_grad()
def run(model: nn.Module, **kwargs) -> torch.Tensor:
    return model(pixel_values=zoo.pixel_values(model), **kwargs).logits


def two_of_one_config(first: str = "sdpa") -> tuple[nn.Module, nn.Module]:
    """Two models with different weights whose config is one object, set to an implementation."""
    config = ViTConfig(**zoo.NARROW, **zoo.SQUARE, num_labels=zoo.NUM_LABELS)
    models = [zoo.build(ViTForImageClassification, config, seed) for seed in range(2)]
    assert models[0].config is models[1].config
    models[0].set_attn_implementation(first)
    return tuple(models)


class TestRecording:
    @pytest.mark.parametrize("name", sorted(zoo.MODELS))
    def test_every_layer_in_order(self, name):
        model, book = zoo.MODELS[name](), Notebook()
        plain = run(model)
        with recording(model, book):
            recorded = run(model)
        torch.testing.assert_close(recorded, plain)
        config = zoo.vision_config(model)
        assert len(book.calls) == config.num_hidden_layers
        modules = list(model.modules())
        order = [modules.index(call.module) for call in book.calls]
        assert order == sorted(order)
        tokens = book.calls[0].query.shape[2]
        head_dim = config.hidden_size // config.num_attention_heads
        for call in book.calls:
            for tensor in (call.query, call.key, call.value):
                assert tensor.shape == (2, config.num_attention_heads, tokens, head_dim)
            assert call.scaling == pytest.approx(head_dim**-0.5)
            assert call.dropout == 0
            assert call.bias is None or not call.bias.requires_grad
        assert book.num_begun >= 2  # the classifier, its backbone, and what else is a model of its own in there

    def test_configs_are_switched_inside_only(self):
        model = zoo.clip()
        model.config._attn_implementation = {"": "eager", "vision_config": "sdpa", "text_config": "eager"}
        before = state.snapshot(model)
        with recording(model, Notebook()):
            assert model.config._attn_implementation == IMPLEMENTATION
            assert model.config.vision_config._attn_implementation == IMPLEMENTATION
        assert state.snapshot(model) == before
        assert model.config.vision_config._attn_implementation == "sdpa"
        assert model.config.text_config._attn_implementation == "eager"

    @pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
    def test_put_back_after_an_exception(self, error):
        model = zoo.siglip()
        before = state.snapshot(model)
        with pytest.raises(error), recording(model, Notebook()):
            raise error
        assert state.snapshot(model) == before

    def test_backbone_called_directly(self):
        model, book = zoo.vit(), Notebook()
        with recording(model, book), torch.no_grad():
            model.vit(pixel_values=zoo.pixel_values(model))
        assert len(book.calls) == 3
        assert book.num_begun == 1

    def test_recording_a_backbone_leaves_nothing_out(self):
        model, book = zoo.vit(), Notebook()
        with recording(model.vit, book):
            run(model)
        assert len(book.calls) == 3

    @pytest.mark.parametrize("thing", [None, "google/vit", nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2))])
    def test_what_is_no_transformers_model_is_refused(self, thing):
        with pytest.raises(ArgumentTypeError, match="`model` must be a transformers model"), recording(thing, None):
            pass

    def test_causal_attention_is_refused(self):
        config = CLIPConfig(vision_config={**zoo.WIDE, **zoo.SQUARE}, text_config=zoo.TEXT, projection_dim=8)
        model = zoo.build(CLIPModel, config)
        with pytest.raises(UnsupportedModelError, match="causal"), recording(model, Notebook()):
            model.get_text_features(input_ids=torch.ones(1, 4, dtype=torch.long))

    def test_sdpa_comes_back_after_several_forwards(self):
        model, book = zoo.vit(), Notebook()
        plain = run(model)
        for _ in range(2):
            with recording(model, book):
                run(model)
            assert torch.equal(run(model), plain)
        assert len(book.calls) == 6


class TestNesting:
    def test_the_innermost_recorder_gets_the_calls(self):
        model, outer, inner = zoo.vit(), Notebook(), Notebook()
        with recording(model, outer):
            with recording(model, inner):
                run(model)
                assert is_recording(model, inner)
            assert is_recording(model, outer)
            run(model)
        assert not is_recording(model, outer)
        assert (len(outer.calls), outer.num_begun) == (3, 2)
        assert (len(inner.calls), inner.num_begun) == (3, 2)

    def test_two_models_in_one_block(self):
        first, second = zoo.vit(), zoo.deit()
        books = Notebook(), Notebook()
        with recording(first, books[0]), recording(second, books[1]):
            run(first)
            run(second)
        for model, book in zip((first, second), books, strict=True):
            assert len(book.calls) == 3
            assert {call.module for call in book.calls} < set(model.modules())

    def test_blocks_that_end_in_the_order_of_their_beginning(self):
        first, second = zoo.vit(), zoo.vit()
        books = Notebook(), Notebook()
        blocks = recording(first, books[0]), recording(second, books[1])
        for block in blocks:
            block.__enter__()
        blocks[0].__exit__(None, None, None)
        run(first)
        run(second)
        blocks[1].__exit__(None, None, None)
        assert [len(book.calls) for book in books] == [0, 3]
        run(first)
        run(second)
        assert [len(book.calls) for book in books] == [0, 3]
        assert second.config._attn_implementation == "sdpa"

    def test_models_that_share_a_backbone(self):
        first = zoo.vit()
        second = zoo.vit()
        second.vit = first.vit
        book = Notebook()
        with recording(second, book):
            run(second)
        assert len(book.calls) == 3
        assert first.config._attn_implementation == second.config._attn_implementation == "sdpa"


class TestBystanders:
    """Who is not recorded gets what the own implementation computes."""

    @pytest.mark.parametrize("implementation", ["sdpa", "eager"])
    def test_a_model_of_the_same_config(self, implementation):
        first, second = two_of_one_config(implementation)
        plain = run(second)
        book = Notebook()
        with recording(first, book):
            assert torch.equal(run(second), plain)
            assert not book.calls
            run(first)
        assert len(book.calls) == 3
        assert first.config._attn_implementation == implementation

    def test_attentions_of_an_eager_bystander(self):
        first, second = two_of_one_config("eager")
        pixels = zoo.pixel_values(second)
        plain = second(pixel_values=pixels, output_attentions=True).attentions
        with recording(first, Notebook()):
            inside = second(pixel_values=pixels, output_attentions=True).attentions
        assert all(torch.equal(a, b) for a, b in zip(inside, plain, strict=True))

    def test_padding_mask_of_a_bystander(self):
        first, second = two_of_one_config()
        mask = torch.ones(2, 17)
        mask[:, -3:] = 0
        plain = run(second, attention_mask=mask)
        assert not torch.allclose(plain, run(second))
        with recording(first, Notebook()):
            torch.testing.assert_close(run(second, attention_mask=mask), plain)

    def test_another_thread_of_the_same_model(self):
        model, book = zoo.vit(), Notebook()
        plain = run(model)
        elsewhere = []
        with recording(model, book):
            in_threads(lambda: elsewhere.append(run(model)))
        assert torch.equal(elsewhere[0], plain)
        assert not book.calls
        assert book.num_begun == 0

    def test_a_copy_made_inside_works_inside_and_after(self):
        model = zoo.vit()
        plain = run(model)
        with recording(model, Notebook()):
            twin = copy.deepcopy(model)
            torch.testing.assert_close(run(twin), plain)
        torch.testing.assert_close(run(twin), plain)

    def test_a_model_built_from_the_config_inside(self):
        model = zoo.vit()
        with recording(model, Notebook()):
            twin = zoo.build(ViTForImageClassification, model.config, seed=0)
            torch.testing.assert_close(run(twin), run(zoo.vit()))
        torch.testing.assert_close(run(twin), run(model))

    def test_threads_with_two_models_of_one_config(self):
        models = two_of_one_config("eager")
        plain = [run(model) for model in models]
        books = Notebook(), Notebook()

        def work(number: int) -> None:
            for _ in range(15):
                with recording(models[number], books[number]):
                    torch.testing.assert_close(run(models[number]), plain[number])
                assert torch.equal(run(models[number]), plain[number])

        in_threads(*(lambda number=number: work(number) for number in range(2)))
        assert [len(book.calls) for book in books] == [45, 45]
        assert models[0].config._attn_implementation == "eager"


class TestMasks:
    @pytest.mark.parametrize("kind", ["two dimensions", "boolean", "additive"])
    def test_every_kind_of_mask(self, kind):
        model, book = zoo.vit(), Notebook()
        mask = torch.ones(2, 17, dtype=torch.bool)
        mask[0, -3:] = False
        if kind != "two dimensions":
            mask = mask[:, None, None].expand(-1, 1, 17, -1)
        if kind == "additive":
            mask = torch.zeros(mask.shape).masked_fill(~mask, -1e9)
        plain = run(model, attention_mask=mask)
        assert not torch.allclose(plain, run(model))
        with recording(model, book):
            torch.testing.assert_close(run(model, attention_mask=mask), plain)

    @pytest.mark.parametrize("implementation", ["sdpa", "eager"])
    @pytest.mark.parametrize("kind", ["two dimensions", "boolean"])
    def test_as_the_models_own_implementation_takes_it(self, implementation, kind):
        """An image wholly padded: its tokens attend to nothing, in eager attention to all alike."""
        model, book = zoo.vit(), Silence()
        model.set_attn_implementation(implementation)
        mask = torch.ones(2, 17, dtype=torch.bool)
        mask[0], mask[1, -3:] = False, False
        if kind == "boolean":
            mask = mask[:, None, None].expand(-1, 1, 17, -1)
        plain = run(model, attention_mask=mask)
        with recording(model, book):
            torch.testing.assert_close(run(model, attention_mask=mask), plain)

    def test_a_mask_of_whole_numbers_is_refused(self):
        model = zoo.vit()
        mask = torch.ones(2, 1, 17, 17, dtype=torch.int64)
        with (
            recording(model, Notebook()),
            pytest.raises(ArgumentError, match=r"boolean or floating point .* got int64 .* `.bool\(\)`"),
        ):
            run(model, attention_mask=mask)

    def test_a_mask_of_nan_is_named(self):
        model = zoo.vit()
        mask = torch.zeros(2, 1, 17, 17)
        mask[1, 0, 3, :2] = torch.nan
        with pytest.raises(ArgumentError, match="`attention_mask` must hold no NaN; got 2"):
            gmar_hf.explain(model, zoo.pixel_values(model), attention_mask=mask)

    @pytest.mark.parametrize("dimensions", [2, 3])
    def test_a_mask_of_fewer_dimensions(self, dimensions):
        """As torch's attention takes it: of (queries, keys), or of (heads, queries, keys)."""
        query, key, value = torch.randn(3, 2, 2, 5, 4, generator=torch.Generator().manual_seed(0))
        mask = torch.randn((2, 5, 5)[-dimensions:], generator=torch.Generator().manual_seed(1))
        call = call_of(nn.Identity(), None, query, key, value, mask)
        expected = scaled_dot_product_attention(query, key, value, attn_mask=mask)
        made_again = torch.zeros(2, 2, 5, 5)
        for piece, attention in attention_blocks(call):
            made_again[piece] = attention
        torch.testing.assert_close(made_again @ value, expected)

    def test_bias_of_beit_is_detached(self):
        model, book = zoo.beit_relative(), Notebook()
        with recording(model, book):
            model(pixel_values=zoo.pixel_values(model))
        for call in book.calls:
            assert call.bias.shape == (1, 4, 16, 16)
            assert not call.bias.requires_grad


class TestWords:
    def test_class_name_and_reason(self):
        error = unsupported(zoo.vit(), "it squints")
        assert str(error).startswith("ViTForImageClassification cannot be explained: it squints. Use a model like ViT")
        assert class_name(zoo.build(ViTModel, ViTConfig(**zoo.NARROW, **zoo.SQUARE))) == "ViTModel"
