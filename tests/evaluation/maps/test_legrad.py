"""LeGrad against models that are cut off behind each layer, in float64 with explicit attention."""

import copy

import numpy as np
import pytest
import torch

import gmar_hf
from gmar_hf import ArgumentError, ArgumentTypeError, UnsupportedModelError
from gmar_hf.evaluation.maps.legrad import legrad
from gmar_hf.models.introspection import encoder_layers
from tests.helpers import oracle, zoo
from tests.helpers.sampling import pick
from tests.helpers.state import make_uneven, snapshot


def cut_off(model, num_layers):
    """A copy of a model that ends behind so many layers: what its head makes of their tokens is that layer's logit."""
    short = copy.deepcopy(model)
    _, layers = encoder_layers(short)
    del layers[num_layers:]
    zoo.vision_config(short).num_hidden_layers = num_layers
    return short


def reference(model, images, targets):
    """The map of every image, loop by loop: sum over layers of the mean over heads and queries of relu(G)."""
    num_layers = zoo.vision_config(model).num_hidden_layers
    maps = []
    for image, target in zip(images, targets, strict=True):
        total = 0.0
        for num in range(1, num_layers + 1):
            (found,) = oracle.explicit_reference(cut_off(model, num), image[None], target)
            gradient = found.gradient[-1]  # (heads, queries, keys) of the layer it ends with
            heads, queries, keys = gradient.shape
            per_key = np.zeros(keys)
            for head in range(heads):
                for query in range(queries):
                    per_key += np.maximum(gradient[head, query], 0)
            total = total + per_key / (heads * queries)
        maps.append(oracle.patch_map(total, found.rows, found.cols))
    return torch.from_numpy(np.stack(maps))


@pytest.mark.parametrize("name", pick(zoo.MODELS, 6))
def test_it_is_the_sum_over_models_cut_off_behind_each_layer(name):
    model = zoo.MODELS[name]()
    images = zoo.pixel_values(model, batch=2)
    found = legrad(model, images, [1, 3])
    theirs = reference(model, images, [1, 3])
    assert found.dtype == torch.float32
    assert (found - theirs).abs().max() <= 1e-5 * theirs.abs().max()
    assert found.min() >= 0


def test_without_a_target_it_is_the_predicted_class():
    model = zoo.vit()
    images = zoo.pixel_values(model, batch=3)
    predicted = model(pixel_values=images).logits.argmax(dim=-1)
    assert torch.equal(legrad(model, images, None), legrad(model, images, predicted))
    assert torch.equal(legrad(model, images, 2), legrad(model, images, [2, 2, 2]))


def test_images_of_a_batch_do_not_see_each_other():
    model = zoo.beit_relative()
    images = zoo.pixel_values(model, batch=3)
    batch = legrad(model, images, [0, 1, 2])
    for row in range(3):
        assert torch.allclose(legrad(model, images[row : row + 1], row)[0], batch[row], atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_near(dtype):
    model, _ = gmar_hf.demo.load("vit")
    images = torch.stack([torch.linspace(-1, 1, 64 * 64 * 3).view(3, 64, 64).roll(shift, 1) for shift in (0, 9)])
    whole = legrad(model, images, 1).flatten(1)
    half = legrad(copy.deepcopy(model).to(dtype), images, 1).flatten(1)
    assert half.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(whole, half).min() > 0.999
    assert torch.allclose(half.sum(dim=1), whole.sum(dim=1), rtol=0.05)


@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_as_it_was(fails):
    model = zoo.deit_teacher()
    make_uneven(model)
    before = snapshot(model)
    images = zoo.pixel_values(model, batch=1)
    if fails:
        with pytest.raises(ArgumentError, match=r"`target` must be in \[0, 4\]"):
            legrad(model, images, 99)
    else:
        legrad(model, images, 0)
    assert snapshot(model) == before


def test_another_forward_of_the_model_is_left_alone():
    """Hooks act on the thread and the block that asked for them, and are gone afterwards."""
    model = zoo.vit()
    images = zoo.pixel_values(model, batch=2)
    before = model(pixel_values=images).logits
    legrad(model, images, 0)
    assert torch.equal(model(pixel_values=images).logits, before)


def test_what_cannot_be_asked_is_told():
    with pytest.raises(ArgumentTypeError, match="`model` must be an image classifier"):
        legrad("vit", torch.zeros(1, 3, 32, 32), 0)
    with pytest.raises(ArgumentError, match="`pixel_values` must be floating point"):
        legrad(zoo.vit(), torch.zeros(3, 32, 32), 0)
    model = zoo.swin()
    with pytest.raises(UnsupportedModelError, match="its layers stand in stages"):
        legrad(model, zoo.pixel_values(model, batch=1), 0)
