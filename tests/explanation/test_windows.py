"""`gmar_hf.explain` of layers that stand in stages, in float32, against the float64 oracles of their kinds."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from types import ModuleType

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

import gmar_hf
from gmar_hf.errors import ArgumentError, UnsupportedModelError
from gmar_hf.models import window_layout
from tests.explanation.test_passes import POINTS
from tests.helpers import hiera_oracle, reduced_oracle, state, window_oracle, zoo
from tests.helpers.sampling import pick, sample_product
from tests.helpers.threads import in_threads

TOLERANCE = 1e-5
TARGETS = [1, 3]
# Scales of attention and their weights, by hand.
AS_IT_IS, PATH, RECOMMENDED = [(1.0, 1.0)], POINTS[2], POINTS["recommended"]
# What each method compares values with, and where its gradients are taken.
METHODS: dict[str, tuple[dict[str, object], float | str, list[tuple[float, float]]]] = {
    "contribution": ({"method": "contribution"}, 0.0, AS_IT_IS),
    "centred": ({"method": "contribution", "value_reference": 1.0}, 1.0, AS_IT_IS),
    "removal": ({"method": "removal"}, "output", AS_IT_IS),
    "path": ({"method": "path"}, 0.0, PATH),
    "path-centred": ({"method": "path", "value_reference": 1.0}, 1.0, PATH),
    "recommended": ({"method": "recommended"}, 0.5, RECOMMENDED),
    "path-removal": ({"method": "path", "value_reference": "output"}, "output", PATH),
}
FAMILIES = sorted(zoo.STAGED)
WITH_OTHERS = ("swin_padded", "swinv2_padded", "donut_swin", "pvt")  # padding, or a class token
# Every family and every method is in the default run, though not every pair.
SOME_PAIRS = sample_product(FAMILIES, sorted(METHODS), number=12)


@dataclass(frozen=True)
class Case:
    """One model, its images, and what the oracle says of them at every scale that the methods ask for."""

    model: PreTrainedModel
    images: torch.Tensor
    runs: dict[float, list[window_oracle.Reference]]

    def mean(self, function, points: list[tuple[float, float]]) -> np.ndarray:
        """Return what a function says of each image's references, (B, ...), averaged over points of the path."""
        return np.stack(
            [
                sum(weight * function(self.runs[scale][image]) for scale, weight in points)
                for image in range(len(self.images))
            ]
        )


@functools.cache
def make_case(name: str) -> Case:
    model = zoo.STAGED[name]()
    images = zoo.pixel_values(model, batch=len(TARGETS))
    scales = [scale for scale, _ in (*AS_IT_IS, *PATH, *RECOMMENDED)]
    runs = {scale: oracle_of(name).reference_runs(model, images, TARGETS, scale) for scale in scales}
    return Case(model, images, runs)


def oracle_of(name: str) -> ModuleType:
    if name.startswith(("segformer", "pvt")):
        return reduced_oracle
    return hiera_oracle if name.startswith("hiera") else window_oracle


def explain(case: Case, **kwargs) -> gmar_hf.Explanation:
    return gmar_hf.explain(case.model, case.images, torch.tensor(TARGETS), **kwargs)


def assert_close(actual: torch.Tensor, expected: np.ndarray, tolerance: float = TOLERANCE) -> None:
    """Compare within a share of the largest magnitude; heads that a layer lacks are NaN on both sides."""
    assert tuple(actual.shape) == expected.shape
    assert np.array_equal(np.isnan(actual.numpy()), np.isnan(expected))
    error = np.nanmax(np.abs(actual.double().numpy() - expected)) / np.nanmax(np.abs(expected))
    assert error < tolerance, error


