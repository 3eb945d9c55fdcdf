"""timm's vision transformers in transformers' wrapper, against explicit attention in float64."""

from __future__ import annotations

import copy
import functools
import itertools

import numpy as np
import pytest
import torch

import gmar_hf
from gmar_hf import ArgumentError, UnsupportedModelError
from gmar_hf.evaluation.maps.legrad import legrad
from gmar_hf.metrics import head_ablation
from gmar_hf.models.introspection import encoder_layers, setting
from gmar_hf.models.token_removal import without_patches
from tests.explanation.test_engine_parity import METHODS, assert_matches, expected_fields
from tests.explanation.test_passes import KINDS, POINTS
from tests.helpers import oracle, timm_zoo, zoo
from tests.helpers.sampling import sample, sample_product
from tests.helpers.state import make_uneven, snapshot

pytest.importorskip("timm", reason="timm is not installed (it needs torchvision)")

TARGETS = [1, 3]
FAMILIES = sorted(timm_zoo.MODELS)
# Post-norm blocks without a scale leave differences of large numbers in float32.
TOLERANCES = {"vit_post_norm": 3e-5}
POOLED_BY_ATTENTION = "siglip"


@functools.cache
def reference(name: str, scale: float = 1.0) -> list[oracle.Reference]:
    model = timm_zoo.make(name)
    return timm_zoo.explicit_reference(model, timm_zoo.pixel_values(model), TARGETS, scale)


def logits(model, images):
    with torch.no_grad():
        return model(pixel_values=images).logits


class TestOracle:
    @pytest.mark.parametrize("name", FAMILIES)
    def test_attention_is_what_timm_computes_without_the_fused_kernel(self, name):
        model, seen = timm_zoo.make(name), []
        timm_zoo.set_fused(model, False)
        for block in model.timm_model.blocks:
            block.attn.attn_drop.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
        outputs = logits(model, timm_zoo.pixel_values(model))
        attentions = torch.stack(seen, dim=1)
        tolerance = TOLERANCES.get(name, 1e-5)
        assert zoo.relative_error(attentions, np.stack([each.attention for each in reference(name)])) < tolerance
        assert zoo.relative_error(outputs, np.stack([each.logits for each in reference(name)])) < tolerance


class TestParity:
    @pytest.mark.parametrize(
        ("name", "method", "fused"), sample_product(FAMILIES, sorted(METHODS), [True, False], number=len(FAMILIES))
    )
    def test_every_field(self, name, method, fused):
        model = timm_zoo.make(name)
        timm_zoo.set_fused(model, fused)
        images = timm_zoo.pixel_values(model)
        actual = gmar_hf.explain(model, images, TARGETS, **METHODS[method][0], return_head_maps=True)
        assert_matches(actual, expected_fields(reference(name), method), TOLERANCES.get(name, 1e-5))

    @pytest.mark.parametrize(("name", "kind"), sample(itertools.product(FAMILIES, KINDS)))
    def test_values_less_something_and_paths(self, name, kind):
        options, subtract, num_points = KINDS[kind]
        model = timm_zoo.make(name)
        actual = gmar_hf.explain(model, timm_zoo.pixel_values(model), TARGETS, **options)
        expected = 0.0
        for scale, weight in [(1.0, 1.0)] if num_points is None else POINTS[num_points]:
            for index, each in enumerate(reference(name, scale)):
                terms = oracle.referenced_token_contributions(each, subtract, scale).sum(axis=(0, 1))
                share = np.zeros((2, each.rows, each.cols))
                share[index] = weight * terms[each.num_prefix_tokens :].reshape(each.rows, each.cols)
                expected = expected + share
        assert zoo.relative_error(actual.attribution, expected) <= TOLERANCES.get(name, 1e-5)

    @pytest.mark.parametrize(
        ("name", "prefix"),
        [("vit", 1), ("vit_mean_registers", 2), ("deit_distilled", 2), ("dinov2_registers", 5), ("dinov3", 5),
         ("siglip", 0)],
    )  # fmt: skip
    def test_tokens_before_the_patches(self, name, prefix):
        model = timm_zoo.make(name)
        actual = gmar_hf.explain(model, timm_zoo.pixel_values(model), 0, "rollout")
        assert actual.settings["grid"]["prefix"] == prefix == reference(name)[0].num_prefix_tokens


