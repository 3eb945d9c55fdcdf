"""The map as a detector of the object's pixels, called in its order. Only maps and masks are read, never the model.

An image whose mask is empty gets 0: leave such images out. A map has one value a patch, so that pixels tie. Where a
part of equal pixels is called, it is any part: the figure is the mean over all ways to choose it.
"""

import torch

from gmar_hf.metrics.localization import Patches, by_patch
from gmar_hf.utils.checks import check_whole

_TOP_SHARE = 0.02  # of the pixels: 1,000 of 224 x 224, as in Quantus


def pixel_average_precision(attribution: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Return the area under precision over recall, when pixels are called the object's in the order of the map.

    It is the sum of precision times the gain in recall over the map's different values, as scikit-learn's
    `average_precision_score` has it over all pixels of the image.

    Args:
        attribution (`torch.Tensor` of shape (batch, rows, cols)): The maps; each pixel has the value of its patch.
        masks (`torch.Tensor` of shape (batch, height, width), bool): True on the object's pixels.

    Returns:
        `torch.Tensor` of shape (batch,): In [0, 1]; float32 on the map's device. A constant map gets the object's
            share of the image.

    Raises:
        ArgumentError, ArgumentTypeError: If an argument cannot be used, or map and masks do not fit together.

    Example:
        >>> mask = torch.tensor([[[True, False], [False, False]]])
        >>> pixel_average_precision(torch.tensor([[[0.3, 0.9], [0.0, 0.3]]]), mask)
        tensor([0.3333])
    """
    patches = by_patch(attribution, masks)
    falling, order = patches.values.sort(dim=1, descending=True, stable=True)
    gain = patches.num_inside.gather(1, order)
    # Precision is read where a value ends: patches of one value come in together.
    num_called = torch.searchsorted(-falling, -falling, right=True)
    num_right = gain.cumsum(dim=1).gather(1, num_called - 1)
    precision = num_right.float() / (num_called * patches.area)
    return ((gain * precision).sum(dim=1) / gain.sum(dim=1).clamp_min(1)).float()


def pixel_roc_auc(attribution: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Return the area under the receiver operating characteristic of the map as a detector of the object's pixels.

    It is the probability that a pixel of the object has more of the map than one beside it, a tie counting half
    (Fawcett, "An Introduction to ROC Analysis", Pattern Recognition Letters 2006).

    Args:
        attribution (`torch.Tensor` of shape (batch, rows, cols)): The maps; each pixel has the value of its patch.
        masks (`torch.Tensor` of shape (batch, height, width), bool): True on the object's pixels.

    Returns:
        `torch.Tensor` of shape (batch,): In [0, 1], 1/2 for a constant map, NaN where the object is the whole image;
            float32 on the map's device.

    Raises:
        ArgumentError, ArgumentTypeError: If an argument cannot be used, or map and masks do not fit together.

    Example:
        >>> mask = torch.tensor([[[True, False], [False, False]]])
        >>> pixel_roc_auc(torch.tensor([[[0.3, 0.9], [0.0, 0.3]]]), mask)
        tensor([0.5000])
    """
    patches = by_patch(attribution, masks)
    rising, order = patches.values.sort(dim=1, stable=True)
    inside = patches.num_inside.gather(1, order)
    outside = patches.area - inside
    # Pixels outside the object that have less, or not more, of the map than each patch: running sums from 0.
    outside_before = torch.nn.functional.pad(outside.cumsum(dim=1), (1, 0))
    less = outside_before.gather(1, torch.searchsorted(rising, rising))
    not_more = outside_before.gather(1, torch.searchsorted(rising, rising, right=True))
    share_of_won = (less + not_more).float() / 2 / outside.sum(dim=1, keepdim=True)
    return (inside * share_of_won).sum(dim=1) / inside.sum(dim=1).clamp_min(1)


def rank_accuracy(attribution: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Return the object's share of as many of the map's top pixels as the object has.

    It is the relevance rank accuracy of Arras et al. ("CLEVR-XAI", Information Fusion 2022).

    Args:
        attribution (`torch.Tensor` of shape (batch, rows, cols)): The maps; each pixel has the value of its patch.
        masks (`torch.Tensor` of shape (batch, height, width), bool): True on the object's pixels.

    Returns:
        `torch.Tensor` of shape (batch,): In [0, 1], the object's share of the image for a constant map; float32 on
            the map's device.

    Raises:
        ArgumentError, ArgumentTypeError: If an argument cannot be used, or map and masks do not fit together.

    Example:
        >>> mask = torch.tensor([[[True, True], [False, False]]])
        >>> rank_accuracy(torch.tensor([[[0.3, 0.9], [0.5, 0.0]]]), mask)
        tensor([0.5000])
    """
    patches = by_patch(attribution, masks)
    num_top = patches.num_inside.sum(dim=1)
    return _num_right(patches, num_top) / num_top.clamp_min(1)


def top_k_intersection(attribution: torch.Tensor, masks: torch.Tensor, k: int | None = None) -> torch.Tensor:
    """Return the object's share of the map's top pixels (Theiner et al., WACV 2022).

    Args:
        attribution (`torch.Tensor` of shape (batch, rows, cols)): The maps; each pixel has the value of its patch.
        masks (`torch.Tensor` of shape (batch, height, width), bool): True on the object's pixels.
        k (`int`, *optional*): How many pixels; 2 % of them by default, as 1,000 of 224 x 224.

    Returns:
        `torch.Tensor` of shape (batch,): In [0, 1], the object's share of the image for a constant map; float32 on
            the map's device. An object of fewer than `k` pixels cannot reach 1.

    Raises:
        ArgumentError, ArgumentTypeError: If an argument cannot be used, or map and masks do not fit together.

    Example:
        >>> mask = torch.tensor([[[True, True], [False, False]]])
        >>> top_k_intersection(torch.tensor([[[0.3, 0.9], [0.5, 0.0]]]), mask, k=3)
        tensor([0.6667])
    """
    patches = by_patch(attribution, masks)
    num_pixels = masks[0].numel()
    k = max(1, round(_TOP_SHARE * num_pixels)) if k is None else check_whole("k", k, minimum=1, maximum=num_pixels)
    return _num_right(patches, torch.full_like(patches.num_inside[:, 0], k)) / k


def _num_right(patches: Patches, num_called: torch.Tensor) -> torch.Tensor:
    """Return how many of the top pixels (batch,) are the object's, averaged over the choices among equal ones."""
    falling, order = patches.values.sort(dim=1, descending=True, stable=True)
    # Equal patches stand between the pixels above them and those up to them; of these the same share is called.
    above = torch.searchsorted(-falling, -falling) * patches.area
    up_to = torch.searchsorted(-falling, -falling, right=True) * patches.area
    share_called = ((num_called[:, None] - above).float() / (up_to - above)).clamp(0, 1)
    return (patches.num_inside.gather(1, order) * share_called).sum(dim=1)
