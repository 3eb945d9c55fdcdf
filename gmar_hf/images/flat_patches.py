"""Image processors that cut images into flattened patches (SigLIP 2's, for NaFlex), and images made of these again."""

from typing import Any

import torch
from transformers.image_processing_backends import PilBackend, TorchvisionBackend

from gmar_hf.errors import ArgumentError, ImageArgumentError

MODULE = "transformers.models.siglip2."
"""Where the classes of such processors are."""


def makes_flat_patches(image_processor: Any) -> bool:
    """Tell whether an image processor resizes each image in its proportions, and cuts it into flattened patches."""
    is_known = isinstance(image_processor, PilBackend | TorchvisionBackend)
    return is_known and type(image_processor).__module__.startswith(MODULE)


def pixel_values_of(images: Any, image_processor: Any) -> torch.Tensor:
    """Return what an image processor makes of images, as images also where it makes patches.

    Args:
        images: What the processor takes.
        image_processor: The model's.

    Returns:
        `torch.Tensor` of shape (batch, channels, height, width).

    Raises:
        ImageArgumentError: If it makes patches, of images of several shapes.
    """
    inputs = image_processor(images=images, return_tensors="pt")
    pixel_values: torch.Tensor = inputs["pixel_values"]
    if makes_flat_patches(image_processor):
        return images_from_patches(pixel_values, inputs["spatial_shapes"], image_processor.patch_size)
    return pixel_values


def images_from_patches(pixel_values: torch.Tensor, spatial_shapes: torch.Tensor, patch_size: int) -> torch.Tensor:
    """Put the flattened patches of an image processor together to images again.

    Args:
        pixel_values (`torch.Tensor` of shape (batch, patches, numbers)): The patches of each image, row by row, then
            padding; in each patch its pixels, row by row, and of each pixel its channels.
        spatial_shapes (`torch.Tensor` of shape (batch, 2)): Rows and columns of each image's patches.
        patch_size (`int`): Height and width of a patch, in pixels.

    Returns:
        `torch.Tensor` of shape (batch, channels, rows * patch_size, columns * patch_size).

    Raises:
        ArgumentError: If the sizes do not fit together, or the images are not all of one shape.

    Example:
        >>> from transformers import Siglip2ImageProcessor
        >>> inputs = Siglip2ImageProcessor(max_num_patches=16)(torch.rand(3, 48, 96), return_tensors="pt")
        >>> images_from_patches(inputs["pixel_values"], inputs["spatial_shapes"], patch_size=16).shape
        torch.Size([1, 3, 48, 80])
    """
    shapes = {tuple(shape) for shape in spatial_shapes.tolist()}
    if len(shapes) != 1:
        raise ImageArgumentError(
            f"`spatial_shapes` must be the same for all images of a batch; got {sorted(shapes)!r:.80}. Take images of "
            "one shape together, or one by one."
        )
    ((rows, cols),) = shapes
    area = patch_size * patch_size
    if pixel_values.ndim != 3 or pixel_values.shape[1] < rows * cols or pixel_values.shape[2] % area:
        raise ArgumentError(
            f"`pixel_values` must hold {rows} x {cols} patches of {patch_size} x {patch_size} pixels for each image; "
            f"got shape {tuple(pixel_values.shape)}. Pass what the model's image processor made."
        )
    patches = pixel_values[:, : rows * cols].unflatten(2, (patch_size, patch_size, -1)).unflatten(1, (rows, cols))
    return patches.permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)
