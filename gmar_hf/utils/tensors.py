"""The rules for tensors that hold everywhere: precision, and the shape of a batch of images."""

import hashlib

import torch

from gmar_hf.errors import ArgumentError, ArgumentTypeError


def at_least_float32(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor in float32, or as it is where it is finer: reductions are never done in half precision."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def relative_error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Return `max|a - b| / max|b|`, in float64.

    Example:
        >>> relative_error(torch.tensor([1.0, -4.0]), torch.tensor([2.0, -4.0]))
        0.25
    """
    difference = (ours.double() - theirs.double()).abs().max()
    return (difference / theirs.double().abs().max().clamp_min(torch.finfo(torch.float32).tiny)).item()


def described(value: object) -> object:
    """Return a value as plain JSON has it; of a tensor its shape, and a digest that tells it from others.

    Example:
        >>> described(0.5), described(torch.zeros(2, 1))
        (0.5, 'tensor of shape (2, 1), sha256 374708fff7719dd5')
    """
    if isinstance(value, torch.Tensor):
        content = value.detach().cpu().double().contiguous().numpy().tobytes()
        return f"tensor of shape {tuple(value.shape)}, sha256 {hashlib.sha256(content).hexdigest()[:16]}"
    return value if value is None or isinstance(value, bool | int | float | str) else type(value).__name__


def check_images(pixel_values: torch.Tensor) -> None:
    """Refuse what is no batch of images.

    Args:
        pixel_values (`torch.Tensor` of shape (batch, channels, height, width)): What was given.

    Raises:
        ArgumentError: If the shape or the dtype do not fit, or it is on the meta device.
        ArgumentTypeError: If it is no tensor.
    """
    if not isinstance(pixel_values, torch.Tensor):
        raise ArgumentTypeError(
            f"`pixel_values` must be a tensor (batch, channels, height, width); got {type(pixel_values).__name__}. "
            'Make it with the image processor: `image_processor(images, return_tensors="pt")["pixel_values"]`.'
        )
    if pixel_values.is_meta:
        raise ArgumentError("`pixel_values` must hold numbers; got a tensor on the meta device, which holds none.")
    if pixel_values.ndim != 4 or pixel_values.numel() == 0 or not pixel_values.is_floating_point():
        raise ArgumentError(
            "`pixel_values` must be floating point (batch, channels, height, width) with at least one image; got "
            f"{str(pixel_values.dtype).removeprefix('torch.')} {tuple(pixel_values.shape)}. One image needs "
            "a batch axis, `pixel_values[None]`; models that take other inputs, such as SigLIP2 NaFlex's flattened "
            "patches, are not supported."
        )
