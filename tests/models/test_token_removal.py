"""Patches taken out of the attention, against models whose sequence has these tokens no more."""

import contextlib

import pytest
import torch

from gmar_hf import ArgumentError, UnsupportedModelError
from gmar_hf.models.introspection import encoder_layers
from gmar_hf.models.token_removal import without_patches
from tests.helpers import zoo
from tests.helpers.state import make_uneven, snapshot


def logits(model, pixel_values):
    with torch.no_grad():
        return model(pixel_values=pixel_values).logits


def hidden_patches(model, num_rows, share=0.5, seed=0):
    (height, width), (patch_height, patch_width) = zoo.image_size(model), zoo.patch_size(model)
    grid = (height // patch_height, width // patch_width)
    return torch.rand(num_rows, *grid, generator=torch.Generator().manual_seed(seed)) < share


def shortened(name, pixel_values, hidden):
    """Logits (classes,) in float64 of one image whose hidden tokens are cut out of the sequence before layer one."""
    model = zoo.explicit(name).double()

    def left(num_tokens):
        num_prefix = num_tokens - hidden.numel()
        return torch.cat([torch.ones(num_prefix, dtype=torch.bool), ~hidden.flatten()])

    def cut_tokens(module, inputs):
        return (inputs[0][:, left(inputs[0].shape[1])], *inputs[1:])

    def cut_bias(module, inputs, bias):
        kept = left(bias.shape[-1])
        return bias[..., kept, :][..., kept]

    with contextlib.ExitStack() as stack:
        _, layers = encoder_layers(model)
        stack.callback(layers[0].register_forward_pre_hook(cut_tokens).remove)
        for module in model.modules():
            if type(module).__name__.endswith("RelativePositionBias"):
                stack.callback(module.register_forward_hook(cut_bias).remove)
        return logits(model, pixel_values[None].double())[0]


# CLS, distillation, registers; means of the patches, with CLS or alone, before and behind a norm; relative biases.
@pytest.mark.parametrize(
    "name",
    ["vit", "deit_teacher", "beit_absolute", "beit_relative", "beit_both_cls", "dinov2", "dinov2_registers", "siglip",
     "clip", "ijepa", "data2vec_vision", "data2vec_vision_both_cls"],
)  # fmt: skip
def test_the_logits_are_those_of_the_shorter_sequence(name):
    model = zoo.MODELS[name]()
    images = zoo.pixel_values(model, batch=3)
    hidden = hidden_patches(model, 3)
    hidden[1] = False  # a row of which nothing is hidden
    with without_patches(model, images, hidden):
        ours = logits(model, images)
    theirs = torch.stack([shortened(name, image, mask) for image, mask in zip(images, hidden, strict=True)])
    assert zoo.relative_error(ours, theirs) < 1e-5
    assert zoo.relative_error(logits(model, images)[1], theirs[1]) < 1e-5
    assert (ours - logits(model, images)).abs()[::2].max() > 1e-2


@pytest.mark.parametrize("padding", [0.0, -torch.inf])
def test_a_mask_of_the_users_own_takes_out_no_less(padding):
    """Padded patches attend to each other, or to nothing; what is hidden beside them is read by nobody."""
    model = zoo.ijepa()  # which has no prefix token that would always be left
    first = zoo.pixel_values(model, batch=1)
    num_patches = hidden_patches(model, 1).numel()
    hidden = torch.ones_like(hidden_patches(model, 1))
    hidden.flatten(1)[:, -3:] = False
    second = first.clone()
    second[..., : zoo.patch_size(model)[0], :] += 1  # the first row of patches, all hidden
    mask = torch.full((1, 1, num_patches, num_patches), -torch.inf)
    mask[..., :-3, :-3] = 0  # rows whose keys are all hidden
    mask[..., -3:, -3:] = padding
    found = []
    for images in (first, second):
        with without_patches(model, images, hidden), torch.no_grad():
            found.append(model(pixel_values=images, attention_mask=mask).logits)
    assert found[0].isfinite().all()
    assert torch.equal(*found)


@pytest.mark.parametrize("name", ["vit", "beit_shared", "dinov2", "siglip"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_without_any_patch_all_images_are_alike(name, dtype):
    model = zoo.MODELS[name]().to(dtype)
    images = zoo.pixel_values(model, batch=2)
    with without_patches(model, images, hidden_patches(model, 2, share=1.1)):
        nothing = logits(model, images)
    assert nothing.isfinite().all()
    assert torch.equal(nothing[0], nothing[1])


def test_the_prefix_still_sees_itself():
    model = zoo.vit()
    images = zoo.pixel_values(model, batch=1)
    hidden = hidden_patches(model, 1, share=1.1)
    with without_patches(model, images, hidden):
        ours = logits(model, images)
    assert zoo.relative_error(ours[0], shortened("vit", images[0], hidden[0])) < 1e-5


def test_the_model_is_as_it_was_also_after_an_exception():
    model = zoo.beit_relative()
    make_uneven(model)
    before = snapshot(model)
    images = zoo.pixel_values(model, batch=1)
    with pytest.raises(ZeroDivisionError), without_patches(model, images, hidden_patches(model, 1)):
        raise ZeroDivisionError
    assert snapshot(model) == before


def test_what_does_not_fit():
    model = zoo.vit()
    images = zoo.pixel_values(model, batch=2)
    for hidden in (torch.zeros(2, 2, 2, dtype=torch.bool), torch.zeros(2, 4, 4), hidden_patches(model, 3)):
        with (
            pytest.raises(ArgumentError, match=r"a bool for each of the model's patches, shape \(2, 4, 4\); got"),
            without_patches(model, images, hidden),
        ):
            pass
    with (
        pytest.raises(ArgumentError, match="a row for each of the 2 rows of `hidden`; got 1"),
        without_patches(model, images, hidden_patches(model, 2)),
    ):
        logits(model, images[:1])


@pytest.mark.parametrize("name", ["swin", "hiera", "segformer", "pvt_v2_linear"])
def test_models_whose_tokens_stay_are_refused(name):
    model = {**zoo.REFUSED, **zoo.STAGED}[name]()
    images = zoo.pixel_values(model, batch=1)
    hidden = torch.zeros(1, *(side // size for side, size in zip((32, 32), (8, 8), strict=True)), dtype=torch.bool)
    with pytest.raises((UnsupportedModelError, ArgumentError)), without_patches(model, images, hidden):
        logits(model, images)


def test_no_forward_is_no_removal():
    """A score function that asks another model would measure nothing."""
    model = zoo.vit()
    images = zoo.pixel_values(model, batch=1)
    with (
        pytest.raises(UnsupportedModelError, match="attention interface"),
        without_patches(model, images, hidden_patches(model, 1)),
    ):
        logits(zoo.vit(), images)