class TestWhatTheModelSays:
    def test_layers_heads_and_sizes(self):
        model = timm_zoo.make("eva02")
        names = ("num_hidden_layers", "num_attention_heads", "num_channels", "image_size", "patch_size")
        assert [setting(model, name) for name in names] == [3, 3, 3, (24, 40), (8, 8)]
        name, layers = encoder_layers(model)
        assert model.get_submodule(name) is layers is model.timm_model.blocks

    def test_another_size_is_refused_with_the_right_one(self):
        with pytest.raises(ArgumentError, match=r"must be 24 x 40 pixels for TimmWrapper\w+; got 32 x 32"):
            gmar_hf.explain(timm_zoo.make("vit"), torch.zeros(1, 3, 32, 32))

    def test_any_size_where_the_model_takes_any(self):
        model = timm_zoo.make("dinov3", dynamic_img_size=True)
        images = zoo.pixel_values(model, size=(48, 24))
        actual = gmar_hf.explain(model, images, TARGETS, "contribution")
        (expected, _) = timm_zoo.explicit_reference(model, images, TARGETS)
        assert zoo.relative_error(actual.attribution[0], oracle.contribution_map(expected)) <= 1e-5
        with pytest.raises(ArgumentError, match=r"of a size that \w+ takes \(.*divisible by patch.*\); got 48 x 30\."):
            gmar_hf.explain(model, zoo.pixel_values(model, size=(48, 30)))

    @pytest.mark.parametrize(
        ("architecture", "reason"),
        [
            ("resnet10t", r"timm's ResNet is none of its plain vision transformers \(Beit, Eva, "),
            ("vit_dlittle_patch16_reg1_gap_256", "timm's DiffAttention does not compute its attention once"),
            ("test_vit3", "timm's VisionTransformer pads"),
        ],
    )
    def test_others_are_refused_by_their_names(self, architecture, reason):
        args = {"dynamic_img_size": True, "dynamic_img_pad": True} if architecture == "test_vit3" else {}
        reason = "it pads images to whole patches" if args else reason
        model = timm_zoo.wrap(architecture, **args)
        with pytest.raises(UnsupportedModelError, match=reason):
            gmar_hf.explain(model, torch.zeros(1, 3, 64, 64))


class TestTheModelIsLeftAsItWas:
    @pytest.mark.parametrize("name", ["vit", "siglip", "eva02", "beit"])
    def test_also_after_an_exception(self, name):
        model = timm_zoo.make(name)
        images = timm_zoo.pixel_values(model)
        timm_zoo.set_fused(model, False)
        make_uneven(model)
        before = snapshot(model)
        gmar_hf.explain(model, images, 1)
        assert snapshot(model) == before
        with pytest.raises(ZeroDivisionError), gmar_hf.retain_attention(model):
            raise ZeroDivisionError
        assert snapshot(model) == before
        assert not any(getattr(module, "fused_attn", False) for module in model.modules())

    def test_a_copy_made_meanwhile_is_a_model_of_its_own(self):
        model = timm_zoo.make("siglip")
        images = timm_zoo.pixel_values(model)
        with gmar_hf.silence_heads(model, [(0, 1), (2, 0)]):
            other = copy.deepcopy(model)
            zoo.perturb(other, seed=5)
        expected = timm_zoo.make("siglip")
        zoo.perturb(expected, seed=5)
        torch.testing.assert_close(logits(other, images), logits(expected, images))

    @pytest.mark.parametrize("name", ["vit", "beit"])
    def test_gradient_checkpointing(self, name):
        model = timm_zoo.make(name)
        images = timm_zoo.pixel_values(model)
        expected = gmar_hf.explain(model, images, 1, "removal").attribution
        model.timm_model.set_grad_checkpointing(True)
        torch.testing.assert_close(gmar_hf.explain(model, images, 1, "removal").attribution, expected)
        assert model.timm_model.grad_checkpointing


