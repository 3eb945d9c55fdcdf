"""Patches are the last tokens; everything before them is prefix."""

from __future__ import annotations

import pytest
import torch

from gmar_hf.errors import UnsupportedModelError
from gmar_hf.models.patches import Grid, find_grid, known_patch_size, pair, to_grid
from tests.helpers import zoo


@pytest.mark.parametrize(
    ("pixel_size", "patch_size", "num_tokens", "grid"),
    [
        ((224, 224), 16, 197, Grid(1, 14, 14)),
        ((224, 224), 16, 198, Grid(2, 14, 14)),  # DeiT with its distillation token
        ((224, 224), 16, 196, Grid(0, 14, 14)),  # SigLIP
        ((224, 224), 14, 261, Grid(5, 16, 16)),  # DINOv2 with registers
        ((24, 40), 8, 16, Grid(1, 3, 5)),
        ((32, 32), (8, 4), 33, Grid(1, 4, 8)),
        ((32, 32), [8, 4], 32, Grid(0, 4, 8)),
        ((230, 225), 16, 197, Grid(1, 14, 14)),  # what is left of a patch at the edges is not seen
    ],
)
def test_find_grid(pixel_size, patch_size, num_tokens, grid):
    assert find_grid(pixel_size, patch_size, num_tokens) == grid


@pytest.mark.parametrize(
    ("pixel_size", "patch_size", "num_tokens", "words"),
    [
        ((224, 224), 16, 50, r"got 50 tokens for 14 x 14 patches \(224 x 224 pixels in patches of 16 x 16\)"),
        ((24, 40), (8, 4), 7, r"got 7 tokens for 3 x 10 patches \(24 x 40 pixels in patches of 8 x 4\)"),
        ((8, 8), 16, 1, r"got 1 tokens for 0 x 0 patches \(8 x 8 pixels in patches of 16 x 16\)"),
    ],
)
def test_a_count_that_does_not_fit_names_the_numbers(pixel_size, patch_size, num_tokens, words):
    with pytest.raises(UnsupportedModelError, match=words):
        find_grid(pixel_size, patch_size, num_tokens)


def test_pair():
    assert pair(3) == (3, 3)
    assert pair([2, 5]) == (2, 5)
    assert pair(torch.Size([2, 5])) == (2, 5)


def test_patches_that_overlap_are_as_large_as_they_stand_apart():
    assert zoo.hiera().config.patch_size == (7, 7)
    assert known_patch_size(zoo.hiera()) == (4, 4)
    assert known_patch_size(zoo.deit()) == (8, 4)
    assert known_patch_size(zoo.resnet()) is None


def test_to_grid_is_row_major_and_keeps_other_axes():
    per_token = torch.arange(2 * 3 * 8).reshape(2, 3, 8)
    maps = to_grid(per_token, Grid(prefix=2, rows=2, cols=3))
    assert maps.shape == (2, 3, 2, 3)
    assert maps[0, 0].tolist() == [[2, 3, 4], [5, 6, 7]]
