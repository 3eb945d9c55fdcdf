"""Images of which some of the patches are hidden, for contributions that are averaged over such images."""

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import torch

from gmar_hf.errors import ArgumentError
from gmar_hf.images.baselines import Baseline, baseline_pixels
from gmar_hf.models.patches import Grid

PATTERNS = ("pairs", "partition")


class Masking(Protocol):
    """How images are masked: the part of a request that this module reads."""

    @property
    def num_masks(self) -> int: ...
    @property
    def mask_baseline(self) -> Baseline: ...
    @property
    def mask_pattern(self) -> str: ...
    @property
    def seed(self) -> int: ...


class MaskedImages(NamedTuple):
    """A batch under one of several masks.

    Args:
        pixel_values (`torch.Tensor` of shape (batch, channels, height, width)): What is left of the images.
        token_weights (`torch.Tensor` of shape (tokens,)): The share of this mask in each token's average over all
            masks; over the masks it sums to one.
    """

    pixel_values: torch.Tensor
    token_weights: torch.Tensor


def antithetic_masks(num_masks: int, grid: Grid, seed: int) -> torch.Tensor:
    """Draw pairs of masks: one hides a random half of the patches, its partner the other half.

    Args:
        num_masks (`int`): The number of masks, even.
        grid ([`Grid`]): Where the patches are.
        seed (`int`): The same seed gives the same masks, and more masks begin with the fewer ones.

    Returns:
        `torch.BoolTensor` of shape (num_masks, rows, cols): True where a patch is hidden.
    """
    generator = torch.Generator().manual_seed(seed)
    num_patches = grid.rows * grid.cols
    masks = torch.zeros(num_masks, num_patches, dtype=torch.bool, device="cpu")
    for first in range(0, num_masks, 2):
        masks[first, torch.randperm(num_patches, generator=generator, device="cpu")[: num_patches // 2]] = True
        masks[first + 1] = ~masks[first]
    return masks.unflatten(1, (grid.rows, grid.cols))


def partition_masks(num_masks: int, grid: Grid, seed: int) -> torch.Tensor:
    """Draw masks that each hide another part of the patches, at random and as equal in size as can be.

    Args:
        num_masks (`int`): The number of parts.
        grid ([`Grid`]): Where the patches are.
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
    masks = torch.zeros(num_masks, num_patches, dtype=torch.bool, device="cpu")
    order = torch.randperm(num_patches, generator=torch.Generator().manual_seed(seed), device="cpu")
    for mask, part in zip(masks, order.tensor_split(num_masks), strict=True):
        mask[part] = True
    return masks.unflatten(1, (grid.rows, grid.cols))


def masked_images(
    pixel_values: torch.Tensor, masking: Masking, grid: Grid, patch_size: tuple[int, int]
) -> Iterator[MaskedImages]:
    """Yield the batch under one mask after the other; all its images are under the same one.

    Args:
        pixel_values (`torch.Tensor` of shape (batch, channels, height, width)): The images.
        masking ([`Masking`]): How many masks there are, of which pattern, and what hidden patches show; "blur" is by
            a Gaussian as wide as a patch is high.
        grid ([`Grid`]): Where the patches are; pixels beyond it stay as they are.
        patch_size (`tuple[int, int]`): Height and width of a patch in pixels.
    """
    num_masks, pattern = masking.num_masks, masking.mask_pattern
    filling = baseline_pixels(
        pixel_values, masking.mask_baseline, blur_sigma=float(patch_size[0]), argument="mask_baseline"
    )
    draw_masks = antithetic_masks if pattern == "pairs" else partition_masks
    masks = draw_masks(num_masks, grid, masking.seed)
    for mask in masks.to(pixel_values.device):
        # `hidden` is the mask in pixels; what lies beyond the last whole patch is never hidden.
        covered = mask.repeat_interleave(patch_size[0], dim=0).repeat_interleave(patch_size[1], dim=1)
        hidden = covered.new_zeros(pixel_values.shape[-2:])
        hidden[: covered.shape[0], : covered.shape[1]] = covered
        # Prefix tokens are in every image and count alike; in a partition a patch counts where it is shown.
        weights = torch.full((grid.prefix + mask.numel(),), 1 / num_masks, device=mask.device)
        if pattern == "partition":
            weights[grid.prefix :] = torch.where(mask.flatten(), 0, 1 / (num_masks - 1))
        yield MaskedImages(torch.where(hidden, filling, pixel_values), weights)
