"""How much maps change under noise: against captum, a loop in float64, and by hand."""

import numpy as np
import pytest
import torch

from gmar_hf import ArgumentError, ArgumentTypeError
from gmar_hf.evaluation import evaluate, find_map_methods
from gmar_hf.metrics.registry import METRICS
from gmar_hf.metrics.sensitivity import max_sensitivity
from tests.helpers.metric_peers import TinyClassifier, example
from tests.helpers.subjects import subject_of

TARGET = [0, 3, 1]


def draw(pixel_values):
    """Squared gradients of each row's class over patches of 4 x 4 pixels, in float64."""
    model = TinyClassifier()
    with torch.enable_grad():
        pixels = pixel_values.detach().double().requires_grad_()
        (gradient,) = torch.autograd.grad(model(pixels)[range(len(pixels)), TARGET[: len(pixels)]].sum(), pixels)
    return gradient.square().sum(dim=1).unfold(1, 4, 4).unfold(2, 4, 4).sum(dim=(-1, -2))


def noises(shape, radius, num_samples, seed):
    """As documented: uniform in [-radius, radius], the same for all images."""
    generator = torch.Generator().manual_seed(seed)
    return [radius * (2 * torch.rand(shape, generator=generator) - 1) for _ in range(num_samples)]


def test_by_hand():
    """The map is the image of 1 x 2 pixels; of two noises the one that is longer counts."""
    images = torch.tensor([[[[3.0, 4.0]]], [[[0.0, 10.0]]]])
    longest = max(noise.norm().item() for noise in noises((1, 1, 2), 0.5, 2, seed=7))
    found = max_sensitivity(lambda pixels: pixels[:, 0], images, radius=0.5, num_samples=2, seed=7)
    torch.testing.assert_close(found, torch.tensor([longest / 5, longest / 10]))


def test_equals_a_loop_in_float64():
    images, _ = example()
    found = max_sensitivity(draw, images, radius=0.1, num_samples=4, seed=1)
    for place, image in enumerate(images.numpy()):
        model, changes = TinyClassifier(), []
        steps = [np.zeros((3, 12, 20)), *(noise.double().numpy() for noise in noises((3, 12, 20), 0.1, 4, seed=1))]
        for noise in steps:  # the zero first: the map itself
            pixels = torch.tensor(image + noise)[None].requires_grad_()
            model(pixels)[0, TARGET[place]].backward()
            blocks = (pixels.grad.numpy() ** 2).reshape(3, 3, 4, 5, 4)
            changes.append(blocks.sum(axis=(0, 2, 4)))
        largest = max(np.sqrt(((changed - changes[0]) ** 2).sum()) for changed in changes[1:])
        assert found[place].item() == pytest.approx(largest / np.sqrt((changes[0] ** 2).sum()), rel=1e-5)


def test_captum():
    """With the same noise; captum's radius of 0.02 is ours."""
    from captum.metrics import sensitivity_max

    images, _ = example()
    given = iter(noises((3, 12, 20), 0.02, 6, seed=0))
    expected = sensitivity_max(
        lambda pixels: (draw(pixels[0]),),
        images,
        lambda pixels: (pixels + next(given),),
        n_perturb_samples=6,
        max_examples_per_batch=3,  # one noise at a time, the same for all images
    )
    torch.testing.assert_close(max_sensitivity(draw, images, num_samples=6), expected.float())


def test_a_batch_equals_its_images_alone_and_maps_may_be_given():
    images, _ = example()
    together = max_sensitivity(draw, images)
    torch.testing.assert_close(max_sensitivity(draw, images, draw(images)), together)
    alone = torch.stack([max_sensitivity(lambda pixels: pixels.mean(1), image[None])[0] for image in images])
    torch.testing.assert_close(max_sensitivity(lambda pixels: pixels.mean(1), images), alone)


def test_maps_that_stay_and_maps_of_nothing():
    images, maps = example()
    maps[1] = 0
    found = max_sensitivity(lambda pixels: maps, images)
    assert found.dtype == torch.float32
    assert found.isnan().tolist() == [False, True, False]
    assert found[0] == found[2] == 0


@pytest.mark.parametrize("scale", [1e-30, 1e-15, 1e25])
def test_the_size_of_maps_does_not_count(scale):
    """Squares of such numbers are beyond what float32 holds."""
    images, _ = example()
    found = max_sensitivity(lambda pixels: draw(pixels) * scale, images)
    torch.testing.assert_close(found, max_sensitivity(draw, images), rtol=1e-3, atol=1e-6)


def test_errors():
    images, maps = example()
    with pytest.raises(ArgumentTypeError, match="`draw_fn` must be a function from pixel values to maps; got Tensor"):
        max_sensitivity(maps, images)
    with pytest.raises(
        ArgumentError, match=r"`draw_fn` must give maps of one shape; got \(3, 3, 4\) after \(3, 3, 5\)"
    ):
        max_sensitivity(lambda pixels: maps[..., :4], images, maps)
    with pytest.raises(ArgumentError, match="`draw_fn` must be finite"):
        max_sensitivity(lambda pixels: maps * torch.nan, images, maps)
    for options in ({"radius": -1}, {"num_samples": 0}, {"seed": -1}):
        (name,) = options
        with pytest.raises(ArgumentError, match=f"`{name}` must be"):
            max_sensitivity(draw, images, **options)


def test_the_row_draws_the_subjects_maps():
    images, _ = example()
    on = subject_of(lambda pixels: pixels.mean(dim=(2, 3)), images, TARGET[:1] * 3)
    torch.testing.assert_close(
        METRICS["max_sensitivity"].measure(on, draw(images), draw), max_sensitivity(draw, images)
    )


@pytest.mark.slow
def test_an_evaluation_draws_each_methods_maps_for_the_rows_own_classes(demo_batch):
    model, images, _, scenes = demo_batch("vit")
    items = [
        {"pixel_values": pixels, "label": scene["labels"]} for pixels, scene in zip(images[:2], scenes, strict=False)
    ]
    found = evaluate(
        model, items, methods=["contribution", "centre-blob"], metrics=["max_sensitivity"], target="label"
    )
    assert (found.of("centre-blob", "max_sensitivity") == 0).all()
    pixels = images[:2].repeat_interleave(2, dim=0)
    target = torch.tensor([row.target for row in found.rows])
    (method,) = find_map_methods(["contribution"])
    expected = max_sensitivity(lambda noisy: method.draw(model, noisy, target), pixels)
    np.testing.assert_allclose(found.of("contribution", "max_sensitivity"), expected, rtol=1e-4)
    assert (expected > 0).all()