@pytest.mark.parametrize(("name", "method"), SOME_PAIRS)
def test_parity(name, method):
    case, (arguments, reference, points) = make_case(name), METHODS[method]
    explanation = explain(case, return_head_maps=True, **arguments)
    maps = case.mean(lambda run: window_oracle.head_maps(run, reference)[0], points)
    padding = case.mean(lambda run: window_oracle.head_maps(run, reference)[1], points)
    assert_close(explanation.head_maps, maps)
    assert_close(explanation.attribution, np.nansum(maps, axis=(1, 2)))
    if explanation.prefix_contribution.shape[-1]:
        assert_close(explanation.prefix_contribution[..., 0], padding)
    else:
        assert np.nanmax(np.abs(padding)) == 0
    assert_close(explanation.head_contribution, case.mean(window_oracle.head_contributions, points))
    assert_close(explanation.head_contribution_centred, case.mean(window_oracle.centred_head_contributions, points))
    assert_close(explanation.logits, np.stack([run.logits for run in case.runs[1.0]]))


@pytest.mark.parametrize("name", FAMILIES)
def test_the_readout_lies_on_the_patches(name):
    case = make_case(name)
    explanation = explain(case, method="contribution")
    prefix = explanation.settings["grid"]["prefix"]
    assert prefix == int(name in WITH_OTHERS)
    on_patches = np.stack([window_oracle.readout(run).flatten() for run in case.runs[1.0]])
    beside = 1 - on_patches.sum(axis=1, keepdims=True)  # of a class token, not of padding
    assert_close(explanation.readout, np.concatenate([beside, on_patches], axis=1)[:, 1 - prefix :])


@pytest.mark.parametrize("name", pick(FAMILIES, 1))
def test_the_parts_add_up_to_what_attention_adds(name):
    """Slowly for Swin v2: the norm behind its attention makes up for the scale until that is almost zero.

    Hiera's logits have bends where another token becomes the largest of those that are merged.
    """
    coarse, fine = (explain(make_case(name), method="path", num_points=points) for points in (2, 16))
    parts = fine.head_contribution.nan_to_num().sum(dim=(-2, -1))
    assert fine.completeness_gap.abs().max() < coarse.completeness_gap.abs().max() / 4
    share = 0.2 if "swinv2" in name else 0.02 if "hiera" in name else 0.001
    assert fine.completeness_gap.abs().max() < share * parts.abs().max()


def test_padding_has_a_part_of_its_own():
    explanation = explain(make_case("swin_padded"), method="contribution", return_head_maps=True)
    assert explanation.prefix_contribution.shape == (2, 5, 4, 1)
    assert explanation.prefix_contribution.nan_to_num().abs().max() > 0.01


def test_heads_that_a_layer_lacks():
    explanation = explain(make_case("swin_padded"), method="contribution")
    assert explanation.settings["num_heads"] == [1, 1, 2, 2, 4]
    assert explanation.head_contribution.isfinite().sum(dim=-1).tolist() == [[1, 1, 2, 2, 4]] * 2


def test_later_layers_alone():
    case = make_case("swin")
    explanation = explain(case, method="contribution", start_layer=2, return_head_maps=True)
    torch.testing.assert_close(explanation.attribution, explanation.head_maps[:, 2].nansum(dim=1))


@pytest.mark.parametrize("name", ["swin", pytest.param("hiera", marks=pytest.mark.slow)])
def test_several_targets_and_a_score(name):
    case = make_case(name)
    both = gmar_hf.explain(case.model, case.images, torch.tensor([[1, 2], [3, 0]]), method="recommended")
    alone = explain(case, method="recommended")
    torch.testing.assert_close(both.head_contribution[:, 0], alone.head_contribution, equal_nan=True)
    versus = gmar_hf.explain(
        case.model, case.images, lambda logits: logits[:, 1] - logits[:, 2], method="contribution"
    )
    one, other = (gmar_hf.explain(case.model, case.images, target, method="contribution") for target in (1, 2))
    torch.testing.assert_close(versus.attribution, one.attribution - other.attribution)


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("swin_padded", "pairs"),
        ("swin_padded", "partition"),
        pytest.param("hiera_unmerged", "pairs", marks=pytest.mark.slow),
    ],
)
def test_masks(name, pattern):
    """Where hidden patches show what they showed before, masks change nothing."""
    case = make_case(name)
    whole = explain(case, method="contribution", return_head_maps=True)
    masked = explain(
        case,
        method="contribution",
        return_head_maps=True,
        num_masks=4,
        mask_baseline=case.images,
        mask_pattern=pattern,
    )
    for name in ("attribution", "head_maps", "prefix_contribution", "head_contribution"):
        torch.testing.assert_close(getattr(masked, name), getattr(whole, name), equal_nan=True)


