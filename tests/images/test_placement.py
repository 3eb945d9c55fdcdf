"""The place of the patch grid is measured at the processors themselves: ramps tell which pixel went where."""

import math

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from transformers.image_processing_backends import PilBackend
from transformers.utils import is_torchvision_available

from gmar_hf.errors import ArgumentError, ArgumentTypeError
from gmar_hf.images.placement import heatmap, image_box, place_mask

PATCH = 8
BACKENDS = ["Pil", ""] if is_torchvision_available() else ["Pil"]  # "" is the torchvision class
SIZES = [(97, 61), (61, 97), (64, 64), (45, 131)]  # (width, height)

# Name: (family, settings). What is not set is the family's default, as in its published processors.
SETTINGS = {
    "vit": ("ViT", dict(size=dict(height=48, width=48))),
    "vit, no multiple of the patch": ("ViT", dict(size=dict(height=53, width=46))),
    "vit, wide": ("ViT", dict(size=dict(height=40, width=72))),
    "deit": ("DeiT", dict(size=dict(height=64, width=64), crop_size=dict(height=48, width=48))),
    "beit": ("Beit", dict(size=dict(height=48, width=48))),
    "beit, crop": ("Beit", dict(size=60, crop_size=47, do_center_crop=True)),
    "segformer": ("Segformer", dict(size=dict(height=48, width=48))),
    "pvt": ("Pvt", dict(size=dict(height=48, width=48))),
    "beit, padding asked for in vain": ("Beit", dict(size=48, do_pad=True, pad_size=dict(height=64, width=64))),
    "dinov2": ("Bit", dict(size=dict(shortest_edge=55), crop_size=dict(height=48, width=48))),
    "clip": ("CLIP", dict(size=dict(shortest_edge=48), crop_size=dict(height=48, width=48))),
    "clip, wide crop": ("CLIP", dict(size=dict(shortest_edge=50), crop_size=dict(height=40, width=48))),
    "siglip": ("Siglip", dict(size=dict(height=56, width=56))),
    "shortest edge": ("ViT", dict(size=dict(shortest_edge=48))),
    "shortest and longest edge": ("ViT", dict(size=dict(shortest_edge=48, longest_edge=70))),
    "maximum height and width": ("ViT", dict(size=dict(max_height=48, max_width=64))),
    "crop larger than the image": ("Bit", dict(size=dict(shortest_edge=40), crop_size=dict(height=79, width=64))),
    "crop as it is": ("Bit", dict(do_resize=False, crop_size=dict(height=64, width=64))),
    "larger crop as it is": ("Bit", dict(do_resize=False, crop_size=dict(height=140, width=100))),
    "as it is": ("ViT", dict(do_resize=False)),
    "padding": ("ViT", dict(do_resize=False, do_pad=True, pad_size=dict(height=136, width=104))),
    "resize and padding": ("ViT", dict(size=dict(max_height=48, max_width=48), do_pad=True, pad_size=48)),
    "padding to the batch": ("ViT", dict(do_resize=False, do_pad=True)),
}
CROPPED_AND_PADDED = {  # the image goes on beyond the crop, but what the model sees there is padding
    "crop and padding": ("ViT", dict(size=64, do_center_crop=True, crop_size=40, do_pad=True, pad_size=56)),
    "larger crop and padding": ("ViT", dict(size=32, do_center_crop=True, crop_size=40, do_pad=True, pad_size=56)),
}
ALL_SETTINGS = SETTINGS | CROPPED_AND_PADDED
EVERY_SETTING = pytest.mark.parametrize(("family", "settings"), SETTINGS.values(), ids=SETTINGS.keys())
EVERY_SIZE = pytest.mark.parametrize("image_size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
EVERY_BACKEND = pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: backend or "torchvision")


def make_processor(family, backend="Pil", **settings):
    processor = getattr(transformers, f"{family}ImageProcessor{backend}")
    if "torchvision" in getattr(processor, "_backends", ()) and not is_torchvision_available():
        pytest.skip(f"This release of transformers has no {family} processor without torchvision.")
    return processor(**settings)


def process(processor, image):
    """(height, width): the first channel of the pixel values."""
    return np.asarray(processor(image, return_tensors="pt").pixel_values[0, 0].double())


