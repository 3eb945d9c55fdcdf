"""Pixel values that a model cannot compute with: the error names the argument that brought them."""

import copy

import pytest
import torch

import gmar_hf
from gmar_hf import ArgumentError, GMARError, NonFiniteError, metrics
from tests.helpers import zoo

HUGE = torch.tensor(3e38)


@pytest.fixture(scope="module")
def model():
    return zoo.vit()


@pytest.fixture(scope="module")
def images(model):
    return zoo.pixel_values(model, batch=2)


@pytest.fixture(scope="module")
def maps():
    return torch.arange(32.0).view(2, 4, 4)


@pytest.mark.parametrize("method", ["contribution", "recommended"])
@pytest.mark.parametrize("return_logits", [True, False])
def test_mask_baseline(model, images, method, return_logits):
    with pytest.raises(NonFiniteError) as caught:
        gmar_hf.explain(model, images, 1, method, num_masks=2, mask_baseline=HUGE, return_logits=return_logits)
    assert str(caught.value) == (
        "`mask_baseline` must hold pixel values that ViTForImageClassification can compute with, as the images' own "
        "are; got up to 3e+38. Give it values of the size that the image processor makes."
    )


def test_images_and_weights_are_to_blame_where_they_are(model, images):
    with pytest.raises(NonFiniteError, match="Check `pixel_values` and the model's weights"):
        gmar_hf.explain(model, images * 0 + HUGE, 1, "contribution", num_masks=2, mask_baseline=torch.tensor(0.0))
    for baseline in ("zero", HUGE):
        with pytest.raises(NonFiniteError, match="Check `pixel_values` and the model's weights"):
            gmar_hf.explain(
                model, images * 0 + HUGE, 1, "contribution", num_masks=2, mask_baseline=baseline, return_logits=False
            )
    broken = copy.deepcopy(model)
    broken.classifier.weight.data[0, 0] = torch.nan
    with pytest.raises(NonFiniteError, match="Check `pixel_values` and the model's weights"):
        gmar_hf.explain(broken, images, 1, "contribution", num_masks=2, mask_baseline=torch.tensor(0.0))


@pytest.mark.parametrize(("dtype", "value"), [(torch.float32, 3e38), (torch.float16, 7e4)])
def test_the_baseline_of_a_metric(model, images, maps, dtype, value):
    """In half precision the images are float32, which holds what the model's weights do not."""
    score = metrics.score_function(copy.deepcopy(model).to(dtype), 0, "softmax")
    for measure in (metrics.deletion, metrics.insertion, metrics.saco):
        with pytest.raises(GMARError) as caught:
            measure(score, images, maps, baseline=torch.tensor(value))
        assert str(caught.value).startswith(
            "`baseline` must hold pixel values that `score_fn` can score, as the images"
        )
        with pytest.raises(GMARError, match=r"`(pixel_values|score_fn)` must"):
            measure(score, images * 0 + value, maps, baseline="zero")


def test_the_radius_of_noise(model, images, maps):
    half = copy.deepcopy(model).half()

    def draw(pixel_values):
        return gmar_hf.explain(half, pixel_values, 1, "contribution").attribution

    with pytest.raises(ArgumentError, match="`radius` must leave pixel values that `draw_fn` can draw maps of"):
        metrics.max_sensitivity(draw, images, radius=1e6)
    with pytest.raises(ArgumentError, match="`pixel_values` must lie in what the model computes with, float16"):
        metrics.max_sensitivity(draw, images + 1e6, maps, radius=1)


def test_the_reference(model, images):
    with pytest.raises(NonFiniteError) as caught:
        gmar_hf.centred_head_contribution(model, images, 1, reference=images * 0 + HUGE)
    assert str(caught.value).startswith(
        "`reference` must hold images that ViTForImageClassification can compute with, as `pixel_values` are; got "
    )
    for reference in (images[0], images.long(), images[:, :1], images[..., :-3]):
        with pytest.raises(ArgumentError, match="`reference` must "):
            gmar_hf.centred_head_contribution(model, images, 1, reference=reference)