@pytest.mark.parametrize("method", ["gmar", "rollout", "gradient-rollout", "attention"])
def test_methods_that_multiply_attention_are_refused(method):
    case = make_case("swin")
    message = (
        r'^`method` must be one of "contribution", "removal", "path", "recommended" for SwinForImageClassification '
        r"\(its layers stand in stages, each on a map of its own, and the others multiply attention over all "
        rf"tokens\); got '{method}'\.$"
    )
    with pytest.raises(ArgumentError, match=message):
        explain(case, method=method)
    with pytest.raises(ArgumentError, match=message):
        explain(case, method=["recommended", method])


def test_images_must_be_whole_patches():
    message = (
        r"^`pixel_values` must be whole patches of 4 x 4 pixels for SwinForImageClassification \(it would pad or cut "
        r"them\); got 32 x 34\. Resize to that\.$"
    )
    with pytest.raises(ArgumentError, match=message):
        gmar_hf.explain(zoo.swin(), torch.zeros(1, 3, 32, 34), method="path")


@pytest.mark.parametrize("name", ["segformer", "pvt_v2"])
@pytest.mark.parametrize("sizes", [(4, 3, 3), (7, 2, 3), (7, 3, 2)])
def test_convolutions_that_make_one_token_more_are_refused(name, sizes):
    config = zoo.STAGED[name]().config
    config.patch_sizes = sizes
    model = zoo.build(type(zoo.STAGED[name]()), config)
    with pytest.raises(UnsupportedModelError, match="do not cover the image evenly"):
        gmar_hf.explain(model, torch.zeros(1, 3, 32, 32), method="contribution")


@pytest.mark.parametrize("name", ["swin", "segformer", "pvt"])
def test_another_default_device_of_torchs(name):
    case = make_case(name)
    expected = explain(case, method="removal")
    window_layout.swin_layout.cache_clear()
    window_layout.reduced_layout.cache_clear()
    targets = torch.tensor(TARGETS)
    with torch.device("meta"):
        found = gmar_hf.explain(case.model, case.images, targets, method="removal")
    assert torch.equal(found.attribution, expected.attribution)


@pytest.mark.slow
def test_hieras_images_of_another_shape():
    """Hiera takes any of as many patches as its config says; where these lie the images tell, not the config."""
    model = zoo.hiera()
    images = zoo.pixel_values(model, size=(48, 32))
    explanation = gmar_hf.explain(model, images, torch.tensor(TARGETS), method="removal", return_head_maps=True)
    runs = hiera_oracle.reference_runs(model, images, TARGETS)
    assert explanation.attribution.shape == (2, 12, 8)
    assert_close(explanation.head_maps, np.stack([window_oracle.head_maps(run, "output")[0] for run in runs]))


def test_hieras_images_of_other_sizes():
    model = zoo.build(zoo.HieraForImageClassification, zoo.HieraConfig(**zoo.HIERA, **zoo.TWO_STAGES))
    images = zoo.pixel_values(model, size=(16, 32))
    explanation = gmar_hf.explain(
        model, images, method="contribution", return_head_maps=True, interpolate_pos_encoding=True
    )
    assert explanation.attribution.shape == (2, 4, 8)
    torch.testing.assert_close(explanation.head_maps.sum(dim=(-2, -1)), explanation.head_contribution, equal_nan=True)
    message = (
        r"must be 32 x 32 pixels for Hiera.*; got 16 x 32\. Resize to that, or pass `interpolate_pos_encoding=True`\.$"
    )
    with pytest.raises(ArgumentError, match=message):
        gmar_hf.explain(model, images, method="contribution")


def test_hiera_in_half_precision():
    """Rounding may choose another token where queries are merged, so that few images agree in all digits."""
    model = zoo.hiera()
    images = zoo.pixel_values(model)
    expected = gmar_hf.explain(model, images, 1, "contribution")
    found = gmar_hf.explain(model.bfloat16(), images.bfloat16(), 1, "contribution")
    for name in ("attribution", "head_contribution"):
        both = torch.stack([getattr(each, name).nan_to_num().flatten() for each in (expected, found)])
        assert torch.corrcoef(both)[0, 1] > 0.98