def paint(values):
    return Image.fromarray(np.repeat(np.asarray(values).round().astype(np.uint8)[:, :, None], 3, axis=2))


def grid_of(pixel_size):
    return tuple(length // PATCH * PATCH for length in pixel_size)


def measured_axis(processor, image_size, axis):
    """Scale and start of the affine map from output to input pixel coordinates along one axis, as the processor has
    it: a ramp between a black and a white image tells which input coordinate each output pixel came from."""
    shape = image_size[::-1]
    length = shape[axis]
    ramp = np.linspace(0, 255, length)
    ramp = np.broadcast_to(ramp[:, None] if axis == 0 else ramp, shape)
    black, white = process(processor, paint(np.zeros(shape))), process(processor, paint(np.full(shape, 255)))
    range_ = (white - black).mean(axis=1 - axis)
    kept = np.flatnonzero(range_ > 0.5 * range_.max())  # padding is the same in all three
    rise = (process(processor, paint(ramp)) - black).mean(axis=1 - axis)[kept] / range_[kept]
    inner = slice(3, -3)  # filters reach over the image's edges
    scale, start = np.polyfit(kept[inner] + 0.5, rise[inner] * (length - 1) + 0.5, 1)
    return scale, start


@EVERY_BACKEND
@EVERY_SIZE
@EVERY_SETTING
def test_box_is_where_the_processor_puts_the_pixels(family, settings, image_size, backend):
    processor = make_processor(family, backend, **settings)
    pixel_size = process(processor, Image.new("RGB", image_size)).shape
    grid = grid_of(pixel_size)
    y_scale, top = measured_axis(processor, image_size, axis=0)
    x_scale, left = measured_axis(processor, image_size, axis=1)
    expected = (left, top, left + grid[1] * x_scale, top + grid[0] * y_scale)
    # An offset that is wrong by one pixel of the output moves the box by a scale; the measurement is finer than that.
    tolerance = 0.25 * min(x_scale, y_scale)
    assert image_box(image_size, processor, pixel_size, grid) == pytest.approx(expected, abs=tolerance)


@EVERY_BACKEND
@EVERY_SIZE
@EVERY_SETTING
@pytest.mark.parametrize("place", [(0.35, 0.4), (0.6, 0.55)])
def test_heatmap_lies_on_a_marked_square(family, settings, image_size, backend, place):
    processor = make_processor(family, backend, **settings)
    pixel_size = process(processor, Image.new("RGB", image_size)).shape
    grid = grid_of(pixel_size)
    box = left, top, right, bottom = image_box(image_size, processor, pixel_size, grid)
    patch = ((right - left) * PATCH / grid[1], (bottom - top) * PATCH / grid[0])  # (width, height) on the image
    # Three patches wide, in the part of the image that the grid sees.
    seen = (max(left, 0), max(top, 0), min(right, image_size[0]), min(bottom, image_size[1]))
    start = [round(seen[a] + place[a] * (seen[a + 2] - seen[a]) - 1.5 * patch[a]) for a in (0, 1)]
    start = [max(start[a], math.ceil(seen[a])) for a in (0, 1)]
    end = [min(round(start[a] + 3 * patch[a]), math.floor(seen[a + 2])) for a in (0, 1)]
    marked = np.zeros(image_size[::-1], dtype=bool)
    marked[start[1] : end[1], start[0] : end[0]] = True

    pixels = process(processor, paint(marked * 255)) - process(processor, paint(marked * 0))
    rows, cols = grid[0] // PATCH, grid[1] // PATCH
    means = pixels[: grid[0], : grid[1]].reshape(rows, PATCH, cols, PATCH).mean(axis=(1, 3))
    drawn = heatmap(means, box, image_size)

    assert drawn.mode == "L"
    assert drawn.size == image_size
    weights = np.asarray(drawn, dtype=float)
    ys, xs = np.mgrid[: image_size[1], : image_size[0]] + 0.5
    for axis, coordinate in enumerate((xs, ys)):
        centre = (weights * coordinate).sum() / weights.sum()
        assert abs(centre - coordinate[marked].mean()) < patch[axis] / 2
    bright = weights > 127
    assert (bright & marked).sum() / (bright | marked).sum() > 0.6


@pytest.mark.parametrize(
    ("family", "settings", "image_size", "pixel_size", "grid_size", "box"),
    [
        ("ViT", dict(), (448, 112), (224, 224), (224, 224), (0, 0, 448, 112)),
        ("ViT", dict(size=50), (100, 200), (50, 50), (48, 48), (0, 0, 96, 192)),
        ("Bit", dict(size=dict(shortest_edge=256)), (512, 256), (224, 224), (224, 224), (144, 16, 368, 240)),
        ("Bit", dict(size=dict(shortest_edge=256)), (512, 1024), (224, 224), (224, 210), (32, 288, 452, 736)),
        ("CLIP", dict(), (448, 224), (224, 224), (224, 224), (112, 0, 336, 224)),
        ("DeiT", dict(), (512, 256), (224, 224), (224, 224), (32, 16, 480, 240)),
        ("Beit", dict(), (300, 200), (224, 224), (224, 224), (0, 0, 300, 200)),
        ("Siglip", dict(), (600, 300), (224, 224), (224, 224), (0, 0, 600, 300)),
        ("ViT", dict(size=dict(shortest_edge=32, longest_edge=64)), (400, 100), (16, 64), (16, 64), (0, 0, 400, 100)),
        ("ViT", dict(do_resize=False, do_pad=True, pad_size=32), (30, 20), (32, 32), (32, 32), (0, 0, 32, 32)),
        ("ViT", dict(do_resize=False, do_pad=True), (30, 20), (40, 50), (40, 48), (0, 0, 48, 40)),
        ("Bit", dict(do_resize=False, crop_size=8), (5, 4), (8, 8), (8, 8), (-2, -2, 6, 6)),
        ("Bit", dict(do_resize=False, crop_size=8), (11, 4), (8, 8), (8, 8), (1, -2, 9, 6)),
    ],
)
def test_box_by_hand(family, settings, image_size, pixel_size, grid_size, box):
    assert image_box(image_size, make_processor(family, **settings), pixel_size, grid_size) == pytest.approx(box)


@pytest.mark.skipif(not is_torchvision_available(), reason="only torchvision's backend rounds this way")
def test_box_by_hand_of_the_torchvision_backend():
    processor = make_processor("Bit", "", do_resize=False, crop_size=8)
    assert image_box((5, 4), processor, (8, 8), (8, 8)) == (-1, -2, 7, 6)


def test_settings_may_be_plain_dicts_or_numbers():
    processor = make_processor("Bit")
    processor.size, processor.crop_size = {"shortest_edge": 64}, 48
    assert process(processor, Image.new("RGB", (128, 64))).shape == (48, 48)
    assert image_box((128, 64), processor, (48, 48), (48, 48)) == (40, 8, 88, 56)
    processor.size = [32, 64]  # (height, width)
    processor.do_center_crop = False
    assert image_box((128, 64), processor, (32, 64), (32, 64)) == (0, 0, 128, 64)
    processor = make_processor("CLIP", do_center_crop=False)
    processor.size = 32  # the shortest edge for CLIP, a square for the others
    assert process(processor, Image.new("RGB", (128, 64))).shape == (32, 64)
    assert image_box((128, 64), processor, (32, 64), (32, 64)) == (0, 0, 128, 64)


def test_sizes_that_do_not_fit_are_refused():
    padding = make_processor("ViT", do_resize=False, do_pad=True)  # to the batch, which makes no image smaller
    with pytest.raises(ArgumentError, match=r"got 40 x 24 .* makes 40 x 32 of an image of 30 x 32"):
        image_box((32, 30), padding, (40, 24), (40, 24))
    with pytest.raises(ArgumentError, match=r"^`grid_size` must not exceed `pixel_size` .*; got \(224, 240\) with "):
        image_box((100, 80), make_processor("ViT"), (224, 224), (224, 240))
    with pytest.raises(ArgumentError) as caught:
        image_box((100, 80), make_processor("ViT"), (384, 384), (384, 384))
    assert str(caught.value) == (
        "`pixel_values` must be of the size that the image processor's settings say (the map is placed by them); got "
        "384 x 384 (height x width), where ViTImageProcessorPil makes 224 x 224 of an image of 80 x 100. Preprocess "
        "the image yourself and pass pixel_values to gmar_hf.explain, which does not place the map."
    )


class ShiftingProcessor(PilBackend):
    do_resize = True

    def resize(self, image, *args, **kwargs):
        return np.roll(super().resize(image, *args, **kwargs), 5, axis=-1)


class OldProcessor:
    do_resize = False


@pytest.mark.parametrize(
    ("processor", "got"),
    [
        (lambda: make_processor("ConvNext"), "ConvNextImageProcessorPil, which has its own `resize`, `_preprocess`"),
        (ShiftingProcessor, "ShiftingProcessor, which has its own `resize`"),
        (OldProcessor, "OldProcessor, which is not built on them"),
        (lambda: None, "NoneType, which is not built on them"),
    ],
)
def test_other_preprocessing_is_refused(processor, got):
    with pytest.raises(ArgumentTypeError) as caught:
        image_box((100, 80), processor(), (224, 224), (224, 224))
    assert str(caught.value) == (
        "`image_processor` must resize, crop and pad as transformers' image processing backends do (only then is it "
        f"known where a patch lies on the image); got {got}. Preprocess the image yourself and pass pixel_values to "
        "gmar_hf.explain, which does not place the map."
    )


def test_subclass_with_the_same_geometry_is_accepted():
    class MyProcessor(transformers.ViTImageProcessorPil):
        do_normalize = False

    assert image_box((64, 96), MyProcessor(size=32), (32, 32), (32, 32)) == (0, 0, 64, 96)


def naive_heatmap(attribution, box, image_size):
    """Pixel by pixel: the mean of the four nearest patch centres, weighted by nearness."""
    positive = np.maximum(attribution, 0) / attribution.max()
    rows, cols = positive.shape
    left, top, right, bottom = box
    picture = np.zeros(image_size[::-1])
    for y in range(image_size[1]):
        for x in range(image_size[0]):
            if not (left <= x + 0.5 < right and top <= y + 0.5 < bottom):
                continue
            row = min(max((y + 0.5 - top) / (bottom - top) * rows - 0.5, 0), rows - 1)
            col = min(max((x + 0.5 - left) / (right - left) * cols - 0.5, 0), cols - 1)
            r, c = min(int(row), max(rows - 2, 0)), min(int(col), max(cols - 2, 0))
            r1, c1 = min(r + 1, rows - 1), min(c + 1, cols - 1)
            upper = positive[r, c] * (1 - (col - c)) + positive[r, c1] * (col - c)
            lower = positive[r1, c] * (1 - (col - c)) + positive[r1, c1] * (col - c)
            picture[y, x] = upper * (1 - (row - r)) + lower * (row - r)
    return picture * 255


@pytest.mark.parametrize("shape", [(3, 4), (1, 1), (1, 5), (14, 2)])
@pytest.mark.parametrize("box", [(0, 0, 23, 31), (2.3, 4.1, 20.7, 19.9), (-7.5, 3.0, 12.2, 40.0)])
def test_heatmap_equals_the_loop(shape, box):
    attribution = torch.randn(shape, generator=torch.Generator().manual_seed(0)) + 1
    drawn = np.asarray(heatmap(attribution, box, (23, 31)))
    np.testing.assert_allclose(drawn, naive_heatmap(attribution.numpy(), box, (23, 31)), atol=0.51)


def test_heatmap_by_hand():
    drawn = heatmap(torch.tensor([[-5.0, 2.0, 1.0]]), (1, 0, 7, 1), (8, 2))
    # Patch centres at 2, 4 and 6: pixels between them by quarters, flat outside of the outer centres.
    expected = [0, 0, 0.25, 0.75, 0.875, 0.625, 0.5, 0]
    assert np.asarray(drawn).tolist() == [[round(255 * value) for value in expected], [0] * 8]


@pytest.mark.parametrize("fill", [0.0, -1.0])
def test_heatmap_without_positive_values_is_black(fill):
    drawn = heatmap(torch.full((2, 3), fill), (0, 0, 9, 6), (9, 6))
    assert (drawn.mode, drawn.size, drawn.getextrema()) == ("L", (9, 6), (0, 0))


@pytest.mark.parametrize("scale", [1e-300, 1e300])
def test_heatmap_knows_no_scale(scale):
    attribution = np.random.default_rng(0).normal(size=(4, 5))
    box, size = (0, 0, 20, 16), (20, 16)
    assert heatmap(attribution * scale, box, size).tobytes() == heatmap(attribution, box, size).tobytes()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_heatmap_takes_tensors_of_any_kind(dtype):
    attribution = torch.tensor([[0.0, 0.5], [0.25, 1.0]], dtype=dtype, requires_grad=True)
    assert heatmap(attribution, (0, 0, 2, 2), (2, 2)).tobytes() == bytes([0, 128, 64, 255])


@pytest.mark.parametrize(
    ("attribution", "got"),
    [
        (torch.ones(2, 3, 3), r"shape \(2, 3, 3\) with 0 values"),
        (torch.ones(0, 3), r"shape \(0, 3\) with 0 values"),
        (torch.tensor([[1.0, math.nan], [math.inf, 0.0]]), r"shape \(2, 2\) with 2 values"),
    ],
)
def test_heatmap_refuses_what_is_no_map(attribution, got):
    with pytest.raises(ArgumentError, match=rf"^`attribution` must be a finite map .*; got {got} that are not finite"):
        heatmap(attribution, (0, 0, 2, 2), (2, 2))


@EVERY_BACKEND
@EVERY_SIZE
@pytest.mark.parametrize(("family", "settings"), ALL_SETTINGS.values(), ids=ALL_SETTINGS.keys())
def test_mask_lies_on_the_pixels_that_show_the_object(family, settings, image_size, backend):
    """The processor itself says where: white pixels on black."""
    processor = make_processor(family, backend, **settings)
    width, height = image_size
    rows, columns = np.mgrid[:height, :width]
    # A disc that the crops cut, and two corners.
    mask = (rows / height - 0.4) ** 2 + (columns / width - 0.6) ** 2 < 0.16
    mask |= (rows < height // 4) & (columns < width // 4) | (rows > 0.7 * height) & (columns > 0.8 * width)
    black, white = process(processor, paint(mask * 0)), process(processor, paint(mask * 0 + 255))
    shown = ((process(processor, paint(mask * 255)) - black) / (white - black).max()).clip(0, 1)
    placed = place_mask(mask, processor, black.shape)

    assert placed.dtype == torch.bool
    assert placed.shape == black.shape
    # The nearest pixel and the mean around it differ at edges only, and on the whole not at all.
    assert placed.numpy()[shown > 0.95].mean() > 0.99
    assert placed.numpy()[shown < 0.05].mean() < 0.01
    assert placed.sum() == pytest.approx(shown.sum(), rel=0.03)
    whole = place_mask(np.ones_like(mask), processor, black.shape)
    assert (whole.numpy() == (white > black)).all()  # outside is padding


@pytest.mark.parametrize(("size", "pixel_size"), [((9, 7), (14, 27)), ((30, 41), (16, 16)), ((16, 16), (16, 16))])
def test_mask_equals_the_loop(size, pixel_size):
    mask = np.random.default_rng(0).random(size) < 0.5
    processor = make_processor("ViT", size=dict(zip(("height", "width"), pixel_size, strict=True)))
    expected = [
        [
            bool(mask[(2 * row + 1) * size[0] // (2 * pixel_size[0]), (2 * col + 1) * size[1] // (2 * pixel_size[1])])
            for col in range(pixel_size[1])
        ]
        for row in range(pixel_size[0])
    ]
    assert place_mask(mask, processor, pixel_size).tolist() == expected


def test_mask_by_hand():
    mask = np.array([[True, False, True], [False, True, False]])
    larger = make_processor("Bit", do_resize=False, crop_size=dict(height=4, width=5))
    rows = ("00000", "01010", "00100", "00000")
    assert place_mask(mask, larger, (4, 5)).int().tolist() == [[int(cell) for cell in row] for row in rows]
    padded = make_processor("ViT", do_resize=False, do_pad=True)
    assert place_mask(mask, padded, (3, 4)).int().tolist() == [[1, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]]


def test_masks_are_placed_by_known_processors_only():
    with pytest.raises(ArgumentTypeError, match=r"`image_processor` must resize, crop and pad as transformers'"):
        place_mask(np.ones((4, 4), dtype=bool), make_processor("ConvNext"), (224, 224))
    with pytest.raises(ArgumentError, match=r"got 4 x 4 .* makes 224 x 224"):
        place_mask(np.ones((4, 4), dtype=bool), make_processor("ViT"), (4, 4))
