"""The errors for numbers that are NaN or infinite, worded once."""

import torch

from gmar_hf.errors import NonFiniteError
from gmar_hf.utils.tensors import cast

FLOAT16_ADVICE = "Check the model's weights, or load it in bfloat16 or float32: float16 can overflow."


def gradients_not_finite(advice: str, where: str = "") -> NonFiniteError:
    """Return the error.

    Args:
        advice (`str`): What to do, a whole sentence.
        where (`str`, defaults to ""): Where they were met, such as " inside the encoder".
    """
    return NonFiniteError(f"The gradients must be finite; got NaN or infinity{where}. {advice}")


def check_encoder_gradients(*tensors: torch.Tensor) -> None:
    """Refuse tensors made from the encoder's gradients if a number in them is NaN or infinite.

    Raises:
        NonFiniteError: If one is.
    """
    if not all(tensor.isfinite().all() for tensor in tensors):
        raise gradients_not_finite(FLOAT16_ADVICE, " inside the encoder")


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
