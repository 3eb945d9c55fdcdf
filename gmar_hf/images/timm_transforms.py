"""Where timm's image transforms put an image: a resize, and a centre crop that may pad. timm need not be installed."""

from collections.abc import Callable
from typing import Any

Size = tuple[int, int]


def is_timm_processor(image_processor: Any) -> bool:
    """Tell whether an image processor is the one by which transformers wraps timm's transforms."""
    return type(image_processor).__module__ == "transformers.models.timm_wrapper.image_processing_timm_wrapper"


def why_not_placeable(image_processor: Any) -> str | None:
    """Return what a timm processor does beyond a resize and a centre crop after it, in words; None if nothing."""
    names = [type(each).__name__ for each in image_processor.val_transforms.transforms]
    known = (_RESIZES, _CROPS, *[_IN_PLACE] * (len(names) - 2))
    if len(names) >= 2 and all(name in kind for name, kind in zip(names, known, strict=True)):
        return None
    return f"has timm's {', '.join(names)}"


def timm_resized_size(height: int, width: int, image_processor: Any) -> Size:
    """Return (height, width) after the resize of a timm processor, for an image of that size."""
    resize = image_processor.val_transforms.transforms[0]
    return _RESIZES[type(resize).__name__](resize, height, width)


def timm_crop(resized: Size, image_processor: Any) -> tuple[Size, Size]:
    """Return (height, width) of the centre crop of a timm processor, and its (top, left), below 0 where it pads.

    Args:
        resized (`tuple[int, int]`): (height, width) after the resize.
        image_processor: A timm processor.
    """
    height, width = image_processor.val_transforms.transforms[1].size
    return (height, width), (_start(resized[0], height), _start(resized[1], width))


def _start(length: int, crop: int) -> int:
    return -((crop - length) // 2) if crop > length else round((length - crop) / 2)


def _resize(resize: Any, height: int, width: int) -> Size:
    """Follow torchvision's `Resize`: of one number, that of the shorter side; of two, height and width."""
    size = resize.size
    if not isinstance(size, int) and len(size) == 2:
        return size[0], size[1]
    shorter = size if isinstance(size, int) else size[0]
    longer = int(shorter * max(height, width) / min(height, width))
    return (longer, shorter) if width <= height else (shorter, longer)


def _resize_keeping_ratio(resize: Any, height: int, width: int) -> Size:
    """Follow timm's `ResizeKeepRatio`, by the smaller ratio of two sides, the larger, or what lies between them."""
    ratios = height / resize.size[0], width / resize.size[1]
    ratio = max(ratios) * resize.longest + min(ratios) * (1 - resize.longest)
    return round(height / ratio), round(width / ratio)


_RESIZES: dict[str, Callable[[Any, int, int], Size]] = {"Resize": _resize, "ResizeKeepRatio": _resize_keeping_ratio}
_CROPS = ("CenterCrop", "CenterCropOrPad")
_IN_PLACE = ("ToTensor", "MaybeToTensor", "Normalize")
