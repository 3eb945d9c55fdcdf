"""Numbers that the package's own dtypes do not hold are refused, and so are tensors that hold no real numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import gmar_hf
from gmar_hf import metrics, plotting
from gmar_hf.images.baselines import baseline_pixels
from gmar_hf.images.placement import heatmap, placed_map
from gmar_hf.utils.tensors import at_least_float32, cast, reached_rows
from tests.helpers import oracle, zoo
from tests.helpers.zoo import relative_error

BOX, SIZE = (0, 0, 4, 4), (4, 4)
ODD = {
    "complex": (lambda tensor: tensor * (1 + 1j), "complex numbers. Take `.real`"),
    "sparse": (lambda tensor: tensor.to_sparse(), "one of layout sparse_coo. Call `.to_dense"),
    "meta": (lambda tensor: tensor.to("meta"), "one on the meta device, which holds none"),
    "nested": (lambda tensor: torch.nested.nested_tensor([*tensor]), "a nested one. Pad it"),
    "quantised": (lambda tensor: torch.quantize_per_tensor(tensor, 0.1, 0, torch.quint8), "a quantised one"),
}
DOORS = {
    "pixel_values": (lambda odd: gmar_hf.explain(zoo.vit(), odd), (2, 3, 32, 32)),
    "head_weights": (lambda odd: gmar_hf.explain(zoo.vit(), torch.ones(1, 3, 32, 32), head_weights=odd), (3, 4)),
    "baseline": (lambda odd: baseline_pixels(torch.ones(1, 3, 32, 32), odd), (3, 1, 1)),
    "attribution": (lambda odd: heatmap(odd, BOX, SIZE), (2, 2)),
    "head_scores": (lambda odd: metrics.HeadAblation(torch.ones(2, 3, 4)).correlation(odd), (2, 3, 4)),
    "scores": (plotting.plot_head_importance, (3, 4)),
}


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors|.*quantize_per_tensor", "ignore:.*torch.ao")
@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("name", DOORS)
def test_tensors_that_hold_no_real_numbers_are_refused(name, kind):
    (make, words), (door, shape) = ODD[kind], DOORS[name]
    with pytest.raises(
        gmar_hf.ArgumentTypeError, match=rf"`{name}` must be a dense tensor of real numbers; got {words}"
    ):
        door(make(torch.ones(shape)))


def test_complex_arrays_are_refused():
    with pytest.raises(
        gmar_hf.ArgumentTypeError, match=r"`attribution` must be a map .* got ndarray \(complex numbers"
    ):
        heatmap(np.ones((2, 2), complex), BOX, SIZE)


@pytest.mark.parametrize("size", [1e-300, 3e38, 1e300, 1.7e308])
def test_head_weights_of_any_size(size):
    model = zoo.vit()
    images = zoo.pixel_values(model)
    weights = torch.linspace(0.1, 1, 9, dtype=torch.float64).reshape(3, 3)
    given = (weights * size).float() if size == 3e38 else weights * size
    out = gmar_hf.explain(model, images, 0, head_weights=given)
    shares = (weights / weights.sum(dim=-1, keepdim=True)).numpy()
    for image, reference in enumerate(oracle.explicit_reference(model, images, [0] * len(images))):
        theirs = oracle.weighted_rollout_map(reference, shares)
        assert relative_error(out.attribution[image], theirs) < 1e-5


@pytest.mark.parametrize("residual_weight", [1e30, 1e39, 1.7e308])
def test_skip_connections_of_any_weight(residual_weight):
    model = zoo.siglip()  # whose readout is spread over the patches
    out = gmar_hf.explain(model, zoo.pixel_values(model), method="rollout", residual_weight=residual_weight)
    # Attention counts for nothing beside them.
    torch.testing.assert_close(out.attribution.flatten(1), out.readout)


def test_pixels_beyond_the_models_dtype():
    model, pixels = zoo.vit().half(), zoo.pixel_values(zoo.vit())
    pixels[0, 0, 0, 0] = 1e5
    with pytest.raises(gmar_hf.ArgumentError, match=r"compu.* with, float16 up to 6.55e\+04; got 1e\+05. Normalise"):
        gmar_hf.explain(model, pixels)


def test_logits_beyond_float32():
    model = zoo.vit().double()
    with torch.no_grad():
        model.classifier.weight.mul_(1e200)
    with pytest.raises(gmar_hf.NonFiniteError, match=r"must lie in float32, up to 3.4e\+38; got .*e\+2"):
        gmar_hf.explain(model, zoo.pixel_values(model), method="rollout")


def test_baselines_beyond_the_images_dtype():
    with pytest.raises(gmar_hf.ArgumentError, match=r"`baseline` must hold finite .* images' float32; got 1e\+300"):
        baseline_pixels(torch.zeros(1, 1, 2, 2), torch.tensor(1e300, dtype=torch.float64))


@pytest.mark.parametrize(("sigma", "expected"), [(1e-320, [1.0, 3.0, 5.0]), (1e-200, [1.0, 3.0, 5.0]), (1e300, None)])
def test_gaussians_of_any_width(sigma, expected):
    image = torch.tensor([[[[1.0, 3.0, 5.0]]]])
    blurred = baseline_pixels(image, "blur", blur_sigma=sigma)
    # The widest is a mean over the reflected image, 5 3 | 1 3 5 | 3 1: every pixel sees two neighbours to either side.
    wide = torch.tensor([[[[17 / 5, 3.0, 13 / 5]]]])
    torch.testing.assert_close(blurred, wide if expected is None else torch.tensor([[[expected]]]))


def test_noise_beyond_the_images_dtype():
    with pytest.raises(gmar_hf.ArgumentError, match=r"`radius` must leave the pixel values in float32; got 1e\+300"):
        metrics.max_sensitivity(lambda pixels: pixels.sum(dim=1), torch.ones(1, 3, 4, 4), radius=1e300)


def test_maps_beyond_float32():
    with pytest.raises(gmar_hf.ArgumentError, match=r"`attribution` must hold numbers of float32; got up to 1e\+300"):
        placed_map(np.array([[1e300, 0.0]]), BOX, SIZE)
    assert heatmap(np.array([[1e300, 0.0]]), BOX, SIZE).getextrema() == (0, 255)  # which are divided first


def test_casts():
    assert cast(torch.tensor([65504.0, torch.inf]), torch.float16).tolist() == [65504.0, torch.inf]
    assert cast(torch.tensor([65520.0]), torch.float16) is None
    assert cast(torch.tensor([3]), torch.float16).dtype == torch.float16
    assert at_least_float32(torch.ones(1).to(torch.float8_e4m3fn)).dtype == torch.float32


@pytest.mark.parametrize(
    ("by_row", "rows"),
    [
        ([0.0, float("nan"), 0.0, -1.0], [1, 3]),  # half of them
        ([True, False, True, True], None),
        ([[0.0, 0.0], [0.0, 0.0]], []),
        ([[[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]]], None),  # of two images, each another row
    ],
)
def test_reached_rows(by_row, rows):
    reached = reached_rows(torch.tensor(by_row))
    assert (reached if reached is None else reached.tolist()) == rows