class TestRecorders:
    @pytest.mark.parametrize("name", ["vit", "beit_shared", "eva02", "siglip", "dinov3"])
    def test_retained_attention(self, name):
        model = timm_zoo.make(name)
        with gmar_hf.retain_attention(model) as attentions:
            outputs = model(pixel_values=timm_zoo.pixel_values(model)).logits
            outputs[[0, 1], TARGETS].sum().backward()
        probabilities = torch.stack(list(attentions), dim=1).detach()
        gradients = torch.stack([each.grad for each in attentions], dim=1)
        assert zoo.relative_error(probabilities, np.stack([each.attention for each in reference(name)])) < 1e-5
        assert zoo.relative_error(gradients, np.stack([each.gradient for each in reference(name)])) < 1e-5

    @pytest.mark.parametrize("name", ["vit", "siglip", "rope_mixed"])
    def test_heads_taken_out(self, name):
        """Of a copy the output projection does not read the head."""
        model, without = timm_zoo.make(name), timm_zoo.make(name)
        attention = without.timm_model.blocks[1].attn
        with torch.no_grad():
            attention.proj.weight[:, 2 * attention.head_dim : 3 * attention.head_dim] = 0
        # As many images as heads: rotations have an axis of heads where images have theirs.
        images = timm_zoo.pixel_values(model, batch=attention.num_heads)
        with gmar_hf.silence_heads(model, [(1, 2)]):
            torch.testing.assert_close(logits(model, images), logits(without, images))
        effects = head_ablation(model, images, 1).change[:, 1, 2]
        torch.testing.assert_close(effects, (logits(model, images) - logits(without, images))[:, 1])

    @pytest.mark.parametrize("name", ["vit", "vit_mean_registers", "deit_distilled", "dinov2_registers", "siglip"])
    def test_patches_taken_out(self, name):
        """Of a copy the hidden tokens are cut out of the sequence before the first block."""
        model, shorter = timm_zoo.make(name), timm_zoo.make(name).double()
        images = timm_zoo.pixel_values(model)
        rows, cols = reference(name)[0].rows, reference(name)[0].cols
        hidden = torch.rand(2, rows, cols, generator=torch.Generator().manual_seed(0)) < 0.5

        def cut_tokens(left, module, inputs):
            prefix = torch.ones(inputs[0].shape[1] - left.numel(), dtype=torch.bool)
            return inputs[0][:, torch.cat([prefix, left])], *inputs[1:]

        expected = []
        for image, mask in zip(images, hidden, strict=True):
            cut = functools.partial(cut_tokens, ~mask.flatten())
            handle = shorter.timm_model.blocks[0].register_forward_pre_hook(cut)
            expected.append(logits(shorter, image[None].double())[0])
            handle.remove()
        with without_patches(model, images, hidden):
            assert zoo.relative_error(logits(model, images), torch.stack(expected)) < 1e-5
        with without_patches(model, images, torch.ones_like(hidden)):
            nothing = logits(model, images)
        assert torch.equal(nothing[0], nothing[1])

    @pytest.mark.parametrize("name", ["beit", "dinov3", POOLED_BY_ATTENTION])
    def test_maps_and_descriptions_that_need_the_layers(self, name):
        model = timm_zoo.make(name)
        images = timm_zoo.pixel_values(model)
        each = reference(name)[0]
        assert legrad(model, images, torch.tensor(TARGETS)).shape == (2, each.rows, each.cols)
        description = gmar_hf.describe_heads(model, images)
        assert description.attention_distance.shape == (2, *each.attention.shape[:2])


def test_blocks_that_are_one():
    model = timm_zoo.make("vit")
    blocks = model.timm_model.blocks
    expected = gmar_hf.explain(copy_block(model), timm_zoo.pixel_values(model), 1, "path")
    blocks[1] = blocks[0]
    blocks[0].attn.fused_attn = False
    out = gmar_hf.explain(model, timm_zoo.pixel_values(model), 1, "path")
    torch.testing.assert_close(out.attribution, expected.attribution, atol=1e-6, rtol=0)
    assert "forward" not in vars(blocks[0].attn)
    assert blocks[0].attn.fused_attn is False


def copy_block(model):
    """Return a copy of a model whose second block is as its first one, with weights of its own."""
    model = copy.deepcopy(model)
    model.timm_model.blocks[1].load_state_dict(model.timm_model.blocks[0].state_dict())
    return model


def test_a_compiled_model_inside():
    def compiled(*args, **kwargs):
        raise AssertionError("the compiled model was called")

    model = timm_zoo.make("vit")
    expected = gmar_hf.explain(model, timm_zoo.pixel_values(model), 1, "path")
    model.timm_model = torch.compile(model.timm_model, backend=compiled)
    out = gmar_hf.explain(model, timm_zoo.pixel_values(model), 1, "path")
    assert torch.equal(out.attribution, expected.attribution)


def _clamp(attention):
    attention.attn_drop.register_forward_hook(lambda module, inputs, output: output.clamp(max=0.2))


def _unscale(attention):
    attention.scale = 1.0


@pytest.mark.parametrize("change", [_clamp, _unscale])
def test_attention_that_is_otherwise_where_it_is_not_fused(change):
    model = timm_zoo.make("vit")
    attention = model.timm_model.blocks[1].attn
    change(attention)
    attention.fused_attn = False
    with pytest.raises(UnsupportedModelError, match="attends otherwise by itself than with `fused_attn`"):
        gmar_hf.explain(model, timm_zoo.pixel_values(model), 1)