class TestTheModelIsAsItWas:
    @pytest.mark.parametrize("name", FAMILIES)
    def test_after_a_call(self, name):
        model = zoo.STAGED[name]()
        state.make_uneven(model)
        before = state.snapshot(model)
        gmar_hf.explain(model, zoo.pixel_values(model), method="recommended")
        assert state.snapshot(model) == before

    def test_whatever_the_size_of_the_map(self):
        """A forward over a small map makes Swin's windows smaller for good; an explanation does not."""
        model = zoo.build(zoo.SwinForImageClassification, zoo.SwinConfig(**{**zoo.EVEN_WINDOWS, "depths": (2, 2)}))
        layers = [module for module in model.modules() if type(module).__name__ == "SwinLayer"]
        before = [(layer.window_size, layer.shift_size) for layer in layers]
        assert before[-1] == (4, 2)
        gmar_hf.explain(model, zoo.pixel_values(model), method="contribution")
        assert [(layer.window_size, layer.shift_size) for layer in layers] == before

    def test_after_an_error(self):
        model = zoo.swin()
        before = state.snapshot(model)
        with pytest.raises(ArgumentError):
            gmar_hf.explain(model, zoo.pixel_values(model), method="gmar")
        assert state.snapshot(model) == before


def test_under_inference_mode():
    case = make_case("swin")
    with torch.inference_mode():
        inside = explain(case, method="recommended")
    torch.testing.assert_close(inside.attribution, explain(case, method="recommended").attribution)


def test_it_can_be_kept(tmp_path):
    """With NaN where, and only where, the settings say that a layer lacks heads."""
    explanation = explain(make_case("swin"), method="recommended", return_head_maps=True)
    explanation.save(tmp_path / "swin.safetensors")
    loaded = gmar_hf.Explanation.load(tmp_path / "swin.safetensors")
    assert loaded.settings == explanation.settings
    assert torch.equal(loaded.head_maps.nan_to_num(), explanation.head_maps.nan_to_num())
    several = gmar_hf.explain(
        make_case("swin").model, make_case("swin").images, torch.tensor([[1, 2], [3, 0]]), method="contribution"
    )
    several.save(tmp_path / "several.safetensors")
    assert gmar_hf.Explanation.load(tmp_path / "several.safetensors").head_contribution.shape == (2, 2, 3, 4)
    numbers = explanation.head_contribution.nan_to_num()
    for fields, settings, words in (
        ({}, {"num_heads": [2, 2]}, "must be of layers of 2, 2 heads, as the settings say; got 3 layers of 4"),
        ({}, {"num_heads": [2, 2, 3]}, "must be of layers of 2, 2, 3 heads"),
        ({}, {"num_heads": [2, 3, 4]}, "must hold finite floating point numbers"),
        ({"head_contribution": numbers}, {}, "must be NaN for heads that a layer lacks; got numbers"),
        ({}, {"num_heads": "2"}, "`settings` must have a list as 'num_heads'"),
    ):
        wrong = dataclasses.replace(explanation, **fields, settings={**explanation.settings, **settings})
        with pytest.raises(ArgumentError, match=words):
            wrong.save(tmp_path / "wrong.safetensors")


def test_threads_that_explain_images_of_two_sizes():
    """A small map shrinks Swin's windows for all threads, which must not reach the other one's explanation."""
    sizes = {**zoo.EVEN_WINDOWS, "image_size": 64, "depths": (2, 2)}
    model = zoo.build(zoo.SwinForImageClassification, zoo.SwinConfig(**sizes))
    large = zoo.pixel_values(model)
    small = large[..., : large.shape[-2] // 2, : large.shape[-1] // 2]
    images = [small, large]
    alone = [gmar_hf.explain(model, pixels, 1, "contribution").attribution for pixels in images]
    found = [[], []]

    def work(place):
        for _ in range(5):
            found[place].append(gmar_hf.explain(model, images[place], 1, "contribution").attribution)

    in_threads(lambda: work(0), lambda: work(1))
    for maps, expected in zip(found, alone, strict=True):
        assert all(torch.equal(each, expected) for each in maps)
