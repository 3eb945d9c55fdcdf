"""SigLIP 2 NaFlex: images in, against its own flattened patches, some of them padding, and explicit attention."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from transformers import Siglip2ForImageClassification, pipeline
from transformers.models.siglip2.image_processing_pil_siglip2 import Siglip2ImageProcessorPil

import gmar_hf
from gmar_hf.explanation.parity import check_parity
from gmar_hf.images import images_from_patches
from gmar_hf.models.flat_patches import ImagesAsPatches
from tests.explanation.test_engine_parity import METHODS, Case, assert_matches, expected_fields, explain
from tests.explanation.test_passes import KINDS, check_every_field
from tests.helpers import naflex, oracle, state
from tests.helpers.zoo import relative_error

PROCESSOR = Siglip2ImageProcessorPil(patch_size=naflex.PATCH, max_num_patches=20)


def make_images(rows: int = 3, cols: int = 5, batch: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, 3, rows * naflex.PATCH, cols * naflex.PATCH, generator=generator)


def photo(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


@functools.cache
def make_case() -> Case:
    model, images = naflex.siglip2(), make_images()
    return Case("siglip2", model, images, oracle.explicit_reference(model, images, [1, 3]))


def test_images_are_what_the_model_makes_of_patches_with_padding():
    model, images = naflex.siglip2(), make_images()
    with torch.no_grad():
        expected = model(**naflex.inputs_of(model, images)).logits
        assert relative_error(ImagesAsPatches(model)(images).logits, expected) < 1e-6


@pytest.mark.parametrize("method", METHODS)
def test_parity_with_explicit_attention_over_patches_with_padding(method):
    case = make_case()
    assert_matches(explain(case, method, return_head_maps=True), expected_fields(case.references, method))


@pytest.mark.parametrize("kind", KINDS)
def test_paths(kind):
    check_every_field(naflex.siglip2(), make_images(), kind)


def test_gradients_are_those_of_the_logits():
    assert check_parity(naflex.siglip2(), make_images()).agrees


def test_the_model_stays_as_it_was():
    model = naflex.siglip2()
    state.make_uneven(model)
    before = state.snapshot(model)
    gmar_hf.explain(model, make_images(), method="recommended")
    with gmar_hf.silence_heads(model, [(0, 1)]):
        gmar_hf.explain(model, make_images(), method="gmar")
    assert state.snapshot(model) == before


def test_silenced_heads_are_those_of_the_model_itself():
    model, images = naflex.siglip2(), make_images()
    with gmar_hf.silence_heads(model, [(1, 2)]), torch.no_grad():
        expected = model(**naflex.inputs_of(model, images)).logits
        silenced = gmar_hf.explain(model, images, target=0)
    assert relative_error(silenced.logits, expected) < 1e-6
    assert silenced.head_contribution[:, 1, 2].abs().max() == 0


@pytest.mark.parametrize(("width", "height"), [(90, 50), (50, 90), (33, 33), (200, 21)])
def test_the_pipeline_explains_the_whole_photo_on_its_own_grid(width, height):
    model, image = naflex.siglip2(), photo(width, height)
    inputs = PROCESSOR(image, return_tensors="pt")
    with torch.no_grad():
        probabilities = model(**inputs).logits.softmax(dim=-1)[0]
    explainer = pipeline("gmar-explanation", model=model, image_processor=PROCESSOR)
    (result,) = explainer(image, method="contribution")
    assert result["score"] == pytest.approx(probabilities.max().item(), rel=1e-5)
    assert list(result["attribution"].shape) == inputs["spatial_shapes"][0].tolist()
    assert result["box"] == (0, 0, width, height)
    assert result.seen_share == 1


def test_surveys_and_evaluations_of_photos_of_any_shape(tmp_path):
    model = naflex.siglip2()
    images = [{"image": photo(40 + 9 * number, 50, number), "label": number % 3} for number in range(8)]
    how = {"image_processor": PROCESSOR, "batch_size": 1}
    report = gmar_hf.survey(model, images, target="label", **how)
    alone = [gmar_hf.explain(model, images_of(item["image"]), item["label"]).head_contribution[0] for item in images]
    assert relative_error(report.overall.mean["contribution"], torch.stack(alone).mean(dim=0)) < 1e-5
    result = gmar_hf.evaluation.evaluate(
        model,
        images,
        methods=["contribution"],
        target="label",
        baselines=["zero", "black", "removed"],
        num_steps=2,
        **how,
    )
    assert len(result.rows) == 8


def images_of(image: Image.Image) -> torch.Tensor:
    inputs = PROCESSOR(image, return_tensors="pt")
    return images_from_patches(inputs["pixel_values"], inputs["spatial_shapes"], PROCESSOR.patch_size)


def test_several_shapes_in_one_batch_are_refused():
    images = [{"image": photo(40, 50), "label": 0}, {"image": photo(90, 50), "label": 0}]
    with pytest.raises(gmar_hf.ArgumentError, match=r"in one size; got .* Pass `batch_size=1`"):
        gmar_hf.survey(naflex.siglip2(), images, target="label", image_processor=PROCESSOR, batch_size=2)
    inputs = PROCESSOR([item["image"] for item in images], return_tensors="pt")
    with pytest.raises(gmar_hf.ArgumentError, match="`spatial_shapes` must be the same for all images of a batch"):
        images_from_patches(inputs["pixel_values"], inputs["spatial_shapes"], PROCESSOR.patch_size)


def test_patches_that_do_not_fit():
    with pytest.raises(gmar_hf.ArgumentError, match=r"must hold 3 x 5 patches of 8 x 8 pixels .* \(1, 14, 192\)"):
        images_from_patches(torch.zeros(1, 14, 192), torch.tensor([[3, 5]]), 8)
    with pytest.raises(gmar_hf.ArgumentError, match="must be an argument that Siglip2ForImageClassification knows"):
        gmar_hf.explain(naflex.siglip2(), make_images(), spatial_shapes=torch.tensor([[3, 5]] * 2))


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # by PEFT
def test_adapters():
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(naflex.siglip2(), peft.LoraConfig(target_modules=["q_proj", "v_proj"], r=2))
    inner = model.get_base_model()
    assert isinstance(inner, Siglip2ForImageClassification)
    with torch.no_grad():
        expected = inner(**naflex.inputs_of(inner, make_images())).logits
    assert relative_error(gmar_hf.explain(model, make_images()).logits, expected) < 1e-6


def test_padded_patches_of_an_own_module_are_refused():
    """A map would take the padding for the last patches."""

    class Own(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner, self.config = inner, inner.config

        def forward(self, pixel_values):
            return self.inner(**naflex.inputs_of(self.inner, pixel_values))

    inner = naflex.siglip2()
    with pytest.raises(gmar_hf.UnsupportedModelError, match="padded patches"):
        gmar_hf.explain(Own(inner), make_images(), 1)
