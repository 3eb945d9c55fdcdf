"""What stands in the place of hidden patches. It decides half of a ranking of maps: measure under several."""

import math

import torch
from torch.nn.functional import conv2d, pad

from gmar_hf.errors import ArgumentError, ArgumentTypeError
from gmar_hf.utils.checks import check_choice, check_number
from gmar_hf.utils.tensors import at_least_float32, cast, check_images, check_plain
from gmar_hf.utils.text import quoted

BASELINES = ("blur", "zero", "mean", "other")
Baseline = str | torch.Tensor


def baseline_pixels(
    pixel_values: torch.Tensor, baseline: Baseline, *, blur_sigma: float = 8.0, argument: str = "baseline"
) -> torch.Tensor:
    """Make the pixels that hidden patches show.

    Args:
        pixel_values (`torch.Tensor` of shape (batch, channels, height, width)): The images, as the model sees them.
        baseline (`str` or `torch.Tensor`): "blur" (each image under a Gaussian, its edges reflected), "zero" (0 in
            the model's pixel values, which is the grey of the normalisation's mean), "mean" (each image's mean of
            each channel), "other" (the image before it in the batch; the first gets the last), or pixel values of
            your own that broadcast to the images, such as black after normalisation: `-mean / std` of shape
            (channels, 1, 1).
        blur_sigma (`float`, defaults to 8.0): Standard deviation of the Gaussian in pixels; it is cut at four of
            them, or where the reflection ends.
        argument (`str`, defaults to "baseline"): What errors call the baseline.

    Returns:
        `torch.Tensor` of shape (batch, channels, height, width): Of the images' dtype, on their device.

    Raises:
        ArgumentError: If there is no such baseline, its shape does not fit, or "other" has no other image.
        ArgumentTypeError: If an argument is of the wrong kind.

    Example:
        >>> baseline_pixels(torch.tensor([[[[1.0, 3.0]]]]), "mean")
        tensor([[[[2., 2.]]]])
    """
    check_images(pixel_values)
    images = pixel_values.detach()
    # Pixel values of the user's, or one of the names.
    if isinstance(baseline, torch.Tensor):
        return _broadcast(baseline, images, argument)
    if not isinstance(baseline, str):
        raise ArgumentTypeError(
            f"`{argument}` must be one of {quoted(BASELINES)}, or a tensor; got {type(baseline).__name__}. "
            "Wrap a number as `torch.tensor(0.5)`."
        )
    check_choice(argument, baseline, BASELINES, otherwise="or a tensor")
    if baseline == "blur":
        return _blur(images, blur_sigma)
    if baseline == "zero":
        return torch.zeros_like(images)
    if baseline == "mean":
        return images.mean(dim=(-2, -1), keepdim=True).expand_as(images).clone()
    if len(images) < 2:
        raise ArgumentError(
            f'`{argument}` must not be "other" for a batch of one image (there is no other); got one. '
            "Pass at least two images, or another baseline."
        )
    return images.roll(1, dims=0)


def _broadcast(baseline: torch.Tensor, images: torch.Tensor, argument: str) -> torch.Tensor:
    check_plain(argument, baseline)
    pixels = cast(baseline.detach().to(images.device), images.dtype)
    if pixels is None or not pixels.isfinite().all():
        raise ArgumentError(
            f"`{argument}` must hold finite pixel values, of the images' {str(images.dtype).removeprefix('torch.')}; "
            f"got {'NaN or infinity' if pixels is not None else f'{baseline.abs().max():.3g}'}."
        )
    try:
        return pixels.broadcast_to(images.shape).clone()
    except RuntimeError as error:
        raise ArgumentError(
            f"`{argument}` must broadcast to the images' shape {tuple(images.shape)}; got {tuple(baseline.shape)}. "
            "One number a channel has shape (channels, 1, 1)."
        ) from error


def _blur(images: torch.Tensor, sigma: float) -> torch.Tensor:
    """Blur rows, then columns, in float32 at least: half precision has no convolution everywhere."""
    sigma = check_number("blur_sigma", sigma, above=0, unit="pixels")
    blurred = at_least_float32(images).flatten(0, 1)[:, None]
    for dim in (-2, -1):
        radius = math.ceil(min(4 * sigma, images.shape[dim] - 1))
        # One axis of the Gaussian, cut at four standard deviations or where the reflection ends.
        steps = torch.arange(-radius, radius + 1, dtype=torch.float64, device="cpu")
        kernel = torch.exp(-((steps / sigma) ** 2) / 2)
        kernel = (kernel / kernel.sum()).to(blurred)
        margin = (0, 0, radius, radius) if dim == -2 else (radius, radius, 0, 0)
        shape = (1, 1, -1, 1) if dim == -2 else (1, 1, 1, -1)
        blurred = conv2d(pad(blurred, margin, mode="reflect"), kernel.view(shape))
    return blurred.view(images.shape).to(images.dtype)
