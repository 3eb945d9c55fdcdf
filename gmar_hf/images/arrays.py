"""Images that are arrays or tensors, as transformers' image processors take them."""

import warnings
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers.image_utils import ChannelDimension, infer_channel_dimension_format

from gmar_hf.errors import ImageError
from gmar_hf.utils.tensors import check_plain

_CHANNELS = (1, 3, 4)


def is_array(source: Any) -> bool:
    """Tell whether an image is an array or a tensor."""
    return isinstance(source, np.ndarray | torch.Tensor)


def plain_array(source: np.ndarray | torch.Tensor) -> np.ndarray:
    """Return an array or tensor, on whatever device, as an array."""
    if isinstance(source, np.ndarray):
        return source
    check_plain("image", source)
    values = source.detach().cpu()
    known = (torch.float16, torch.float32, torch.float64)  # to NumPy, of floating points
    return (values.float() if values.is_floating_point() and values.dtype not in known else values).numpy()


def picture_of_array(source: np.ndarray | torch.Tensor, image_processor: Any = None) -> Image.Image:
    """Make a picture of an array in which transformers' image processors see an image.

    Channels stand first or last, as they find out too: where either may be meant they are the first. Numbers go from 0
    to 255, also in floats, as the processors divide by 255; where a processor does not (`do_rescale=False`), floats go
    from 0 to 1.

    Args:
        source (array or tensor (height, width), (channels, height, width) or (height, width, channels)): One image, of
            1, 3 or 4 channels; a fourth one is transparency, which is dropped.
        image_processor (*optional*): The one that the numbers are meant for, which may get any.

    Returns:
        PIL image, mode "RGB". Bools, and 8 bits that are only 0 and 1, make an almost black one, with a warning: what
        the processor makes of them is that, too.

    Raises:
        ImageError: If the array is not of such a shape, or not finite; without a processor also if its numbers have
            another range.

    Example:
        >>> picture_of_array(np.full((3, 4, 5), 255, dtype=np.uint8)).size
        (5, 4)
    """
    values = _channels_last(source)
    # Of 8 bits everything is as it should be; of other numbers it is only if they use the range.
    low, high = values.min(), values.max()
    largest = 255 if image_processor is None or image_processor.do_rescale or values.dtype.kind != "f" else 1
    is_usual = low >= 0 and high <= largest and (largest == 1 or high == 0 or high > 1)
    if values.dtype == np.uint8 and high == 1:
        warnings.warn(
            f"`image` must hold numbers from 0 to 255, not all within 0 to 1; got an array of {source.dtype} with "
            f"{low:g} to {high:g}. It is taken as it is, almost black: multiply it by 255 if 1 is white.",
            stacklevel=2,
        )
    elif values.dtype != np.uint8 and not is_usual:
        must = f"must hold numbers from 0 to {largest}" + ("" if largest == 1 else ", not all within 0 to 1")
        text = f"`image` {must}; got an array of {values.dtype} with {low:g} to {high:g}. "
        if image_processor is None:
            raise ImageError(text + "Scale it, or convert it to uint8.")
        warnings.warn(text + "The image processor, which divides by 255, takes it as it is.", stacklevel=2)
    if largest == 1:
        values = values * 255
    return Image.fromarray(np.rint(values.clip(0, 255)).astype(np.uint8)).convert("RGB")


def _channels_last(source: np.ndarray | torch.Tensor) -> np.ndarray:
    """Return (height, width, 3), or (height, width) of one channel."""
    values = source = plain_array(source)
    is_image = values.ndim in (2, 3) and values.size > 0 and values.dtype.kind in "biuf"
    try:
        if is_image and values.ndim == 3:
            if infer_channel_dimension_format(values, num_channels=_CHANNELS) == ChannelDimension.FIRST:
                values = np.moveaxis(values, 0, -1)
            values = values[..., 0] if values.shape[-1] == 1 else values[..., :3]
    except ValueError:
        is_image = False
    if not is_image:
        raise ImageError(
            "`image` must be one image: an array of numbers of shape (height, width, channels) or (channels, height, "
            f"width) with 1, 3 or 4 channels; got {source.dtype} of shape {source.shape}. Pass a list of images, or "
            "pixel values to `gmar_hf.explain`."
        )
    if not np.isfinite(values).all():
        raise ImageError("`image` must be finite; got an array with NaN or infinity.")
    return values.astype(np.uint8) if values.dtype.kind == "b" else values
