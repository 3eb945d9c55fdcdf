"""Bad input to the pipeline: each ends in an error whose text says what was wrong, and what to do."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import ViTModel, pipeline

import gmar_hf
from gmar_hf.errors import ArgumentError, ArgumentTypeError, ImageError, NonFiniteError, UnsupportedModelError
from tests.helpers import zoo
from tests.helpers.explainers import LABELS, image_processor, make_explainer, name_classes, photo, serving


@pytest.fixture(scope="module")
def explainer():
    return make_explainer()


def refused(error, message, function, *args, **kwargs):
    """Asserts the error's type and its whole text."""
    with pytest.raises(error) as caught:
        function(*args, **kwargs)
    assert str(caught.value) == message
    assert isinstance(caught.value, gmar_hf.GMARError)


# Images


def test_no_images(explainer):
    end = "Pass a path, a URL or a PIL image."
    refused(ArgumentError, f"`inputs` must hold at least one image; got []. {end}", explainer, [])
    refused(ArgumentError, f"`inputs` must hold at least one image; got (). {end}", explainer, ())
    refused(ArgumentError, f"`inputs` must hold at least one image; got None. {end}", explainer, None)


def broken_files(folder):
    jpeg = io.BytesIO()
    photo(size=(300, 200)).save(jpeg, "JPEG")
    (folder / "empty.png").write_bytes(b"")
    (folder / "truncated.jpg").write_bytes(jpeg.getvalue()[:-400])
    (folder / "page.png").write_text("<html>cat</html>")
    return {
        "missing.png": "`image` must be a file that exists, an http(s) URL or an image in base64; got {path!r}. Check",
        "empty.png": "`image` must hold an image; got {path!r}, an empty file. Copy or download it again.",
        "truncated.jpg": "`image` must be an intact image; got {path!r} (image file is truncated",
        "page.png": "`image` must hold an image; got {path!r}, which holds a web page (HTML).",
    }


def test_files_that_are_no_images(explainer, tmp_path):
    for name, words in broken_files(tmp_path).items():
        path = str(tmp_path / name)
        for source in (path, [photo(), path]):
            with pytest.raises(ImageError) as caught:
                explainer(source, batch_size=2)
            assert str(caught.value).startswith(words.format(path=path))
            assert isinstance(caught.value, OSError)


