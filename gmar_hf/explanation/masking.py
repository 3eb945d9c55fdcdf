"""Images of which some of the patches are hidden, for contributions that are averaged over such images."""

from collections.abc import Iterator
from typing import NamedTuple

import torch

from gmar_hf.errors import ArgumentError
from gmar_hf.images.baselines import Baseline, baseline_pixels
from gmar_hf.models.patches import Grid

PATTERNS = ("pairs", "partition")


class MaskedImages(NamedTuple):
    """A batch under one of several masks.

    Args:
        pixel_values (`torch.Tensor` of shape (batch, channels, height, width)): What is left of the images.
        token_weights (`torch.Tensor` of shape (tokens,)): The share that what is found here has in each token's
            average over all masks; over the masks it sums to one.
    """

    pixel_values: torch.Tensor
    token_weights: torch.Tensor


def antithetic_masks(num_masks: int, grid: Grid, seed: int) -> torch.Tensor:
    """Pairs of masks, each with a random half of the patches and the other half.

    Args:
        num_masks (`int`): Even.
        grid ([`Grid`]): Of the patches.
        seed (`int`): The same seed gives the same masks, and more masks begin with the fewer ones.

    Returns:
        `torch.BoolTensor` of shape (num_masks, rows, cols): True where a patch is hidden.
    """
    generator = torch.Generator().manual_seed(seed)
    num_patches = grid.rows * grid.cols
    masks = torch.zeros(num_masks, num_patches, dtype=torch.bool)
    for first in range(0, num_masks, 2):
        masks[first, torch.randperm(num_patches, generator=generator)[: num_patches // 2]] = True
        masks[first + 1] = ~masks[first]
    return masks.unflatten(1, (grid.rows, grid.cols))


def partition_masks(num_masks: int, grid: Grid, seed: int) -> torch.Tensor:
    """Masks that each hide another part of the patches, drawn at random and as equal in size as can be.

    Args:
        num_masks (`int`): How many parts.
        grid ([`Grid`]): Of the patches.
        seed (`int`): The same seed gives the same masks.

    Returns:
        `torch.BoolTensor` of shape (num_masks, rows, cols): True where a patch is hidden; each patch is, once.

    Raises:
        ArgumentError: If there are more parts than patches.
    """
    num_patches = grid.rows * grid.cols
    if num_masks > num_patches:
        raise ArgumentError(
            f"`num_masks` must be at most the number of patches, {num_patches}, for a partition; got {num_masks}."
        )
    masks = torch.zeros(num_masks, num_patches, dtype=torch.bool)
    order = torch.randperm(num_patches, generator=torch.Generator().manual_seed(seed))
    for mask, part in zip(masks, order.tensor_split(num_masks), strict=True):
        mask[part] = True
    return masks.unflatten(1, (grid.rows, grid.cols))


def masked_images(
    pixel_values: torch.Tensor,
    num_masks: int,
    baseline: Baseline,
    pattern: str,
    seed: int,
    grid: Grid,
    patch_size: tuple[int, int],
) -> Iterator[MaskedImages]:
    """The batch under one mask after the other; all its images under the same one.

    Args:
        pixel_values (`torch.Tensor` of shape (batch, channels, height, width)): The images.
        num_masks (`int`): How many.
        baseline (`str` or `torch.Tensor`): What hidden patches show, as in [`baseline_pixels`]; "blur" is by a
            Gaussian as wide as a patch is high.
        pattern (`str`): "pairs" of opposite halves, each patch averaged over all masks; or a "partition", each patch
            averaged over the masks that show it.
        seed (`int`): Of the masks.
        grid ([`Grid`]), patch_size (`tuple[int, int]`): Where the patches are. Pixels beyond the grid stay.

    Yields:
        [`MaskedImages`]
    """
    filling = baseline_pixels(pixel_values, baseline, blur_sigma=float(patch_size[0]), argument="mask_baseline")
    masks = (antithetic_masks if pattern == "pairs" else partition_masks)(num_masks, grid, seed)
    for mask in masks.to(pixel_values.device):
        covered = mask.repeat_interleave(patch_size[0], dim=0).repeat_interleave(patch_size[1], dim=1)
        hidden = covered.new_zeros(pixel_values.shape[-2:])
        hidden[: covered.shape[0], : covered.shape[1]] = covered
        weights = torch.full((grid.prefix + mask.numel(),), 1 / num_masks, device=mask.device)
        if pattern == "partition":
            weights[grid.prefix :] = torch.where(mask.flatten(), 0, 1 / (num_masks - 1))
        yield MaskedImages(torch.where(hidden, filling, pixel_values), weights)
