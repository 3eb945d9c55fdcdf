"""The error for gradients that are NaN or infinite, worded once."""

import torch

from gmar_hf.errors import NonFiniteError

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
