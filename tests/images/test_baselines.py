"""What hidden patches show."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gmar_hf import ArgumentError, ArgumentTypeError
from gmar_hf.metrics import baseline_pixels


def images(*shape, dtype=torch.float64):
    return torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=dtype)


def reflect(index, size):
    return -index if index < 0 else 2 * (size - 1) - index if index >= size else index


def test_blur_is_a_gaussian_with_reflected_edges():
    image, sigma, radius = images(2, 3, 12, 9), 1.5, 6
    weights = {
        (down, right): np.exp(-(down**2 + right**2) / (2 * sigma**2))
        for down in range(-radius, radius + 1)
        for right in range(-radius, radius + 1)
    }
    expected = torch.zeros_like(image)
    for row in range(12):
        for col in range(9):
            for (down, right), weight in weights.items():
                expected[..., row, col] += weight * image[..., reflect(row + down, 12), reflect(col + right, 9)]
    torch.testing.assert_close(baseline_pixels(image, "blur", blur_sigma=sigma), expected / sum(weights.values()))


def blur_matrix(size, sigma):
    """One axis of SciPy's `gaussian_filter` with mode "mirror", cut at four standard deviations, as a matrix."""
    radius = int(4 * sigma + 0.5)
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    padded = np.pad(np.eye(size), ((0, 0), (radius, radius)), mode="reflect")  # the image without its edge, mirrored
    return np.stack([np.convolve(row, kernel / kernel.sum(), mode="valid") for row in padded]).T


def test_a_wide_blur_equals_numpys_convolution_of_each_axis():
    image = images(2, 3, 40, 64)
    rows, cols = blur_matrix(40, 8.0), blur_matrix(64, 8.0)
    expected = np.einsum("ij,bcjk,lk->bcil", rows, image.numpy(), cols)
    np.testing.assert_allclose(baseline_pixels(image, "blur"), expected, atol=1e-12)


@pytest.mark.parametrize("size", [(1, 1), (2, 7), (16, 3)])
def test_a_wide_blur_of_a_small_image(size):
    blurred = baseline_pixels(torch.full((1, 3, *size), 0.3), "blur")
    torch.testing.assert_close(blurred, torch.full((1, 3, *size), 0.3))


def test_blur_of_half_precision_is_that_of_float32():
    image = images(1, 3, 16, 16, dtype=torch.float16)
    blurred = baseline_pixels(image, "blur")
    assert blurred.dtype == torch.float16
    torch.testing.assert_close(blurred, baseline_pixels(image.float(), "blur").half())


def test_zero_and_mean_of_each_image_and_channel():
    assert torch.equal(baseline_pixels(images(2, 3, 4, 6), "zero"), torch.zeros(2, 3, 4, 6, dtype=torch.float64))
    image = torch.arange(16.0).view(2, 2, 2, 2)
    means = baseline_pixels(image, "mean")
    assert means.shape == image.shape
    assert means[..., 0, 0].tolist() == [[1.5, 5.5], [9.5, 13.5]]
    assert torch.equal(means, means[..., :1, :1].expand_as(means))


def test_other_image():
    batch = images(3, 1, 4, 4)
    assert torch.equal(baseline_pixels(batch, "other"), batch[[2, 0, 1]])
    with pytest.raises(ArgumentError, match="batch of one image"):
        baseline_pixels(batch[:1], "other")


@pytest.mark.parametrize("shape", [(), (3, 1, 1), (1, 3, 4, 6), (2, 1, 1, 1), (2, 3, 4, 6)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_pixels_of_ones_own(shape, dtype):
    batch, given = images(2, 3, 4, 6, dtype=torch.float32), images(*shape, dtype=dtype)
    filling = baseline_pixels(batch, given)
    assert filling.dtype == torch.float32
    assert torch.equal(filling, torch.zeros_like(batch) + given.float())
    before = given.clone()
    filling.zero_()  # the result is nobody else's
    assert torch.equal(given, before)


@pytest.mark.parametrize("shape", [(3,), (2, 1, 1), (1, 2, 3, 4, 6)])
def test_pixels_that_do_not_fit(shape):
    with pytest.raises(ArgumentError, match=r"`baseline` must broadcast to the images' shape \(2, 3, 4, 6\); got"):
        baseline_pixels(images(2, 3, 4, 6), torch.zeros(shape))


def test_unknown_baselines():
    with pytest.raises(
        ArgumentError, match='must be one of "blur", "zero", "mean", "other", or a tensor; got \'black\''
    ):
        baseline_pixels(images(1, 3, 4, 4), "black")
    with pytest.raises(ArgumentTypeError, match="got float"):
        baseline_pixels(images(1, 3, 4, 4), 0.5)


@pytest.mark.parametrize("sigma", [0, -1.0, float("inf"), float("nan"), "8"])
def test_blurs_that_are_none(sigma):
    with pytest.raises(ArgumentError, match="`blur_sigma` must be a number of pixels above 0"):
        baseline_pixels(images(1, 3, 4, 4), "blur", blur_sigma=sigma)


@pytest.mark.parametrize("baseline", ["blur", "zero", "mean", "other"])
def test_the_images_stay(baseline):
    batch = images(2, 3, 8, 8)
    before = batch.clone()
    baseline_pixels(batch, baseline).add_(1)
    assert torch.equal(batch, before)
