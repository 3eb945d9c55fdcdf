"""Maps lie where they belong on the user's image, however it was stored and whatever the processor does to it.

The model's contributions are known: they sit on bright patches (see `bright_model`). So a picture with one bright
rectangle must get its heat there.
"""

import math

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from tests.helpers.explainers import bright_model, make_explainer, marked, photo

SIZE = (120, 90)  # (width, height)
BOX = (60, 30, 84, 54)  # left, top, right, bottom
ORIENTATION = 0x0112  # the EXIF tag

# Each family's processor as it is published, but for 64 pixels and without normalisation.
PROCESSORS = {
    "vit": ("ViT", dict(size=dict(height=64, width=64))),
    "deit": ("DeiT", dict(size=dict(height=80, width=80), crop_size=dict(height=64, width=64))),
    "beit": ("Beit", dict(size=dict(height=64, width=64))),
    "beit, crop": ("Beit", dict(size=dict(height=73, width=73), crop_size=64, do_center_crop=True)),
    "dinov2": ("Bit", dict(size=dict(shortest_edge=73), crop_size=dict(height=64, width=64))),
    "clip": ("CLIP", dict(size=dict(shortest_edge=64), crop_size=dict(height=64, width=64))),
    "siglip": ("Siglip", dict(size=dict(height=64, width=64))),
    "padding": ("ViT", dict(size=dict(max_height=64, max_width=64), do_pad=True, pad_size=dict(height=64, width=64))),
}


@pytest.fixture(scope="module")
def model():
    return bright_model()


def make_processor(name):
    family, settings = PROCESSORS[name]
    return getattr(transformers, f"{family}ImageProcessorPil")(do_normalize=False, **settings)


@pytest.fixture(scope="module")
def explain(model):
    return make_explainer(model, image_processor=make_processor("vit"), method="contribution", target="bright")


def assert_on(heatmap, box, reach):
    """The heat lies on a box, as far as patches of that size (width, height) can tell."""
    heat = np.asarray(heatmap, dtype=float)
    left, top, right, bottom = box
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    assert left <= column < right
    assert top <= row < bottom
    rows = slice(max(0, math.floor(top - reach[1])), math.ceil(bottom + reach[1]))
    columns = slice(max(0, math.floor(left - reach[0])), math.ceil(right + reach[0]))
    assert heat[rows, columns].sum() > 0.999 * heat.sum()
    y, x = np.indices(heat.shape)
    centre = ((heat * (x + 0.5)).sum() / heat.sum(), (heat * (y + 0.5)).sum() / heat.sum())
    assert centre == pytest.approx(((left + right) / 2, (top + bottom) / 2), abs=max(reach) / 2)


@pytest.mark.parametrize("name", sorted(PROCESSORS))
@pytest.mark.parametrize("size", [SIZE, SIZE[::-1], (300, 200)])
def test_heat_lies_on_the_marked_square(model, name, size):
    explain = make_explainer(model, image_processor=make_processor(name), method="contribution", target="bright")
    scale = size[0] / SIZE[0]
    box = tuple(round(edge * scale) for edge in BOX) if size[0] > size[1] else (30, 60, 54, 84)
    (result,) = explain(marked(size, box))
    left, top, right, bottom = result["box"]
    assert_on(result["heatmap"], box, ((right - left) / 8 * 1.5, (bottom - top) / 8 * 1.5))
    if name == "padding":
        assert right > size[0] or bottom > size[1]
    elif name in ("deit", "beit, crop", "dinov2", "clip"):
        assert right - left < size[0] or bottom - top < size[1]
    else:
        assert result["box"] == (0, 0, *size)


def test_outside_the_crop_the_heatmap_is_black(model):
    explain = make_explainer(model, image_processor=make_processor("dinov2"), method="contribution", target="bright")
    (result,) = explain(Image.new("RGB", SIZE, "white"))
    left, _, right, _ = result["box"]
    assert 0 < left < right < SIZE[0]
    heat = np.asarray(result["heatmap"])
    assert not heat[:, : math.floor(left)].any()
    assert not heat[:, math.ceil(right) :].any()
    assert heat[45, math.ceil(left) : math.floor(right)].all()


