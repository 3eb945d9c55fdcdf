"""Whether differences of importance are differences of effect; pixels beyond the last whole patch are never hidden."""

from itertools import pairwise

import torch

from gmar_hf.errors import ArgumentError
from gmar_hf.metrics.fillings import Baseline
from gmar_hf.metrics.hiding import PatchSize, rank_patches, score_hidden
from gmar_hf.metrics.scores import ScoreFunction
from gmar_hf.utils.checks import check_whole


def saco(
    score_fn: ScoreFunction,
    pixel_values: torch.Tensor,
    attribution: torch.Tensor,
    *,
    num_groups: int = 10,
    baseline: Baseline = "mean",
    blur_sigma: float = 8.0,
    patch_size: PatchSize = None,
    max_rows: int = 256,
) -> torch.Tensor:
    """Ask whether more important patches, hidden by themselves, matter more.

    This is the Salience-guided Faithfulness Coefficient (Wu et al., "On the Faithfulness of Vision Transformer
    Explanations", CVPR 2024, who hide by each image's mean). Patches are grouped by rank, the most important first.
    Each group is hidden by itself. Of every two groups the difference of their salience (the sum of their patches'
    values) counts for the map if the score changes more without the earlier group, or equally, and against it if
    less; the sum is divided by that of the magnitudes.

    Args:
        score_fn (`Callable`): From rows of pixel values to a score each (M,), as [`score_function`] makes one.
        pixel_values (`torch.Tensor` of shape (batch, channels, height, width)): The images.
        attribution (`torch.Tensor` of shape (batch, rows, cols)): Their maps, a value a patch.
        num_groups (`int`, defaults to 10): At least two, at most one a patch; their sizes differ by one at most.
        baseline (`str`, `torch.Tensor` or [`Filling`], defaults to "mean"): What hidden patches show, by
            [`baseline_pixels`]; or what becomes of them, as [`TokenRemoval`].
        blur_sigma (`float`, defaults to 8.0): Standard deviation of the Gaussian of "blur", in pixels.
        patch_size (`int` or pair of `int`, *optional*): In pixels; needed if patches leave some over.
        max_rows (`int`, defaults to 256): How many rows `score_fn` gets at once at most, the batch once at least.

    Returns:
        `torch.Tensor` of shape (batch,): In [-1, 1], float32, on the images' device; higher for a better map, 0 where
            all groups have the same salience.

    Raises:
        ArgumentError, ArgumentTypeError, NonFiniteError: If an argument cannot be used, or a score is not finite.

    Example:
        >>> score = lambda rows: rows.sum(dim=(1, 2, 3))
        >>> image = torch.tensor([[[[8.0, 4.0], [2.0, 1.0]]]])
        >>> saco(score, image, image[:, 0], num_groups=4, baseline="zero")
        tensor([1.])
    """
    check_whole("num_groups", num_groups, minimum=1)
    images = rank_patches(pixel_values, attribution, baseline, patch_size, blur_sigma=blur_sigma)
    num_patches = images.num_patches
    if not 2 <= num_groups <= num_patches:
        raise ArgumentError(
            f"`num_groups` must be in [2, {num_patches}] (there are {num_patches} patches); got {num_groups}."
        )
    # Change of the score (batch, groups) without each group; on the CPU, as there is no double on every device.
    edges = [group * num_patches // num_groups for group in range(num_groups + 1)]
    scores = score_hidden(score_fn, images, [(0, 0), *pairwise(edges)], max_rows).cpu().double()
    change = scores[:, :1] - scores[:, 1:]

    # Salience of each group (batch, groups).
    group = torch.bucketize(images.rank.flatten(1).cpu(), torch.tensor(edges[1:]), right=True)
    values = images.attribution.flatten(1).cpu().double()
    salience = torch.zeros_like(change).scatter_add_(1, group, values)

    # Both with the earlier group first: every pair once, above the diagonal.
    difference = (salience[:, :, None] - salience[:, None, :]).triu(1)
    agreeing = change[:, :, None] >= change[:, None, :]
    weight = difference.where(agreeing, -difference).sum(dim=(1, 2))
    total = difference.abs().sum(dim=(1, 2))
    return (weight / total).where(total > 0, 0).to(pixel_values.device, torch.float32)
