"""The errors for numbers that are NaN or infinite, worded once."""

import torch

from gmar_hf.errors import NonFiniteError
from gmar_hf.utils.tensors import cast

FLOAT16_ADVICE = "Check the model's weights, or load it in bfloat16 or float32: float16 can overflow."


def gradients_not_finite(advice: str, where: str = "") -> NonFiniteError:
    """Return the error.

    Args:
        advice (`str`): What to do, a whole sentence.
        where (`str`, defaults to ""): Where they were met, such as " inside the encoder", and for which images.
    """
    return NonFiniteError(f"The gradients must be finite; got NaN or infinity{where}. {advice}")


def of_images(*tensors: torch.Tensor) -> str:
    """Say for which images tensors (batch, ...) are not finite, such as " for image(s) [1] of the batch".

    Of a batch of one image there is nothing to say.

    Example:
        >>> of_images(torch.tensor([[0.0], [torch.nan], [torch.inf]]), torch.zeros(3))
        ' for image(s) [1, 2] of the batch'
    """
    bad = sorted({row for tensor in tensors for row, values in enumerate(tensor) if not values.isfinite().all()})
    return f" for image(s) {bad} of the batch" if bad and len(tensors[0]) > 1 else ""


def check_logits(logits: torch.Tensor) -> None:
    """Refuse logits (batch, classes) if one is NaN or infinite.

    Raises:
        NonFiniteError: With the places of the images in their batch.
    """
    if not logits.isfinite().all():
        raise NonFiniteError(
            f"The logits must be finite; got NaN or infinity{of_images(logits)}. Check `pixel_values` and the "
            "model's weights for NaN, or use bfloat16 or float32 instead of float16."
        )


def check_encoder_gradients(*tensors: torch.Tensor, of_batch: bool = True) -> None:
    """Refuse tensors made from the encoder's gradients if a number in them is NaN or infinite.

    Args:
        *tensors (`torch.Tensor`): Of any shape.
        of_batch (`bool`, defaults to True): Whether their first axis is that of the images, so that these are named.

    Raises:
        NonFiniteError: If one is.
    """
    bad = [tensor for tensor in tensors if not tensor.isfinite().all()]
    if bad:
        raise gradients_not_finite(FLOAT16_ADVICE, f" inside the encoder{of_images(*bad) if of_batch else ''}")


def as_float32(tensor: torch.Tensor) -> torch.Tensor:
    """Return what came out in float32, as results are.

    Raises:
        NonFiniteError: If a finite number is beyond what float32 holds.
    """
    narrow = cast(tensor, torch.float32)
    if narrow is None:
        raise NonFiniteError(
            f"What comes out must lie in float32, up to {torch.finfo(torch.float32).max:.3g}; got "
            f"{tensor.abs().max():.3g}. Check the model's weights, or explain a smaller score."
        )
    return narrow
