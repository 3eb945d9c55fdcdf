"""Maps by captum and torch-cam against plain loops and autograd."""

import pytest
import torch

from gmar_hf.evaluation import MAP_METHODS
from gmar_hf.evaluation.maps import libraries
from gmar_hf.evaluation.rows_and_columns import is_made_with
from gmar_hf.images.baselines import baseline_pixels
from gmar_hf.models.introspection import encoder_layers
from tests.helpers import zoo
from tests.helpers.sampling import sample_product
from tests.helpers.state import make_uneven, snapshot

pytest.importorskip("captum")
pytest.importorskip("torchcam")

NAMES = ("integrated-gradients", "expected-gradients", "occlusion", "input-x-gradient", "grad-cam")
FAMILIES = ("vit_landscape", "deit_teacher", "beit_relative", "dinov2_registers", "siglip", "clip")


def draw(name, model, images, target):
    return MAP_METHODS[name].draw(model, images, torch.as_tensor(target))


def logit(model, images, target):
    return model(pixel_values=images).logits.gather(1, torch.as_tensor(target)[:, None])[:, 0]


def by_patch(model, values):
    """Sums over channels and patches, loop by loop."""
    height, width = zoo.patch_size(model)
    rows, cols = values.shape[2] // height, values.shape[3] // width
    maps = torch.zeros(len(values), rows, cols)
    for row in range(rows):
        for col in range(cols):
            block = values[:, :, row * height : (row + 1) * height, col * width : (col + 1) * width]
            maps[:, row, col] = block.sum(dim=(1, 2, 3))
    return maps


def gradient(model, images, target):
    images = images.clone().requires_grad_()
    return torch.autograd.grad(logit(model, images, target).sum(), images)[0]


