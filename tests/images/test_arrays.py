"""Arrays and tensors are the images that transformers' own pipeline sees in them."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import ImageClassificationPipeline, ViTImageProcessorPil

from gmar_hf.errors import ImageError
from gmar_hf.images.arrays import picture_of_array
from gmar_hf.images.reading import read_image
from tests.helpers.explainers import make_explainer, photo

PIXELS = np.asarray(photo(size=(30, 20)))  # (height, width, channels)


@pytest.fixture(scope="module")
def explainer():
    return make_explainer()


def scores_of_transformers(explainer, image, **settings):
    theirs = ImageClassificationPipeline(
        model=explainer.model, image_processor=settings.get("image_processor", explainer.image_processor), device="cpu"
    )
    return {result["label"]: result["score"] for result in theirs(image, top_k=5)}


@pytest.mark.parametrize(
    "image",
    [
        PIXELS,
        np.moveaxis(PIXELS, -1, 0),
        torch.tensor(PIXELS),
        torch.tensor(PIXELS).permute(2, 0, 1),
        PIXELS.astype(np.float32),
        torch.tensor(PIXELS, dtype=torch.float64).permute(2, 0, 1),
        PIXELS.astype(np.int64),
        PIXELS[:3],  # either axis may be the channels: both take the first
    ],
    ids=["HWC", "CHW", "tensor HWC", "tensor CHW", "float32", "float64", "int64", "ambiguous"],
)
def test_scores_are_those_of_image_classification(explainer, image):
    results = explainer(image, top_k=5, return_overlay=True)
    expected = scores_of_transformers(explainer, image)
    assert {result["label"]: result["score"] for result in results} == pytest.approx(expected, abs=1e-6)
    size = (3, 30) if image.shape == (3, 30, 3) else (30, 20)
    assert results[0]["heatmap"].size == results[0]["overlay"].size == size


def test_arrays_in_lists_and_generators(explainer):
    alone = explainer(PIXELS)[0]
    for inputs in ([PIXELS, photo(3)], (image for image in (PIXELS, photo(3)))):
        first, second = list(explainer(inputs, batch_size=2))
        torch.testing.assert_close(first[0]["attribution"], alone["attribution"])
        assert second[0]["heatmap"].size == (60, 40)


def test_an_array_is_the_picture_that_pillow_makes_of_it(explainer):
    image = Image.fromarray(PIXELS)
    torch.testing.assert_close(explainer(PIXELS)[0]["attribution"], explainer(image)[0]["attribution"])
    for array in (
        PIXELS,
        np.moveaxis(PIXELS, -1, 0),
        torch.tensor(PIXELS),
        PIXELS * 0.999,
        np.dstack([PIXELS, PIXELS])[..., :4],
    ):
        assert read_image(array).tobytes() == image.tobytes()
    grey = Image.fromarray(PIXELS[..., 0]).convert("RGB")
    for array in (PIXELS[..., 0], PIXELS[..., :1], torch.tensor(PIXELS[..., 0]).bfloat16()):
        np.testing.assert_allclose(np.asarray(read_image(array)), np.asarray(grey), atol=1)


def test_floats_up_to_1_are_taken_as_transformers_takes_them_but_not_without_a_word(explainer):
    array = PIXELS.astype(np.float32) / 255
    with pytest.warns(UserWarning, match=r"^`image` must hold numbers from 0 to 255, not all within 0 to 1; got an "):
        results = explainer(array, top_k=5)
    expected = scores_of_transformers(explainer, array)
    assert {result["label"]: result["score"] for result in results} == pytest.approx(expected, abs=1e-6)
    with pytest.raises(ImageError, match=r"Scale it, or convert it to uint8\.$"):
        read_image(array)


def test_bits_are_taken_as_they_are_but_not_without_a_word(explainer):
    bits = PIXELS > 128
    for array in (bits, bits.astype(np.uint8), torch.tensor(bits)):
        with pytest.warns(UserWarning, match="not all within 0 to 1; .* almost black: multiply it by 255") as warned:
            picture = read_image(array)
        assert len(warned) == 1
        assert np.asarray(picture).max() == 1
    with pytest.warns(UserWarning, match=r"got an array of uint8 with 0 to 1\.") as warned:
        explainer(bits.astype(np.uint8))
    assert len(warned) == 1
    read_image(np.zeros_like(PIXELS))  # black is black, and 8 bits may be dark
    read_image(PIXELS // 100)


@pytest.mark.parametrize("array", [PIXELS * 0.99, PIXELS[..., 0], np.dstack([PIXELS, PIXELS])[..., :4]])
def test_what_the_processor_refuses_is_refused_in_words(explainer, array):
    """A processor without torchvision wants whole numbers; one with means of three channels three."""
    with pytest.raises(ValueError, match=r"^[TCm]"):
        scores_of_transformers(explainer, array)
    with pytest.raises(
        ImageError, match=r"^`image` must be an array that ViTImageProcessorPil takes; got .*\. Convert it to uint8 of"
    ):
        explainer(array)


def test_floats_go_to_1_where_the_processor_does_not_rescale():
    processor = ViTImageProcessorPil(size=dict(height=32, width=32), do_rescale=False)
    picture = picture_of_array(PIXELS / 255, processor)
    assert picture.tobytes() == PIXELS.tobytes()
    with pytest.warns(UserWarning, match="`image` must hold numbers from 0 to 1; got"):
        picture_of_array(PIXELS * 1.0, processor)
