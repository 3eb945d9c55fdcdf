"""What a probability does when an image is seen through its own map.

Average drop and increase are those of Chattopadhay et al. ("Grad-CAM++", WACV 2018), average gain that of Zhang et al.
("Opti-CAM", CVIU 2024); Xplique's documentation has all three. `s` is the probability of the target on the image, `m`
that on the image multiplied by its map. The map's negative part counts as 0; it is divided by its maximum and brought
to pixels by bilinear interpolation; over pixels beyond the last whole patch it goes on evenly. Where a map has no
positive part nothing is seen.
"""

import torch
from torch.nn.functional import interpolate, pad

from gmar_hf.errors import ArgumentError
from gmar_hf.metrics.hiding import PatchSize, checked_map
from gmar_hf.metrics.scores import ScoreFunction, score_rows
from gmar_hf.utils.checks import check_whole
from gmar_hf.utils.tensors import copies_at_once


def average_drop(
    score_fn: ScoreFunction,
    pixel_values: torch.Tensor,
    attribution: torch.Tensor,
    *,
    patch_size: PatchSize = None,
    max_rows: int = 256,
) -> torch.Tensor:
    """Return the share of the probability that is lost behind the map: `max(0, s - m) / s`, 0 where `s` is 0.

    Args:
        score_fn (`Callable`): From rows of pixel values to a probability each (M,), as [`score_function`] makes one.
        pixel_values (`torch.Tensor` of shape (batch, channels, height, width)): The images.
        attribution (`torch.Tensor` of shape (batch, rows, cols)): Their maps, a value a patch.
        patch_size (`int` or pair of `int`, *optional*): In pixels; needed if patches leave some over.
        max_rows (`int`, defaults to 256): How many rows `score_fn` gets at once at most, the batch once at least.

    Returns:
        `torch.Tensor` of shape (batch,): In [0, 1], float32, on the images' device; lower for a better map.

    Raises:
        ArgumentError, ArgumentTypeError, NonFiniteError: If an argument cannot be used, or a score is not finite.

    Example:
        >>> score = lambda rows: rows.mean(dim=(1, 2, 3))
        >>> average_drop(score, torch.ones(1, 1, 2, 2), torch.tensor([[[4.0, 1.0], [-1.0, 1.0]]]))
        tensor([0.6250])
    """
    whole, masked = _probabilities(score_fn, pixel_values, attribution, patch_size, max_rows)
    return ((whole - masked).clamp_min(0) / whole).where(whole > 0, 0).float()


def average_increase(
    score_fn: ScoreFunction,
    pixel_values: torch.Tensor,
    attribution: torch.Tensor,
    *,
    patch_size: PatchSize = None,
    max_rows: int = 256,
) -> torch.Tensor:
    """Tell whether the probability is higher behind the map: `m > s`.

    Args:
        score_fn (`Callable`): From rows of pixel values to a probability each (M,), as [`score_function`] makes one.
        pixel_values (`torch.Tensor` of shape (batch, channels, height, width)): The images.
        attribution (`torch.Tensor` of shape (batch, rows, cols)): Their maps, a value a patch.
        patch_size (`int` or pair of `int`, *optional*): In pixels; needed if patches leave some over.
        max_rows (`int`, defaults to 256): How many rows `score_fn` gets at once at most, the batch once at least.

    Returns:
        `torch.Tensor` of shape (batch,): 1 or 0, float32, on the images' device; higher for a better map.

    Raises:
        ArgumentError, ArgumentTypeError, NonFiniteError: If an argument cannot be used, or a score is not finite.
    """
    whole, masked = _probabilities(score_fn, pixel_values, attribution, patch_size, max_rows)
    return (masked > whole).float()


def average_gain(
    score_fn: ScoreFunction,
    pixel_values: torch.Tensor,
    attribution: torch.Tensor,
    *,
    patch_size: PatchSize = None,
    max_rows: int = 256,
) -> torch.Tensor:
    """Return the share of what the probability lacked that is won: `max(0, m - s) / (1 - s)`, 0 where `s` is 1.

    Args:
        score_fn (`Callable`): From rows of pixel values to a probability each (M,), as [`score_function`] makes one.
        pixel_values (`torch.Tensor` of shape (batch, channels, height, width)): The images.
        attribution (`torch.Tensor` of shape (batch, rows, cols)): Their maps, a value a patch.
        patch_size (`int` or pair of `int`, *optional*): In pixels; needed if patches leave some over.
        max_rows (`int`, defaults to 256): How many rows `score_fn` gets at once at most, the batch once at least.

    Returns:
        `torch.Tensor` of shape (batch,): In [0, 1], float32, on the images' device; higher for a better map.

    Raises:
        ArgumentError, ArgumentTypeError, NonFiniteError: If an argument cannot be used, or a score is not finite.
    """
    whole, masked = _probabilities(score_fn, pixel_values, attribution, patch_size, max_rows)
    return ((masked - whole).clamp_min(0) / (1 - whole)).where(whole < 1, 0).float()


def _probabilities(
    score_fn: ScoreFunction,
    pixel_values: torch.Tensor,
    attribution: torch.Tensor,
    patch_size: PatchSize,
    max_rows: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return `s` and `m`, (batch,) each."""
    check_whole("max_rows", max_rows, minimum=1)
    mask = _soft_mask(pixel_values, attribution, patch_size)
    images = pixel_values.detach()
    both = torch.cat([images, images * mask.to(images.dtype)])
    at_once = copies_at_once(images, max_rows) * len(images)
    scores = torch.cat([score_rows(score_fn, rows) for rows in both.split(at_once)])
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    if scores.min() < 0 or scores.max() > 1:
        wrong = scores.min() if scores.min() < 0 else scores.max()
        raise ArgumentError(
            f"`score_fn` must give probabilities, in [0, 1]; got {wrong:.4g}. "
            'Make it with `gmar_hf.metrics.score_function(model, target, "softmax")`, or "sigmoid".'
        )
    whole, masked = scores.chunk(2)
    return whole, masked


def _soft_mask(pixel_values: torch.Tensor, attribution: torch.Tensor, patch_size: PatchSize) -> torch.Tensor:
    """Bring maps to pixels: a share in [0, 1] of each pixel's value that stays, (batch, 1, height, width)."""
    values, (patch_height, patch_width) = checked_map(pixel_values, attribution, patch_size)
    positive = values.clamp_min(0)
    highest = positive.amax(dim=(-2, -1), keepdim=True)
    shares = (positive / highest).where(highest > 0, 0)
    rows, cols = values.shape[1:]
    covered = (rows * patch_height, cols * patch_width)
    mask = interpolate(shares[:, None], covered, mode="bilinear", align_corners=False)
    # Pixels beyond the last whole patch go with their neighbours.
    height, width = pixel_values.shape[-2:]
    return pad(mask, (0, width - covered[1], 0, height - covered[0]), mode="replicate")
