"""Where timm's own transforms put an image, against what its pixels say of where they come from."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from gmar_hf import ArgumentTypeError, ImageError
from gmar_hf.images.placement import image_box
from gmar_hf.images.resizing import check_enlargement

pytest.importorskip("timm", reason="timm is not installed (it needs torchvision)")
pytest.importorskip("torchvision", reason="torchvision is not installed")


def processor_of(**settings):
    from transformers import TimmWrapperImageProcessor

    config = {"input_size": (3, 64, 64), "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), **settings}
    return TimmWrapperImageProcessor(pretrained_cfg=config, architecture="vit_tiny_patch16_224")


@pytest.mark.parametrize("size", [(200, 120), (90, 160), (150, 150), (61, 203)])
@pytest.mark.parametrize(
    "settings",
    [
        {"crop_pct": 0.875},
        {"crop_pct": 1.0, "interpolation": "bicubic"},
        {"crop_pct": 0.9, "crop_mode": "squash"},
        {"crop_pct": 0.95, "crop_mode": "border"},
        {"crop_pct": 0.9, "input_size": (3, 48, 80)},
        {"crop_pct": 1.0, "crop_mode": "border", "input_size": (3, 96, 48)},
    ],
    ids=str,
)
def test_the_box_is_where_the_pixels_come_from(size, settings):
    # Red tells the column and green the row, in 256ths of the image.
    width, height = size
    columns, rows = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)
    picture = Image.fromarray((256 * np.stack([columns, rows, np.zeros_like(rows)], axis=-1)).astype(np.uint8))
    processor = processor_of(**settings)
    pixels = processor(picture, return_tensors="pt")["pixel_values"][0] * 0.5 + 0.5
    pixel_size = tuple(pixels.shape[-2:])
    left, top, right, bottom = image_box(size, processor, pixel_size, pixel_size)
    # Pixels near the image's edge are mixed with what lies beyond; all others say where they are.
    x = left + (np.arange(pixel_size[1]) + 0.5) / pixel_size[1] * (right - left)
    y = top + (np.arange(pixel_size[0]) + 0.5) / pixel_size[0] * (bottom - top)
    inside_x, inside_y = ((place > 0.06 * side) & (place < 0.94 * side) for place, side in ((x, width), (y, height)))
    assert inside_x.sum() > 10
    assert inside_y.sum() > 10
    found_x = pixels[0, pixel_size[0] // 2].numpy() * 255 / 256 * width
    found_y = pixels[1, :, pixel_size[1] // 2].numpy() * 255 / 256 * height
    # A pixel's value is rounded down once by us and rounded once by the resize: by less than 1.5 of 256 together.
    assert np.abs(found_x - x)[inside_x].max() < 1.5 / 256 * width + 0.1
    assert np.abs(found_y - y)[inside_y].max() < 1.5 / 256 * height + 0.1


def test_what_else_a_processor_does_is_refused():
    processor = processor_of()
    processor.val_transforms.transforms.insert(0, processor.val_transforms.transforms[1])
    with pytest.raises(ArgumentTypeError, match="TimmWrapperImageProcessor, which has timm's CenterCrop, Resize, "):
        image_box((100, 100), processor, (64, 64), (64, 64))


def test_a_strip_is_not_enlarged_beyond_memory():
    with pytest.raises(ImageError, match="must not be enlarged"):
        check_enlargement((1, 2_000_000), processor_of())