def test_a_map_without_positive_values_stays_black(explain):
    for image, target in ((Image.new("RGB", SIZE), "bright"), (marked(SIZE, BOX), "dark")):
        (result,) = explain(image, target=target, return_overlay=True)
        assert not np.asarray(result["heatmap"]).any()
        grey_and_colour = np.asarray(image.convert("RGB"))
        np.testing.assert_array_equal(np.asarray(result["overlay"]), grey_and_colour)


def test_a_tiny_and_an_elongated_image(explain):
    for size in ((1, 1), (3, 2), (500, 2), (2, 500)):
        (result,) = explain(Image.new("RGB", size, "white"))
        assert result["heatmap"].size == size
        assert np.asarray(result["heatmap"]).max() > 250


# What the file is like


def test_every_orientation(explain, tmp_path):
    upright = marked(SIZE, BOX)
    (expected,) = explain(upright, return_overlay=True)
    for orientation in range(1, 9):
        # Store it so that turning it as the tag says gives the upright picture again.
        undo = {
            2: [Image.Transpose.FLIP_LEFT_RIGHT], 3: [Image.Transpose.ROTATE_180],
            4: [Image.Transpose.FLIP_TOP_BOTTOM], 5: [Image.Transpose.TRANSPOSE], 6: [Image.Transpose.ROTATE_90],
            7: [Image.Transpose.TRANSVERSE], 8: [Image.Transpose.ROTATE_270],
        }.get(orientation, [])  # fmt: skip
        stored = upright
        for step in undo:
            stored = stored.transpose(step)
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        stored.save(tmp_path / "turned.png", exif=exif)
        (result,) = explain(tmp_path / "turned.png", return_overlay=True)
        assert torch.equal(result["attribution"], expected["attribution"]), orientation
        assert result["heatmap"].tobytes() == expected["heatmap"].tobytes()
        assert result["overlay"].tobytes() == expected["overlay"].tobytes()


def deep(image):
    return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [
        ("RGB", "png"), ("RGBA", "png"), ("L", "png"), ("LA", "png"), ("P", "png"), ("1", "png"), ("P", "gif"),
        ("RGB", "bmp"), ("RGB", "webp"), ("CMYK", "tiff"), ("I;16", "png"), ("I;16", "tiff"),
    ],
)  # fmt: skip
def test_every_mode(explain, tmp_path, mode, suffix):
    image = marked(SIZE, BOX)
    (expected,) = explain(image)
    stored = deep(image) if mode == "I;16" else image.convert("L").convert(mode) if mode in ("LA", "1") else None
    stored = stored or image.convert(mode)
    stored.save(tmp_path / f"image.{suffix}", **(dict(lossless=True) if suffix == "webp" else {}))
    for source in (stored, tmp_path / f"image.{suffix}"):
        (result,) = explain(source, return_overlay=True)
        torch.testing.assert_close(result["attribution"], expected["attribution"])
        assert result["heatmap"].tobytes() == expected["heatmap"].tobytes()
        assert result["overlay"].mode == "RGB"


def test_a_jpeg_of_cmyk(explain, tmp_path):
    marked(SIZE, BOX).convert("CMYK").save(tmp_path / "image.jpg", quality=95)
    assert_on(explain(tmp_path / "image.jpg")[0]["heatmap"], BOX, (22, 17))


def test_transparency_is_dropped_as_in_image_classification(model, tmp_path):
    image = photo(size=SIZE)
    image.putalpha(Image.linear_gradient("L").resize(SIZE))
    image.save(tmp_path / "image.png")
    processor = make_processor("vit")
    classify = transformers.ImageClassificationPipeline(model=model, image_processor=processor, device="cpu")
    explain = make_explainer(model, image_processor=processor)
    (expected,) = classify(str(tmp_path / "image.png"), top_k=1)
    (result,) = explain(str(tmp_path / "image.png"))
    assert (result["label"], result["score"]) == (expected["label"], pytest.approx(expected["score"], abs=1e-6))
    assert result["attribution"].equal(explain(image.convert("RGB"))[0]["attribution"])


def test_the_users_image_is_left_alone(explain):
    image = photo(size=SIZE)
    exif = image.getexif()
    exif[ORIENTATION] = 6
    before = (image.tobytes(), image.size, dict(image.getexif()))
    (result,) = explain(image, return_overlay=True)
    assert (image.tobytes(), image.size, dict(image.getexif())) == before
    assert result["heatmap"].size == SIZE[::-1]
