"""ROAD's imputation, against the whole system of equations in NumPy."""

import numpy as np
import pytest
import torch

from gmar_hf import metrics
from gmar_hf.metrics.imputation import NOISE, NoisyLinearImputation


def solved(image, hidden):
    """Impute one channel (height, width) in float64 by a dense solve, from the description alone."""
    places = np.argwhere(hidden)
    number = {tuple(place): count for count, place in enumerate(places)}
    matrix, right = np.zeros((len(places),) * 2), np.zeros(len(places))
    for place, count in number.items():
        for down in (-1, 0, 1):
            for across in (-1, 0, 1):
                other = (place[0] + down, place[1] + across)
                inside = 0 <= other[0] < image.shape[0] and 0 <= other[1] < image.shape[1]
                if (down, across) == (0, 0) or not inside:
                    continue
                weight = 1 / 12 if down and across else 1 / 6
                matrix[count, count] += weight
                if other in number:
                    matrix[count, number[other]] -= weight
                else:
                    right[count] += weight * image[other]
    filled = image.astype(np.float64)
    filled[hidden] = np.linalg.solve(matrix, right)
    return filled


@pytest.mark.parametrize(
    ("patch_size", "grid", "left_over"), [((4, 4), (6, 6), (0, 0)), ((1, 1), (9, 7), (0, 0)), ((3, 5), (4, 3), (2, 1))]
)
def test_hidden_pixels_solve_the_equations(patch_size, grid, left_over):
    generator = torch.Generator().manual_seed(0)
    height, width = (number * side + more for number, side, more in zip(grid, patch_size, left_over, strict=True))
    images = torch.randn(2, 3, height, width, generator=generator)
    # Few patches, half of them, all but one.
    hidden = torch.stack([torch.rand(2, *grid, generator=generator) < share for share in (0.2, 0.5, 2)])
    hidden[2, :, 0, -1] = False
    with NoisyLinearImputation().hide(images, hidden, patch_size) as rows:
        pass
    noise = torch.randn(3, height, width, generator=torch.Generator().manual_seed(0)) * NOISE
    pixels = torch.zeros(6, height, width, dtype=torch.bool)
    covered = hidden.flatten(0, 1).repeat_interleave(patch_size[0], 1).repeat_interleave(patch_size[1], 2)
    pixels[:, : covered.shape[1], : covered.shape[2]] = covered
    for row in range(6):
        for channel in range(3):
            image = images[row % 2, channel].numpy()
            expected = solved(image, pixels[row].numpy()) + (noise[channel] * pixels[row]).numpy()
            np.testing.assert_allclose(rows[row, channel], expected, atol=2e-3)
        assert torch.equal(rows[row][:, ~pixels[row]], images[row % 2][:, ~pixels[row]])


def test_of_a_large_hole_the_far_middle_is_settled():
    """224 pixels with one visible edge of 0 and one of 1: between them a slope."""
    images = torch.zeros(1, 1, 224, 224)
    images[..., -16:] = 1
    hidden = torch.ones(1, 1, 14, 14, dtype=torch.bool)
    hidden[..., 0] = hidden[..., -1] = False
    with NoisyLinearImputation().hide(images, hidden, (16, 16)) as rows:
        pass
    slope = torch.linspace(0, 1, 194)[1:-1].expand(224, -1)
    assert (rows[0, 0, :, 16:-16] - slope).abs().max() < 6 * NOISE
    assert (rows[0, 0, :, 16:-16] - slope).mean().abs() < 1e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_image_hidden_whole_is_its_mean(dtype):
    images = torch.rand(2, 3, 8, 8).to(dtype)
    with NoisyLinearImputation().hide(images, torch.ones(1, 2, 2, 2, dtype=torch.bool), (4, 4)) as rows:
        assert rows.dtype == dtype
        means = images.float().mean(dim=(2, 3), keepdim=True)
        assert (rows.float() - means).abs().max() < 6 * NOISE
    with NoisyLinearImputation().hide(images, torch.zeros(1, 2, 2, 2, dtype=torch.bool), (4, 4)) as rows:
        assert torch.equal(rows, images)


def test_float64_whatever_torchs_default_is():
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    hidden = torch.zeros(1, 2, 2, 2, dtype=torch.bool)
    hidden[0, :, 0, 1] = True
    with NoisyLinearImputation().hide(images, hidden, (4, 4)) as expected:
        pass
    with NoisyLinearImputation().hide(images.double(), hidden, (4, 4)) as rows:
        torch.testing.assert_close(rows.float(), expected, atol=1e-3, rtol=0)
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with NoisyLinearImputation().hide(images, hidden, (4, 4)) as rows:
            assert rows.dtype == torch.float32
            torch.testing.assert_close(rows, expected, atol=0.1, rtol=0)  # the noise is drawn in that dtype
    finally:
        torch.set_default_dtype(default)


def test_metrics_know_it_by_name():
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    maps = torch.rand(2, 2, 2, generator=torch.Generator().manual_seed(2))

    def score(rows):
        return rows.square().mean((1, 2, 3))

    by_name = metrics.deletion(score, images, maps, num_steps=4, baseline="road").scores
    filling = metrics.deletion(score, images, maps, num_steps=4, baseline=metrics.NoisyLinearImputation()).scores
    assert torch.equal(by_name, filling)
    hidden = torch.zeros(2, 4, dtype=torch.bool).scatter(1, maps.flatten(1).argmax(1, keepdim=True), True)
    with NoisyLinearImputation().hide(images, hidden.view(1, 2, 2, 2), (4, 4)) as rows:
        torch.testing.assert_close(by_name[:, 1], score(rows))
