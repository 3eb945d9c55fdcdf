"""The size that an image processor brings an image to, before it makes it."""

from typing import Any

import numpy as np
from transformers.image_processing_backends import PilBackend, TorchvisionBackend
from transformers.image_processing_utils import get_size_dict
from transformers.image_transforms import get_resize_output_image_size, get_size_with_aspect_ratio
from transformers.image_utils import ChannelDimension, get_image_size_for_max_height_width
from transformers.models.siglip2.image_processing_pil_siglip2 import get_image_size_for_max_num_patches

from gmar_hf.errors import ImageError
from gmar_hf.images.flat_patches import makes_flat_patches
from gmar_hf.images.timm_transforms import is_timm_processor, timm_resized_size

Size = tuple[int, int]
BACKENDS = (PilBackend, TorchvisionBackend)
MAX_ENLARGED_PIXELS = 2**26
"""Pixels that an image may be enlarged to: 64 mebi, which take 0.8 GB as float32 in three channels."""


def resized_size(height: int, width: int, image_processor: Any) -> Size:
    """Return (height, width) after the backends' `resize`, whose order of precedence this is, or after timm's."""
    if is_timm_processor(image_processor):
        return timm_resized_size(height, width, image_processor)
    if not image_processor.do_resize:
        return height, width
    if makes_flat_patches(image_processor):
        most = image_processor.max_num_patches
        return get_image_size_for_max_num_patches(height, width, image_processor.patch_size, most)
    # Shortest and longest edge together, the shortest alone, a maximum, then plain height and width.
    size = get_size_dict(image_processor.size, default_to_square=image_processor.default_to_square)
    shortest, longest = size.get("shortest_edge"), size.get("longest_edge")
    if shortest and longest:
        return get_size_with_aspect_ratio((height, width), shortest, longest)
    if shortest:
        image = np.broadcast_to(np.uint8(0), (1, height, width))  # only its shape is read
        return get_resize_output_image_size(
            image, shortest, default_to_square=False, input_data_format=ChannelDimension.FIRST
        )
    if size.get("max_height") and size.get("max_width"):
        return get_image_size_for_max_height_width((height, width), size["max_height"], size["max_width"])
    return size["height"], size["width"]


def check_enlargement(image_size: Size, image_processor: Any) -> None:
    """Refuse an image that its processor would enlarge beyond [`MAX_ENLARGED_PIXELS`], before memory is asked for.

    A strip of 1 x 100,000 pixels whose shorter side becomes 224 would be 22.4 million pixels long.

    Args:
        image_size (`tuple[int, int]`): Width and height of the image in pixels.
        image_processor: The one that will get it; one of a kind that is not known may do what it likes.

    Raises:
        ImageError: If it is too large.
    """
    has_size = isinstance(image_processor, BACKENDS) and (image_processor.size or makes_flat_patches(image_processor))
    if not has_size and not is_timm_processor(image_processor):
        return
    width, height = image_size
    new_height, new_width = resized_size(height, width, image_processor)
    if new_height * new_width > max(MAX_ENLARGED_PIXELS, width * height):
        raise ImageError(
            f"`image` must not be enlarged by the image processor to more than {MAX_ENLARGED_PIXELS:,} pixels; got "
            f"{width} x {height}, which would be {new_width} x {new_height}. Crop it to a less elongated part."
        )
