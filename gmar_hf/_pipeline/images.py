"""What the pipeline does with images before the model sees them."""

from typing import Any

import torch
from PIL import Image

from gmar_hf.errors import ArgumentError, ImageError
from gmar_hf.images.arrays import is_array, picture_of_array, plain_array
from gmar_hf.images.flat_patches import pixel_values_of
from gmar_hf.images.reading import read_image
from gmar_hf.images.resizing import check_enlargement
from gmar_hf.utils.text import shown


def prepare_image(image: Any, image_processor: Any, timeout: float | None) -> tuple[Image.Image, torch.Tensor]:
    """Read an image, and make the pixel values that the model gets.

    Args:
        image: A path, URL, PIL image, array or tensor.
        image_processor: The model's.
        timeout (`float`, *optional*): Seconds that a URL may take.

    Returns:
        The upright picture, and pixel values (1, channels, height, width).

    Raises:
        ImageError: If it cannot be read, or is an array that the image processor does not take.
    """
    # An array goes to the processor as it is, as `ImageClassificationPipeline` hands it on.
    of_array = is_array(image)
    picture = picture_of_array(image, image_processor) if of_array else read_image(image, timeout=timeout)
    check_enlargement(picture.size, image_processor)
    images = plain_array(image) if of_array else picture
    try:
        return picture, pixel_values_of(images, image_processor)
    except Exception as error:
        if isinstance(images, Image.Image) or isinstance(error, MemoryError | StopIteration):
            raise
        raise ImageError(
            f"`image` must be an array that {type(image_processor).__name__} takes; got {images.dtype} of "
            f"shape {images.shape} ({shown(error, 100)}). Convert it to uint8 of shape (height, width, 3)."
        ) from error


def stack_images(images: list[torch.Tensor] | list[list[torch.Tensor]]) -> torch.Tensor:
    """Make a batch of what `preprocess` made: lists of one (1, channels, height, width), or a single such list.

    Args:
        images (`list`): Those lists, or that list.

    Raises:
        ArgumentError: If the images are not of one size.
    """
    flat = [image[0] if isinstance(image, list) else image for image in images]
    sizes = list(dict.fromkeys(f"{image.shape[-2]} x {image.shape[-1]}" for image in flat))
    if len(sizes) > 1:
        raise ArgumentError(
            f"Images of one batch must leave the image processor in one size; got {' and '.join(sizes)} pixels. "
            "Pass `batch_size=1`, or give the processor a fixed size."
        )
    return torch.cat(flat)
