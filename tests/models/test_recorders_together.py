"""Our contexts around each other on one model: every pair, against a model whose weights do the same."""

import copy

import pytest
import torch

import gmar_hf
from gmar_hf.explanation.parity import check_parity
from gmar_hf.metrics import head_ablation
from gmar_hf.models.ablation import ablated
from gmar_hf.models.token_removal import without_patches
from tests.helpers import zoo
from tests.models.test_retention import enable_checkpointing

SILENT = [(1, 0), (1, 2)]


@pytest.fixture(scope="module")
def model():
    return zoo.vit()


@pytest.fixture(scope="module")
def silenced_copy(model):
    """The same model, in which nothing of the silent heads passes the output projection."""
    silenced = copy.deepcopy(model)
    size = model.config.hidden_size // model.config.num_attention_heads
    for layer, head in SILENT:
        projection = silenced.vit.layers[layer].attention.o_proj
        with torch.no_grad():
            projection.weight[:, head * size : (head + 1) * size] = 0
    return silenced


@pytest.fixture(scope="module")
def images(model):
    return zoo.pixel_values(model, batch=2)


@torch.no_grad()
def logits(model, images):
    return model(pixel_values=images).logits


@pytest.mark.parametrize("method", ["gmar", "contribution", "removal", "recommended", "gradient-rollout", "rollout"])
def test_explain_inside_silence_heads(model, silenced_copy, images, method):
    with gmar_hf.silence_heads(model, SILENT):
        ours = gmar_hf.explain(model, images, 1, method)
    theirs = gmar_hf.explain(silenced_copy, images, 1, method)
    torch.testing.assert_close(ours.logits, theirs.logits, rtol=1e-5, atol=1e-6)
    if method == "rollout":  # attention as it is, whatever its output does
        return
    torch.testing.assert_close(ours.attribution, theirs.attribution, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(ours.head_contribution, theirs.head_contribution, rtol=1e-4, atol=1e-6)
    assert all(ours.head_contribution[:, layer, head].abs().max() == 0 for layer, head in SILENT)


@pytest.mark.parametrize("silence_first", [True, False])
def test_retained_attention_with_silent_heads(model, silenced_copy, images, silence_first):
    outer, inner = gmar_hf.silence_heads(model, SILENT), gmar_hf.retain_attention(model)
    if not silence_first:
        outer, inner = inner, outer
    with outer as first, inner as second:
        ours = model(pixel_values=images).logits
        ours[:, 1].sum().backward()
    attentions = second if silence_first else first
    with gmar_hf.retain_attention(silenced_copy) as expected:
        theirs = silenced_copy(pixel_values=images).logits
        theirs[:, 1].sum().backward()
    torch.testing.assert_close(ours, theirs)
    assert len(attentions) == len(expected) == 3
    for mine, other in zip(attentions, expected, strict=True):
        torch.testing.assert_close(mine, other)
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-4, atol=1e-7)
    model.zero_grad()


def test_silence_heads_twice(model, images):
    with gmar_hf.silence_heads(model, SILENT):
        together = logits(model, images)
    with gmar_hf.silence_heads(model, SILENT[:1]), gmar_hf.silence_heads(model, SILENT[1:]):
        torch.testing.assert_close(logits(model, images), together)


def test_explain_leaves_what_is_retained_around_it(model, images):
    with gmar_hf.retain_attention(model) as attentions:
        logits(model, images[:1])
        gmar_hf.explain(model, images, method="rollout")
        assert [len(attention) for attention in attentions] == [1, 1, 1]


@pytest.mark.parametrize("kind", ["zero", "mean"])
def test_ablation_inside_silence_heads(model, silenced_copy, images, kind):
    silent = torch.zeros(1, 2, 3, 3, dtype=torch.bool)
    silent[:, :, 2, 1] = True
    with gmar_hf.silence_heads(model, SILENT), ablated(model, images, kind, {}) as ours, torch.no_grad():
        mine = ours.without(silent)
    with ablated(silenced_copy, images, kind, {}) as theirs, torch.no_grad():
        torch.testing.assert_close(mine, theirs.without(silent), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(ours.logits, theirs.logits, rtol=1e-5, atol=1e-6)


def test_patches_taken_out_inside_silence_heads(model, silenced_copy, images):
    hidden = torch.zeros(2, 4, 4, dtype=torch.bool)
    hidden[:, 1:3] = True
    with gmar_hf.silence_heads(model, SILENT), without_patches(model, images, hidden):
        ours = logits(model, images)
        explained = gmar_hf.explain(model, images, 1, "contribution")
    with without_patches(silenced_copy, images, hidden):
        torch.testing.assert_close(ours, logits(silenced_copy, images))
        theirs = gmar_hf.explain(silenced_copy, images, 1, "contribution")
    torch.testing.assert_close(explained.attribution, theirs.attribution, rtol=1e-4, atol=1e-6)
    assert explained.attribution[hidden].abs().max() == 0


def test_a_measure_inside_silence_heads(model, silenced_copy, images):
    with gmar_hf.silence_heads(model, SILENT):
        ours = head_ablation(model, images, 1)
    torch.testing.assert_close(ours.change, head_ablation(silenced_copy, images, 1).change, rtol=1e-4, atol=1e-6)


class TestTiedLayers:
    """Layers 1 and 2 are one module; the copy has two equal ones."""

    @pytest.fixture
    def pair(self):
        tied = zoo.vit()
        tied.vit.layers[2] = tied.vit.layers[1]
        untied = copy.deepcopy(tied)
        untied.vit.layers[2] = copy.deepcopy(untied.vit.layers[1])
        return tied, untied

    @pytest.mark.parametrize("layer", [0, 1, 2])
    def test_silence_heads(self, pair, images, layer):
        changed = []
        for model in pair:
            with gmar_hf.silence_heads(model, [(layer, 0), (layer, 1)]):
                changed.append(logits(model, images))
        torch.testing.assert_close(*changed)
        assert not torch.allclose(changed[0], logits(pair[0], images))

    def test_explain_and_its_check(self, pair, images):
        ours, theirs = (gmar_hf.explain(model, images, 1, "contribution") for model in pair)
        torch.testing.assert_close(ours.head_contribution, theirs.head_contribution)
        assert check_parity(pair[0], images).agrees

    @pytest.mark.parametrize("reentrant", [None, True, False])
    def test_retain_attention(self, pair, images, reentrant):
        gradients = []
        for model in pair:
            if reentrant is not None:
                model.train()
                enable_checkpointing(model, use_reentrant=reentrant)
            try:
                with gmar_hf.retain_attention(model) as attentions:
                    wanted = images.clone().requires_grad_()
                    model(pixel_values=wanted).logits[:, 1].sum().backward()
                assert len(attentions) == 3
                gradients.append([attention.grad for attention in attentions])
            finally:
                model.eval()
                model.zero_grad()
        for mine, other in zip(*gradients, strict=True):
            torch.testing.assert_close(mine, other)

    @pytest.mark.parametrize("kind", ["zero", "mean"])
    def test_ablation(self, pair, images, kind):
        silent = torch.zeros(3, 2, 3, 3, dtype=torch.bool)
        for layer in range(3):
            silent[layer, :, layer, 1] = True
        results = []
        for model in pair:
            with ablated(model, images, kind, {}) as ablation, torch.no_grad():
                results.append(ablation.without(silent))
                results.append(ablation.without(silent[2:]))
        torch.testing.assert_close(results[0], results[2])
        torch.testing.assert_close(results[1], results[3])