@pytest.mark.parametrize(("make", "name"), sample_product(FAMILIES, NAMES))
def test_maps_are_of_the_models_patches_and_the_model_as_it_was(name, make):
    model = zoo.MODELS[make]()
    make_uneven(model)
    before = snapshot(model)
    images = zoo.pixel_values(model, batch=2)
    height, width = zoo.patch_size(model)
    kept = images.clone()
    maps = draw(name, model, images, [1, 3])
    assert maps.shape == (2, images.shape[2] // height, images.shape[3] // width)
    assert maps.isfinite().all()
    assert not maps.requires_grad
    assert snapshot(model) == before
    assert torch.equal(images, kept)
    alone = draw(name, model, images[1:], [3])
    assert torch.allclose(alone[0], maps[1], atol=1e-5 * max(1, maps.abs().max().item()))


def test_integrated_gradients_are_the_midpoints_of_the_path():
    model = zoo.vit()
    images = zoo.pixel_values(model, batch=2)
    blurred = baseline_pixels(images, "blur", blur_sigma=8.0)
    total = torch.zeros_like(images)
    for step in range(32):
        total += gradient(model, blurred + (step + 0.5) / 32 * (images - blurred), [1, 3]) / 32
    theirs = by_patch(model, (images - blurred) * total)
    found = draw("integrated-gradients", model, images, [1, 3])
    assert torch.allclose(found, theirs, atol=1e-4 * theirs.abs().max().item())
    with torch.no_grad():
        difference = logit(model, images, [1, 3]) - logit(model, blurred, [1, 3])
    assert torch.allclose(found.sum(dim=(1, 2)), difference, rtol=0.05, atol=0.02)


def test_integrated_gradients_are_the_same_a_few_images_at_a_time(monkeypatch):
    model = zoo.vit()
    images = zoo.pixel_values(model, batch=3)
    whole = draw("integrated-gradients", model, images, [1, 3, 0])
    monkeypatch.setattr(libraries, "_MAX_ROWS", 7)
    found = draw("integrated-gradients", model, images, [1, 3, 0])
    torch.testing.assert_close(found, whole, atol=1e-5 * whole.abs().max().item(), rtol=0)


def test_expected_gradients_are_the_mean_over_four_fillings():
    model = zoo.vit()
    images = zoo.pixel_values(model, batch=2)
    wide, wider = (baseline_pixels(images, "blur", blur_sigma=sigma) for sigma in (8.0, 32.0))
    means = images.mean(dim=(2, 3), keepdim=True).expand_as(images)
    total = torch.zeros_like(images)
    for filling in (wide, wider, torch.zeros_like(images), means):
        for step in range(8):
            slope = gradient(model, filling + (step + 0.5) / 8 * (images - filling), [1, 3])
            total += (images - filling) * slope / 32
    theirs = by_patch(model, total)
    found = draw("expected-gradients", model, images, [1, 3])
    assert torch.allclose(found, theirs, atol=1e-4 * theirs.abs().max().item())


def test_a_map_may_be_made_with_several_fillings():
    assert MAP_METHODS["integrated-gradients"].baselines == ("blur",)
    assert MAP_METHODS["expected-gradients"].baselines == ("blur", "zero", "mean")
    assert MAP_METHODS["contribution"].baselines == ()
    assert is_made_with({"baseline": "blur, zero"}, "zero")
    assert not is_made_with({"baseline": "blur, zero"}, "other")
    assert not is_made_with({"baseline": "blur"}, None)
    assert not is_made_with({"baseline": None}, "blur")


def test_input_x_gradient_is_that():
    model = zoo.beit_relative()
    images = zoo.pixel_values(model, batch=2)
    theirs = by_patch(model, images * gradient(model, images, [1, 3]))
    found = draw("input-x-gradient", model, images, [1, 3])
    assert torch.allclose(found, theirs, atol=1e-5 * theirs.abs().max().item())


def test_occlusion_takes_out_one_patch_after_the_other():
    model = zoo.vit_landscape()
    images = zoo.pixel_values(model, batch=2)
    blurred = baseline_pixels(images, "blur", blur_sigma=8.0)
    found = draw("occlusion", model, images, [1, 3])
    with torch.no_grad():
        whole = logit(model, images, [1, 3])
        for row in range(3):
            for col in range(5):
                block = (..., slice(8 * row, 8 * row + 8), slice(8 * col, 8 * col + 8))
                without = images.clone()
                without[block] = blurred[block]
                assert torch.allclose(found[:, row, col], whole - logit(model, without, [1, 3]), atol=1e-5)


@pytest.mark.parametrize(
    ("make", "norm"), [("vit", "layernorm_before"), ("deit_teacher", "layernorm_before"), ("beit_relative", None),
    ("siglip", None), ("dinov2_registers", None)],
)  # fmt: skip
def test_grad_cam_by_hand(make, norm):
    """relu(sum over channels of the mean gradient times the tokens), where the head's tokens still hear of patches."""
    model = zoo.MODELS[make]()
    images = zoo.pixel_values(model, batch=2)
    _, layers = encoder_layers(model)
    place = getattr(layers[-1], norm) if norm else layers[-1]
    kept = {}

    def keep(module, args, output):
        kept["tokens"] = output if isinstance(output, torch.Tensor) else output[0]

    hook = place.register_forward_hook(keep)
    score = logit(model, images, [1, 3]).sum()
    hook.remove()
    (slope,) = torch.autograd.grad(score, kept["tokens"])
    height, width = zoo.patch_size(model)
    rows, cols = images.shape[2] // height, images.shape[3] // width
    tokens, slope = (one[:, -rows * cols :].detach() for one in (kept["tokens"], slope))
    theirs = torch.zeros(2, rows, cols)
    for image in range(2):
        weights = slope[image].mean(dim=0)
        for row in range(rows):
            for col in range(cols):
                theirs[image, row, col] = max(0.0, (weights * tokens[image, row * cols + col]).sum().item())
    found = draw("grad-cam", model, images, [1, 3])
    assert torch.allclose(found, theirs, atol=1e-5 * theirs.abs().max().item() + 1e-7)
    assert theirs.max() > 0


@pytest.mark.parametrize(
    ("name", "forwards", "backwards"),
    [("integrated-gradients", 32, 32), ("occlusion", 17, 0), ("input-x-gradient", 1, 1), ("grad-cam", 1, 1)],
)
def test_costs_count_images_through_the_model(name, forwards, backwards):
    model = zoo.vit()
    images = zoo.pixel_values(model, batch=8)
    rows = {"forwards": 0, "backwards": 0}

    def count(module, args, output):
        rows["forwards"] += len(output.logits)
        if output.logits.requires_grad:
            output.logits.register_hook(lambda gradient: rows.update(backwards=rows["backwards"] + len(gradient)))

    hook = model.register_forward_hook(count)
    draw(name, model, images, [0] * 8)
    hook.remove()
    more = (2, 1) if name == "grad-cam" else (0, 0)  # where to tap is found out on one image of a batch
    assert (rows["forwards"], rows["backwards"]) == (8 * forwards + more[0], 8 * backwards + more[1])
    assert MAP_METHODS[name].forwards(16) == forwards + backwards
    assert MAP_METHODS[name].baseline == {"input-x-gradient": "zero", "grad-cam": None}.get(name, "blur")


def test_occlusion_makes_the_forwards_of_an_image_once_for_all_its_classes():
    model = zoo.vit()
    images = zoo.pixel_values(model, batch=2)
    alone = [draw("occlusion", model, images[[image]], [label]) for image, label in ((0, 1), (1, 3), (0, 2))]
    rows = []
    hook = model.register_forward_hook(lambda module, args, output: rows.append(len(output.logits)))
    together = draw("occlusion", model, images[[0, 1, 0]], [1, 3, 2])
    hook.remove()
    assert sum(rows) == 2 * 17
    assert torch.allclose(together, torch.cat(alone), atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_pixels_beyond_the_last_whole_patch_have_no_part(name):
    model = zoo.MODELS["dinov2_registers"]()  # its convolution drops them
    height, width = zoo.patch_size(model)
    images = zoo.pixel_values(model, batch=2)
    rows, cols = images.shape[2] // height, images.shape[3] // width
    larger = torch.nn.functional.pad(images, (0, width - 1, 0, 2))
    found = draw(name, model, larger, [1, 3])
    assert found.shape == (2, rows, cols)
    if name != "occlusion":
        return
    blurred = baseline_pixels(larger, "blur", blur_sigma=float(height))
    hidden = larger.clone()
    hidden[..., -2 - height : -2, :width] = blurred[..., -2 - height : -2, :width]  # the first patch of the last row
    with torch.no_grad():
        lost = logit(model, larger, [1, 3]) - logit(model, hidden, [1, 3])
    assert torch.allclose(found[:, -1, 0], lost, atol=1e-5)
