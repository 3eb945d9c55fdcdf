"""Where the patch grid lies on the user's image: through the image processor's resize, crop and padding, and back."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers.image_processing_backends import TorchvisionBackend
from transformers.image_processing_utils import get_size_dict

from gmar_hf.errors import ArgumentError, ArgumentTypeError
from gmar_hf.images import flat_patches
from gmar_hf.images.resizing import BACKENDS, Size, resized_size
from gmar_hf.images.timm_transforms import is_timm_processor, timm_crop, why_not_placeable
from gmar_hf.utils.checks import check_flags, is_number
from gmar_hf.utils.tensors import float64_array

Box = tuple[float, float, float, float]

# Whoever overrides one of these may place pixels elsewhere than the backends do.
_GEOMETRY = (
    "__call__",
    "preprocess",
    "process_image",
    "resize",
    "center_crop",
    "pad",
    "_preprocess",
    "_preprocess_image_like_inputs",
    "_prepare_image_like_inputs",
    "_prepare_images_structure",
    "_standardize_kwargs",
)
# BEiT and SegFormer override for segmentation maps, DINOv3 for the order of rescaling; they resize and crop alike, and
# never pad; a crop that SegFormer is told to make, and does not, is refused as another size than its settings say.
# SigLIP 2 resizes the whole image to whole patches, whatever it does with these.
_ALIKE = (
    "transformers.models.beit.",
    "transformers.models.dinov3_vit.",
    "transformers.models.segformer.",
    flat_patches.MODULE,
)
_WAY_OUT = "Preprocess the image yourself and pass pixel_values to gmar_hf.explain, which does not place the map."


def image_box(image_size: Size, image_processor: Any, pixel_size: Size, grid_size: Size) -> Box:
    """Find the rectangle of the input image that the patch grid covers.

    Follows the `_preprocess` of transformers' image processing backends: resize, centre crop, padding at the right
    and bottom; or timm's resize and centre crop. The grid starts at the top left of `pixel_values`.

    Args:
        image_size: (width, height) of the input image, as PIL gives it, in pixels.
        image_processor: the one that made `pixel_values`, with the settings it made them with.
        pixel_size: (height, width) of `pixel_values`.
        grid_size: (rows * patch height, columns * patch width), in pixels of `pixel_values`; smaller than
            `pixel_size` where that is no multiple of the patch.

    Returns:
        (left, top, right, bottom) in pixels of the input image, from its top left corner. Less than the image after a
        crop; beyond it (also below 0) after padding.

    Raises:
        ArgumentTypeError: the processor does not preprocess as transformers' backends do.
        ArgumentError: the sizes do not fit together.
    """
    check_placeable(image_processor)
    width, height = image_size
    # Sizes are (height, width): after the resize, then after crop and padding.
    resized = size = resized_size(height, width, image_processor)
    top = left = 0
    if is_timm_processor(image_processor):
        size, (top, left) = timm_crop(resized, image_processor)
    elif image_processor.do_center_crop:
        crop = get_size_dict(image_processor.crop_size, param_name="crop_size")
        size = (crop["height"], crop["width"])
        top, left = (_crop_start(*sizes, image_processor) for sizes in zip(resized, size, strict=True))
    if getattr(image_processor, "do_pad", False) and type(image_processor)._preprocess in {
        c._preprocess for c in BACKENDS
    }:
        # Without a `pad_size` every image is padded to the largest of its batch.
        pad = get_size_dict(image_processor.pad_size or dict(zip(("height", "width"), pixel_size, strict=True)))
        size = (max(size[0], pad["height"]), max(size[1], pad["width"]))
    if size != tuple(pixel_size):
        raise ArgumentError(
            f"`pixel_values` must be of the size that the image processor's settings say (the map is placed by them); "
            f"got {pixel_size[0]} x {pixel_size[1]} (height x width), where {type(image_processor).__name__} makes "
            f"{size[0]} x {size[1]} of an image of {height} x {width}. {_WAY_OUT}"
        )
    if grid_size[0] > size[0] or grid_size[1] > size[1]:
        raise ArgumentError(
            f"`grid_size` must not exceed `pixel_size` (patches lie inside the pixels); got {tuple(grid_size)} with "
            f"{size}. Multiply whole rows and columns by the patch size."
        )
    # Back from pixel values to the image: undo the crop, then the resize.
    y_scale, x_scale = height / resized[0], width / resized[1]
    return (left * x_scale, top * y_scale, (left + grid_size[1]) * x_scale, (top + grid_size[0]) * y_scale)


def heatmap(attribution: torch.Tensor | np.ndarray, box: Box, image_size: Size) -> Image.Image:
    """Draw an attribution map as a grey image of the size of the input image.

    Args:
        attribution: (rows, cols), any scale; only the positive part is shown, divided by its maximum.
        box: (left, top, right, bottom), what the map covers, in pixels of the image, see [`image_box`].
        image_size: (width, height) of the input image in pixels.

    Returns:
        Image of mode "L" and size `image_size`: bilinear between the patches' centres, constant in the outer half of
        the outer patches, 0 outside `box`, black all over where no value is positive.

    Raises:
        ArgumentError: `attribution` is no finite map, or `box` no rectangle.
    """
    # Bilinear on a grid is a product of two matrices, one an axis.
    check_box(box)
    values = finite_map(attribution).clip(min=0)
    values = (values / (values.max() or 1) * 255).astype(np.float32)
    rows = _interpolation(image_size[1], box[1], box[3], values.shape[0])
    columns = _interpolation(image_size[0], box[0], box[2], values.shape[1])
    pixels = np.empty(image_size[::-1], np.uint8)
    for top, bottom in strips(image_size[1]):
        pixels[top:bottom] = np.rint(rows[top:bottom] @ values @ columns.T)
    return Image.fromarray(pixels)


def strips(height: int, step: int = 256) -> Iterator[tuple[int, int]]:
    """Cut a picture's rows into strips, so that what is worked out on the way to large pictures stays small.

    Example:
        >>> list(strips(600))
        [(0, 256), (256, 512), (512, 600)]
    """
    for top in range(0, height, step):
        yield top, min(top + step, height)


def placed_map(
    attribution: torch.Tensor | np.ndarray,
    box: Box,
    image_size: Size,
    *,
    smooth: bool = True,
    between: tuple[int, int] | None = None,
) -> np.ndarray:
    """Bring an attribution map, signs and all, to the pixels of the input image.

    Args:
        attribution: (rows, cols), any scale.
        box: (left, top, right, bottom), what the map covers, in pixels of the image, see [`image_box`].
        image_size: (width, height) of the input image in pixels.
        smooth: bilinear between the patches' centres; else every pixel has its patch's value.
        between: the first row of pixels that is wanted, and the first that is not; all by default.

    Returns:
        float32 (rows that are wanted, width); outside `box` each pixel has the value of the nearest one inside.

    Raises:
        ArgumentError: `attribution` is no finite map.

    Example:
        >>> placed_map(np.array([[1.0, -2.0]]), (0, 0, 4, 1), (4, 1), smooth=False).tolist()
        [[1.0, 1.0, -2.0, -2.0]]
    """
    check_flags(smooth=smooth)
    check_box(box)
    values = finite_map(attribution)
    if np.abs(values).max() > np.finfo(np.float32).max:
        raise ArgumentError(f"`attribution` must hold numbers of float32; got up to {np.abs(values).max():.3g}.")
    values = values.astype(np.float32)
    rows = _interpolation(image_size[1], box[1], box[3], values.shape[0], smooth=smooth, extended=True)
    columns = _interpolation(image_size[0], box[0], box[2], values.shape[1], smooth=smooth, extended=True)
    placed: np.ndarray = (rows if between is None else rows[slice(*between)]) @ values @ columns.T
    return placed


def scale_box(box: Box, image_size: Size, copy_size: Size) -> Box:
    """Return a box on an image's larger or smaller copy.

    Args:
        box: (left, top, right, bottom) in pixels of the image.
        image_size: (width, height) of the image in pixels.
        copy_size: (width, height) of the copy.

    Example:
        >>> scale_box((10, 0, 90, 50), (100, 50), (50, 50))
        (5.0, 0.0, 45.0, 50.0)
    """
    x_scale, y_scale = copy_size[0] / image_size[0], copy_size[1] / image_size[1]
    left, top, right, bottom = box
    return left * x_scale, top * y_scale, right * x_scale, bottom * y_scale


def check_box(box: Box) -> None:
    """Refuse what is no rectangle.

    Raises:
        ArgumentError: it has not four finite numbers, or no height or width.
    """
    is_four = isinstance(box, Sequence) and len(box) == 4 and all(is_number(number) for number in box)
    if not is_four or not (-math.inf < box[0] < box[2] < math.inf and -math.inf < box[1] < box[3] < math.inf):
        raise ArgumentError(
            f"`box` must be left, top, right and bottom of a rectangle, in pixels; got {box!r:.80}. Pass "
            '`result["box"]`.'
        )


def finite_map(attribution: torch.Tensor | np.ndarray) -> np.ndarray:
    """Return a map of one image as float64 (rows, cols).

    Raises:
        ArgumentError: it is no finite map.
        ArgumentTypeError: it holds no numbers.
    """
    values = float64_array("attribution", attribution, "a map of shape (rows, cols)")
    if values.ndim != 2 or not values.size or not np.isfinite(values).all():
        raise ArgumentError(
            f"`attribution` must be a finite map of shape (rows, cols); got shape {values.shape} with "
            f"{np.count_nonzero(~np.isfinite(values))} values that are not finite. Pass the map of one image."
        )
    return values


def place_mask(mask: np.ndarray, image_processor: Any, pixel_size: Size) -> torch.Tensor:
    """Bring a mask of the input image into the frame of `pixel_values`.

    Args:
        mask: bool (height, width), of the input image's size.
        image_processor: the one that made `pixel_values`, with the settings it made them with.
        pixel_size: (height, width) of `pixel_values`.

    Returns:
        Bool tensor of shape `pixel_size`, on the CPU: the mask where the centre of each pixel lies on the image,
        false outside of the image, where pixels are padded.

    Raises:
        ArgumentTypeError: the processor does not preprocess as transformers' backends do.
        ArgumentError: the sizes do not fit together.
    """
    height, width = mask.shape
    left, top, right, bottom = image_box((width, height), image_processor, pixel_size, pixel_size)
    rows, is_row = _nearest(top, bottom, pixel_size[0], height)
    columns, is_column = _nearest(left, right, pixel_size[1], width)
    if image_processor.do_center_crop:  # what lies beyond the crop was added by padding, also where the image goes on
        crop = get_size_dict(image_processor.crop_size, param_name="crop_size")
        is_row[crop["height"] :] = is_column[crop["width"] :] = False
    return torch.from_numpy(mask[np.ix_(rows, columns)] & is_row[:, None] & is_column)


def check_placeable(image_processor: Any) -> None:
    """Refuse a processor that preprocesses in a way of its own.

    Raises:
        ArgumentTypeError: it is not known where its pixels come from.
    """
    reason: str | None = "is not built on them"
    if is_timm_processor(image_processor):
        reason = why_not_placeable(image_processor)
        if reason is None:
            return
    if isinstance(image_processor, BACKENDS):
        # Only what a class below the backends overrides can place pixels elsewhere.
        classes = type(image_processor).__mro__
        below = classes[: min(classes.index(backend) for backend in BACKENDS if backend in classes)]
        strange = [cls for cls in below if not cls.__module__.startswith(_ALIKE)]
        overridden = [name for name in _GEOMETRY if any(name in vars(cls) for cls in strange)]
        if not overridden:
            return
        reason = f"has its own `{'`, `'.join(overridden)}`"
    raise ArgumentTypeError(
        "`image_processor` must resize, crop and pad as transformers' image processing backends do (only then is it "
        f"known where a patch lies on the image); got {type(image_processor).__name__}, which {reason}. {_WAY_OUT}"
    )


def _crop_start(length: int, crop: int, image_processor: Any) -> int:
    """Return where a centre crop starts, below 0 if it pads; the backends differ where an odd number is padded."""
    if isinstance(image_processor, TorchvisionBackend):
        return int((length - crop) / 2)  # towards 0
    return (length - crop) // 2


def _nearest(start: float, end: float, num_pixels: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Return where the centres of pixels that cover [start, end) lie among `length` others, and whether they do."""
    position = np.floor(start + (np.arange(num_pixels) + 0.5) * (end - start) / num_pixels).astype(np.int64)
    return position.clip(0, length - 1), (position >= 0) & (position < length)


def _interpolation(
    num_pixels: int, start: float, end: float, num_patches: int, *, smooth: bool = True, extended: bool = False
) -> np.ndarray:
    """Return weights (num_pixels, num_patches) of patches at pixel centres; outside of the box 0 unless extended."""
    position = (np.arange(num_pixels) + 0.5 - start) / (end - start) * num_patches - 0.5
    inside = (position >= -0.5) & (position < num_patches - 0.5)
    position = position if smooth else np.floor(position + 0.5)
    distance = np.abs(position.clip(0, num_patches - 1)[:, None] - np.arange(num_patches))
    return ((1 - distance).clip(min=0) * (inside | extended)[:, None]).astype(np.float32)