def test_a_url_that_fails(explainer, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    fallback = "or download the image and pass its path."
    with serving({"/page": (200, "text/html", b"<html>cat</html>")}) as address:
        gone = f"{address}/gone.png"
        refused(
            ImageError,
            f"`image` must be a URL that serves an image; got {gone!r}, which answers 404 Not Found. "
            f"Check the address, {fallback}",
            explainer, gone,
        )  # fmt: skip
        page = f"{address}/page"
        refused(
            ImageError,
            f"`image` must be a URL that serves an image; got {page!r}, which serves a web page (HTML), no image. "
            f"Pass the address of the image itself, {fallback}",
            explainer, page,
        )  # fmt: skip
    with pytest.raises(ImageError, match=rf"^`image` must be a URL that can be reached; got '{address}/gone.png' \("):
        explainer(gone, timeout=5)


@pytest.mark.parametrize("source", [3, b"png", {"image": None}])
def test_sources_of_another_kind(explainer, source):
    with pytest.raises(
        ArgumentTypeError, match=r"^`image` must be a path, a URL, base64 text, a PIL image or an array; "
    ):
        explainer(source)


@pytest.mark.parametrize("shape", [(0, 8, 3), (8,), (1, 8, 8, 3), (8, 8, 5)])
@pytest.mark.parametrize("kind", [np.zeros, torch.zeros])
def test_arrays_that_are_no_image(explainer, kind, shape):
    with pytest.raises(
        ImageError, match=r"^`image` must be one image: an array of numbers of shape \(height, width, "
    ):
        explainer(kind(shape))


def test_arrays_that_are_not_finite(explainer):
    with pytest.raises(ImageError, match=r"^`image` must be finite; got an array with NaN or infinity"):
        explainer(np.full((8, 8, 3), np.nan))


def test_an_image_that_would_be_enlarged_without_end(tmp_path):
    """A strip whose shorter side becomes 32 would be 3.2 million pixels long: 1.2 GB, of which none is asked for."""
    processor = image_processor()
    processor.size, processor.do_center_crop, processor.crop_size = (
        {"shortest_edge": 32},
        True,
        {"height": 32, "width": 32},
    )
    explain = make_explainer(image_processor=processor)
    strip = Image.new("L", (100_000, 1))
    message = (
        "`image` must not be enlarged by the image processor to more than 67,108,864 pixels; got 100000 x 1, which "
        "would be 3200000 x 32. Crop it to a less elongated part."
    )
    refused(ImageError, message, explain, strip)
    assert explain(Image.new("L", (1000, 1)))[0]["heatmap"].size == (1000, 1)


# Targets


def test_unknown_label(explainer):
    for wanted, near in {
        "cats": "'cat', 'tabby cat', 'dog'",
        "tabby": "'tabby cat', 'cat', 'dog'",
        "Fire Truck": "'fire truck', 'cat', 'dog'",
        "": "'cat', 'dog', 'tabby cat'",
    }.items():
        message = f"`target` must be one of the model's labels or an index; got {wanted!r}. Near it: {near}."
        refused(ArgumentError, message, explainer, photo(), target=wanted)
        refused(ArgumentError, message, make_explainer, explainer.model, target=["cat", wanted])
    message = "`versus` must be one of the model's labels or an index; got 'bind'. Near it: 'bird', 'cat', 'dog'."
    refused(ArgumentError, message, explainer, photo(), target="cat", versus="bind")


@pytest.mark.parametrize("index", [-1, 5, 10**20])
def test_index_out_of_range(explainer, index):
    words = f"must be an index in [0, 4] or a label; got {index}."
    refused(ArgumentError, f"`target` {words}", explainer, photo(), target=index)
    refused(ArgumentError, f"`target` {words}", explainer, photo(), target=["cat", index])
    refused(ArgumentError, f"`versus` {words}", explainer, photo(), target=0, versus=index)


@pytest.mark.parametrize("target", [1.0, True, None, ["cat"], torch.tensor([1]), lambda logits: logits[:, 0]])
def test_targets_of_another_kind(explainer, target):
    shown = target.tolist() if isinstance(target, torch.Tensor) else target
    message = f"`target` must be a label or an index; got {shown!r:.80}."
    refused(ArgumentTypeError, message, explainer, photo(), target=["dog", target])


def test_no_target(explainer):
    message = "`target` must name at least one label or index; got an empty list."
    refused(ArgumentError, message, explainer, photo(), target=[])


def test_targets_one_for_every_image_are_of_the_wrong_length():
    """The pipeline takes the same targets for all images; `explain` takes one for each, and counts them."""
    model = zoo.vit()
    message = (
        "`target` must have one row for each of the 2 images, shape (2,) or (2, targets); got shape (3,). "
        "Pass one int for all images, or one entry an image."
    )
    refused(ArgumentError, message, gmar_hf.explain, model, zoo.pixel_values(model, 2), [0, 1, 2])


def test_top_k_with_target(explainer):
    message = "`top_k` must not be given together with `target` (which says what to explain). Drop one."
    refused(ArgumentError, message, explainer, photo(), top_k=2, target="cat")
    refused(ArgumentError, message, make_explainer, explainer.model, top_k=2, target="cat")


@pytest.mark.parametrize("top_k", [0, -1, 1.5, "2", True])
def test_top_k(explainer, top_k):
    message = f"`top_k` must be a whole number of 1 or more; got {top_k!r}."
    refused(ArgumentError, message, explainer, photo(), top_k=top_k)


def test_versus_without_target(explainer):
    message = "`versus` must come with `target`: why that label and not this one. Pass `target` too."
    refused(ArgumentError, message, explainer, photo(), versus="cat")
    refused(ArgumentError, message, explainer, photo(), top_k=2, versus="cat")
    refused(ArgumentError, message, make_explainer, explainer.model, versus="cat")


def test_versus_itself(explainer):
    message = "`versus` must be another class than `target`; got 'cat' for both."
    refused(ArgumentError, message, explainer, photo(), target=["dog", "cat"], versus=0)


# Settings


def test_unknown_method_and_norm(explainer):
    methods = '"gmar", "contribution", "removal", "path", "recommended", "rollout", "gradient-rollout", "attention"'
    told_of_l1 = ' In Python pass method="gmar", norm="l1".'
    for method, hint in (("gmar-l1", told_of_l1), ("GMAR", " Did you mean 'gmar'?"), (None, ""), (1, "")):
        message = f"`method` must be one of {methods}; got {method!r}.{hint}"
        refused(ArgumentError, message, explainer, photo(), method=method)
        refused(ArgumentError, message, make_explainer, explainer.model, method=method)
    for norm, hint in (("l3", ""), ("L1", " Did you mean 'l1'?"), (2, "")):
        message = f'`norm` must be one of "l1", "l2"; got {norm!r}.{hint}'
        refused(ArgumentError, message, explainer, photo(), norm=norm)


@pytest.mark.parametrize("function", ["tanh", 1, ["sigmoid"]])
def test_unknown_function(explainer, function):
    message = f'`function_to_apply` must be one of "sigmoid", "softmax", "none", or None; got {function!r}.'
    refused(ArgumentError, message, explainer, photo(), function_to_apply=function)


def test_unknown_parameters(explainer):
    message = (
        "`topk` is not a parameter of this pipeline. There are: top_k, target, versus, candidate_labels, "
        "hypothesis_template, method, norm, residual_weight, start_layer, return_head_maps, num_masks, "
        "mask_baseline, mask_pattern, seed, "
        "num_points, value_reference, head_weights, "
        "interpolate_pos_encoding, function_to_apply, return_overlay, overlay_style, overlay_grid, overlay_caption, "
        "return_heatmap, return_explanation, timeout, batch_size, num_workers. Did you mean 'top_k'?"
    )
    refused(ArgumentTypeError, message, explainer, photo(), topk=2)
    refused(ArgumentTypeError, message, make_explainer, explainer.model, topk=2)
    with pytest.raises(ArgumentTypeError, match=r"^`return_maps` is not a parameter"):
        explainer(photo(), return_maps=False)


def test_a_layer_that_is_not_there(explainer):
    refused(ArgumentError, "`start_layer` must be in [0, 2]; got 3.", explainer, photo(), start_layer=3)


# Models and processors


def test_no_image_processor():
    message = (
        "`image_processor` must be given where the model's repository has none; got None. "
        "Pass `image_processor=AutoImageProcessor.from_pretrained(...)`."
    )
    refused(ArgumentTypeError, message, gmar_hf.GMARExplainer, model=zoo.vit(), device="cpu")
    with pytest.raises(Exception, match="image processor"):  # transformers' own words
        pipeline("gmar-explanation", model=zoo.vit())


def test_a_processor_that_places_pixels_in_its_own_way():
    class Odd(type(image_processor())):
        def resize(self, image, *args, **kwargs):
            return super().resize(image, *args, **kwargs)

    explainer = make_explainer(image_processor=Odd(size=dict(height=32, width=32)))
    with pytest.raises(ArgumentTypeError, match=r"got Odd, which has its own `resize`\. Preprocess the image"):
        explainer(photo())


def test_a_model_without_logits():
    explainer = make_explainer(zoo.build(ViTModel, zoo.ViTConfig(**zoo.NARROW, **zoo.SQUARE)))
    with pytest.raises(
        UnsupportedModelError, match=r"^ViTModel cannot be explained: it returns no logits of shape \(batch, classes\)"
    ):
        explainer(photo())


@pytest.mark.parametrize("name", ["pvt_v2_linear", "convnext", "resnet"])
def test_models_that_cannot_be_explained(name):
    model = zoo.REFUSED[name]()
    with pytest.raises(UnsupportedModelError, match=f"^{type(model).__name__} cannot be explained: "):
        make_explainer(model)(photo())


def test_weights_that_are_nan():
    model = zoo.vit()
    with torch.no_grad():
        model.vit.layers[1].mlp.fc1.weight[0, 0] = torch.nan
    message = (
        "The logits must be finite; got NaN or infinity. Check `pixel_values` and the model's weights for NaN, or use "
        "bfloat16 or float32 instead of float16."
    )
    refused(NonFiniteError, message, make_explainer(model), photo())


def test_logits_that_are_nan():
    model = zoo.vit()
    with torch.no_grad():
        model.classifier.bias[3] = torch.inf
    with pytest.raises(
        NonFiniteError, match=r"^The logits must be finite; got NaN or infinity for image\(s\) \[0, 1\]"
    ):
        make_explainer(model)([photo(), photo(1)], batch_size=2)


def test_another_number_of_channels():
    config = zoo.ViTConfig(**zoo.NARROW, **zoo.SQUARE, num_channels=1, num_labels=5)
    explainer = make_explainer(name_classes(zoo.build(zoo.ViTForImageClassification, config)))
    message = "`pixel_values` must have 1 channel for ViTForImageClassification; got 3. Convert the images."
    refused(ArgumentError, message, explainer, photo())
    refused(ArgumentError, message, explainer, Image.new("L", (32, 32)))


def test_a_size_that_is_not_the_models(explainer):
    larger = make_explainer(explainer.model, image_processor=image_processor((48, 64)))
    message = (
        "`pixel_values` must be 32 x 32 pixels for ViTForImageClassification; got 48 x 64. "
        "Resize to that, or pass `interpolate_pos_encoding=True`."
    )
    refused(ArgumentError, message, larger, photo())


def test_interpolation_where_the_model_knows_none():
    explainer = make_explainer(name_classes(zoo.dinov2(), LABELS))
    with pytest.raises(ArgumentError) as caught:
        explainer(photo(), interpolate_pos_encoding=True)
    message = str(caught.value)
    assert message.startswith("`interpolate_pos_encoding` must be an argument that Dinov2ForImageClassification knows")
    assert "32 x 32 pixels" in message


def test_after_an_error_the_pipeline_still_works(explainer):
    before = explainer(photo(), method="contribution")[0]["attribution"]
    for bad in ({"target": "nobody"}, {"method": "none"}, {"start_layer": 9}):
        with pytest.raises(ArgumentError):
            explainer(photo(), **bad)
    assert explainer(photo(), method="contribution")[0]["attribution"].equal(before)


class Ending(torch.utils.data.Dataset):
    """A data set whose second item raises what a loop takes for its end."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return photo(index) if index != 1 else next(iter([]))


def ended(explainer, inputs, **settings):
    with pytest.raises(ArgumentError) as caught:
        list(explainer(inputs, **settings))
    return str(caught.value)


@pytest.mark.parametrize("batch_size", [1, 2])
def test_nobody_ends_the_images_before_they_end(explainer, monkeypatch, batch_size):
    """A data set's item, the processor, the model: each time half of the results would look like all of them."""
    words = "must not raise StopIteration, which a loop takes for its own end; "
    assert ended(explainer, Ending(), batch_size=batch_size).startswith(f"`inputs` {words}item 1 did.")

    def stop(*args, **kwargs):
        raise StopIteration

    images = [photo(number) for number in range(3)]
    with monkeypatch.context() as patch:
        patch.setattr(type(explainer.image_processor), "__call__", stop)
        for inputs in (images, iter_of(images)):
            said = ended(explainer, inputs, batch_size=batch_size)
            assert said.startswith(f"`image_processor` {words}preprocessing an image did.")
    handle = explainer.model.register_forward_pre_hook(stop)
    try:
        for inputs in (images, iter_of(images)):
            said = ended(explainer, inputs, batch_size=batch_size)
            assert said.startswith(f"`model` {words}explaining a batch did.")
    finally:
        handle.remove()
    assert len(list(explainer(iter_of(images), batch_size=batch_size))) == 3


def iter_of(images):
    yield from images
