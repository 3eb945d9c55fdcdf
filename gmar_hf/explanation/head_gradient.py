"""The gradient of a score in what the backbone hands to the classifier's head."""

from typing import NamedTuple

import torch

from gmar_hf.errors import ImageArgumentError
from gmar_hf.explanation.finiteness import FLOAT16_ADVICE, gradients_not_finite, of_images
from gmar_hf.utils.tensors import at_least_float32

# fp16 gradients live between 2^-24 and 2^16. Those of a head that averages thousands of tokens would underflow, those
# of a head that normalises tiny features would overflow: the first scale that overflows nothing is taken.
_HALF_HEAD_SCALES = (2.0**10, 1.0, 2.0**-10)
_PEAK = 2.0**6  # of the gradient that the encoder's backward starts with: 2^10 below overflow, 2^20 above underflow


class HeadGradient(NamedTuple):
    """Gradient of a score with respect to the backbone's last hidden state: `relative * size`, at least float32.

    Args:
        relative (`torch.Tensor` of shape (batch, tokens, hidden_size)): Of a size that any dtype holds, squared too;
            of the shape of the hidden state, see [`tokens_of`].
        size (`torch.Tensor` of shape (batch, 1)): A power of two for every image.
        slope (`torch.Tensor` of shape (batch, classes)): The score's gradient in the logits, divided by `size`.
    """

    relative: torch.Tensor
    size: torch.Tensor
    slope: torch.Tensor


def score_slope(score: torch.Tensor, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Differentiate a score in the logits.

    Args:
        score (`torch.Tensor` of shape (batch,)): Made from `logits`.
        logits (`torch.Tensor` of shape (batch, classes)): A leaf.

    Returns:
        The slope (batch, classes), divided by a power of two, and that power, (batch, 1).

    Raises:
        ArgumentError: If some image's score does not depend on the logits.
        NonFiniteError: If the slope is NaN or infinite.
    """
    (slope,) = torch.autograd.grad(score, logits, torch.ones_like(score), retain_graph=True, allow_unused=True)
    slope = torch.zeros_like(logits) if slope is None else slope
    if not slope.isfinite().all():
        raise gradients_not_finite("Check that `target` has a finite slope everywhere.", of_images(slope))
    _check_each_depends(slope)
    size = _power_of_two(slope)
    return slope / size, size


def hidden_gradient(
    logits: torch.Tensor, hidden: torch.Tensor, slope: torch.Tensor, slope_size: torch.Tensor
) -> HeadGradient | None:
    """Differentiate the logits, weighted by a slope, in the last hidden state.

    Args:
        logits (`torch.Tensor` of shape (batch, classes)): As the model made them from `hidden`.
        hidden (`torch.Tensor` of shape (batch, tokens, hidden_size)): The last hidden state, or as a map, see
            [`tokens_of`].
        slope, slope_size: What [`score_slope`] returned.

    Returns:
        [`HeadGradient`], or None where the logits do not depend on the hidden state.

    Raises:
        ArgumentError: If some image's score does not depend on the hidden state.
        NonFiniteError: If a gradient is NaN or infinite.
    """
    if not logits.requires_grad:
        return None
    # Half precision tries one scale after the other; wider dtypes need none.
    for scale in _HALF_HEAD_SCALES if hidden.dtype == torch.float16 else (1.0,):
        upstream = (slope * scale).to(logits.dtype)
        (gradient,) = torch.autograd.grad(logits, hidden, upstream, retain_graph=True, allow_unused=True)
        if gradient is None:
            return None
        if gradient.isfinite().all():
            break
    else:
        raise gradients_not_finite(FLOAT16_ADVICE, of_images(gradient))
    # Divided to a size that the encoder's backward can carry in any dtype.
    gradient = at_least_float32(gradient)
    _check_each_depends(gradient)
    lift = _power_of_two(gradient) / _PEAK
    size = lift * slope_size.to(lift.device) / scale
    return HeadGradient(
        gradient / lift.view(-1, *[1] * (gradient.ndim - 1)), size, slope * (scale / lift.to(slope.device))
    )


def _power_of_two(tensor: torch.Tensor) -> torch.Tensor:
    """Return the largest power of two, (batch, 1), that each image's magnitudes in (batch, ...) reach."""
    return tensor.flatten(1).abs().amax(dim=1, keepdim=True).log2().floor().exp2()


def _check_each_depends(gradient: torch.Tensor) -> None:
    """Refuse a gradient (batch, ...) that is zero everywhere for some image."""
    silent = (gradient.flatten(1) == 0).all(dim=1).nonzero()[:, 0].tolist()
    if silent:
        raise ImageArgumentError(
            f"`target` must depend on what the model sees; got a score with no gradient for image(s) {silent} of the "
            "batch. Choose another target, or look whether the classifier's weights are all zero or it takes the "
            "mean over the batch away."
        )
