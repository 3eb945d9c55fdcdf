"""Contributions averaged over images of which a half of the patches is hidden."""

import pytest
import torch

import gmar_hf
from gmar_hf import ArgumentError
from gmar_hf.explanation.masking import antithetic_masks, masked_images, partition_masks
from gmar_hf.explanation.request import Request
from gmar_hf.models.patches import Grid
from tests.helpers import zoo
from tests.helpers.explainers import make_explainer, photo
from tests.helpers.state import make_uneven, snapshot

FIELDS = ("attribution", "head_contribution", "head_maps", "prefix_contribution", "readout")


def in_pixels(mask, model):
    """A mask of patches as one of pixels, patch by patch."""
    height, width = zoo.patch_size(model)
    hidden = torch.zeros(mask.shape[0] * height, mask.shape[1] * width, dtype=torch.bool)
    for row, col in mask.nonzero().tolist():
        hidden[row * height : (row + 1) * height, col * width : (col + 1) * width] = True
    return hidden


def test_masks_are_halves_and_their_opposites():
    masks = antithetic_masks(6, Grid(1, 3, 4), seed=0)
    assert masks.shape == (6, 3, 4)
    assert masks.flatten(1).sum(dim=1).tolist() == [6] * 6
    assert torch.equal(masks[1::2], ~masks[::2])
    assert len({tuple(mask.flatten().tolist()) for mask in masks}) == 6
    assert torch.equal(antithetic_masks(2, Grid(1, 3, 4), seed=0), masks[:2])
    assert not torch.equal(antithetic_masks(2, Grid(1, 3, 4), seed=1), masks[:2])
    odd = antithetic_masks(2, Grid(0, 3, 3), seed=0)
    assert odd.flatten(1).sum(dim=1).tolist() == [4, 5]


def test_a_partition_hides_every_patch_once():
    masks = partition_masks(4, Grid(2, 3, 5), seed=0)
    assert masks.shape == (4, 3, 5)
    assert torch.equal(masks.sum(dim=0), torch.ones(3, 5, dtype=torch.long))
    assert sorted(masks.flatten(1).sum(dim=1).tolist()) == [3, 4, 4, 4]
    assert torch.equal(masks, partition_masks(4, Grid(0, 3, 5), seed=0))
    assert not torch.equal(masks, partition_masks(4, Grid(0, 3, 5), seed=1))


def test_the_shares_of_all_masks_sum_to_one():
    images = torch.ones(1, 1, 6, 8)
    masking = Request(method="contribution", num_masks=3, mask_baseline="zero", mask_pattern="partition")
    parts = list(masked_images(images, masking, Grid(2, 2, 2), (3, 4)))
    weights = [part.token_weights for part in parts]
    for shown, masked in zip((part > 0 for part in weights), parts, strict=True):
        seen = masked.pixel_values[0, 0, ::3, ::4].flatten() > 0
        assert torch.equal(shown[2:], seen)
        assert shown[:2].all()
    assert torch.allclose(torch.stack(weights).sum(dim=0), torch.ones(6))
    assert weights[0][0] == pytest.approx(1 / 3)


def test_every_patch_is_hidden_once_a_pair():
    images = torch.arange(2 * 1 * 6 * 9, dtype=torch.float32).reshape(2, 1, 6, 9) + 1
    masking = Request(method="contribution", num_masks=2, mask_baseline="zero")
    (masked, weights), (opposite, opposite_weights) = masked_images(images, masking, Grid(1, 2, 2), (3, 4))
    assert weights.tolist() == opposite_weights.tolist() == [0.5] * 5
    assert torch.equal(masked[..., :8] + opposite[..., :8], images[..., :8])
    assert torch.equal(masked[..., 8], images[..., 8])  # the column of pixels beyond the grid of patches stays
    hidden = (masked[:, 0, :, :8] == 0).unflatten(1, (2, 3)).unflatten(3, (2, 4)).sum(dim=(2, 4))
    assert sorted(hidden[0].flatten().tolist()) == [0, 0, 12, 12]  # a patch is hidden whole, or not at all
    assert torch.equal(hidden[0], hidden[1])


@pytest.mark.parametrize("baseline", ["zero", "mean", "tensor"])
@pytest.mark.parametrize("name", ["vit_landscape", "deit_teacher", "beit_relative"])
def test_it_is_the_mean_over_masked_images(name, baseline):
    model = zoo.MODELS[name]()
    images = zoo.pixel_values(model, batch=2)
    filling = {
        "zero": torch.zeros_like(images),
        "mean": images.mean(dim=(2, 3), keepdim=True).expand_as(images),
        "tensor": torch.full((3, 1, 1), 0.3).expand_as(images),
    }[baseline]
    given = torch.full((3, 1, 1), 0.3) if baseline == "tensor" else baseline
    out = gmar_hf.explain(
        model, images, [1, 3], "contribution", num_masks=4, mask_baseline=given, seed=5, return_head_maps=True
    )
    parts = []
    for mask in antithetic_masks(4, Grid(0, *out.attribution.shape[1:]), seed=5):
        masked = torch.where(in_pixels(mask, model), filling, images)
        parts.append(gmar_hf.explain(model, masked, [1, 3], "contribution", return_head_maps=True))
    for field in FIELDS:
        theirs = torch.stack([getattr(part, field) for part in parts]).mean(dim=0)
        assert torch.allclose(getattr(out, field), theirs, atol=1e-6 * theirs.abs().max().item() + 1e-9), field
    with torch.no_grad():
        assert torch.allclose(out.logits, model(pixel_values=images).logits, atol=1e-5)
    assert out.settings["num_masks"] == 4
    described = out.settings["mask_baseline"]
    assert (
        described.startswith("tensor of shape (3, 1, 1), sha256 ") if baseline == "tensor" else described == baseline
    )


@pytest.mark.parametrize("name", ["vit_landscape", "deit_teacher", "beit_relative"])
def test_a_partition_averages_each_patch_over_the_masks_that_show_it(name):
    model = zoo.MODELS[name]()
    images = zoo.pixel_values(model, batch=2)
    out = gmar_hf.explain(
        model, images, [1, 3], "contribution", num_masks=3, mask_baseline="zero", mask_pattern="partition", seed=2,
        return_head_maps=True,
    )  # fmt: skip
    head_maps, prefix, readout = torch.zeros_like(out.head_maps), 0, 0
    for mask in partition_masks(3, Grid(0, *out.attribution.shape[1:]), seed=2):
        masked = images * ~in_pixels(mask, model)
        part = gmar_hf.explain(model, masked, [1, 3], "contribution", return_head_maps=True)
        head_maps += part.head_maps * ~mask / 2  # two of three masks show a patch
        prefix, readout = prefix + part.prefix_contribution / 3, readout + part.readout / 3
    expected = {
        "head_maps": head_maps,
        "prefix_contribution": prefix,
        "readout": readout,
        "attribution": head_maps.sum(dim=(1, 2)),
        "head_contribution": head_maps.sum(dim=(-2, -1)) + prefix.sum(dim=-1),
    }
    for field, theirs in expected.items():
        assert torch.allclose(getattr(out, field), theirs, atol=2e-6 * theirs.abs().max().item() + 1e-9), field
    scores = gmar_hf.explain(
        model, images, [1, 3], "contribution", num_masks=3, mask_baseline="zero", mask_pattern="partition", seed=2,
        return_maps=False,
    )  # fmt: skip
    assert scores.attribution is None
    assert torch.allclose(scores.head_contribution, out.head_contribution, atol=1e-6)


def test_the_class_is_the_whole_images():
    model = zoo.vit()
    images = zoo.pixel_values(model, batch=3)
    out = gmar_hf.explain(model, images, method="contribution", num_masks=2)
    assert torch.equal(out.target, out.logits.argmax(dim=1))
    named = gmar_hf.explain(model, images, out.target, "contribution", num_masks=2)
    assert torch.equal(out.attribution, named.attribution)


def test_a_batch_is_as_good_as_a_loop_and_targets_have_their_axis():
    model = zoo.vit()
    images = zoo.pixel_values(model, batch=2)
    out = gmar_hf.explain(model, images, [[0, 1], [2, 3]], "contribution", num_masks=4)
    for image in range(2):
        for number, target in enumerate([[0, 1], [2, 3]][image]):
            alone = gmar_hf.explain(model, images[image : image + 1], target, "contribution", num_masks=4)
            assert torch.allclose(out.attribution[image, number], alone.attribution[0], atol=1e-6)


def test_a_callable_is_asked_again():
    model = zoo.vit()
    images = zoo.pixel_values(model, batch=2)
    difference, first, second = (
        gmar_hf.explain(model, images, target, "contribution", num_masks=2).attribution
        for target in (lambda logits: logits[:, 0] - logits[:, 1], 0, 1)
    )
    assert torch.allclose(difference, first - second, atol=1e-5)


def test_in_the_pipeline():
    explain = make_explainer(method="contribution", num_masks=2, seed=3)
    masked = explain(photo(), target="dog", versus="cat")[0]
    dog, cat = (explain(photo(), target=label)[0] for label in ("dog", "cat"))
    assert torch.allclose(masked["attribution"], dog["attribution"] - cat["attribution"], atol=1e-5)
    assert not torch.equal(explain(photo(), target="dog", seed=4)[0]["attribution"], dog["attribution"])
    assert torch.equal(explain(photo(), target="dog", seed=3)[0]["attribution"], dog["attribution"])


def test_the_model_is_as_it_was():
    model = zoo.vit()
    make_uneven(model)
    before = snapshot(model)
    gmar_hf.explain(model, zoo.pixel_values(model, batch=1), method="contribution", num_masks=2)
    assert snapshot(model) == before


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (dict(num_masks=3), "`num_masks` must be even (masks come in pairs of opposites); got 3. Pass 4."),
        (dict(mask_pattern="thirds"), '`mask_pattern` must be one of "pairs", "partition"; got \'thirds\'.'),
        (
            dict(num_masks=1, mask_pattern="partition"),
            "`num_masks` must be 2 or more for a partition (each mask hides another part); got 1. Pass 4.",
        ),
        (
            dict(num_masks=17, mask_pattern="partition"),
            "`num_masks` must be at most the number of patches, 16, for a partition; got 17.",
        ),
        (dict(num_masks=-2), "`num_masks` must be a whole number of 0 or more; got -2."),
        (dict(num_masks=2.0), "`num_masks` must be a whole number of 0 or more; got 2.0."),
        (dict(num_masks=2, seed=None), "`seed` must be a whole number in [0, 2**63 - 1]; got None."),
        (dict(num_masks=2, seed=2**70), f"`seed` must be a whole number in [0, 2**63 - 1]; got {2**70}."),
        (
            dict(num_masks=2, method="gmar"),
            '`num_masks` must come with method "contribution", "removal" or "path", whose maps are averaged over '
            "masked images; got method 'gmar'. Drop one of them.",
        ),
        (
            dict(num_masks=2, mask_baseline="other"),
            '`mask_baseline` must be one of "blur", "zero", "mean", or a tensor of pixel values; got \'other\'.',
        ),
    ],
)
def test_bad_values(kwargs, message):
    model = zoo.vit()
    with pytest.raises(ArgumentError) as caught:
        gmar_hf.explain(model, zoo.pixel_values(model, batch=1), **{"method": "contribution", **kwargs})
    assert str(caught.value) == message


def test_a_tensor_of_another_shape():
    model = zoo.vit()
    with pytest.raises(
        ArgumentError, match=r"`mask_baseline` must broadcast to the images' shape \(1, 3, 32, 32\); got \(5,\)"
    ):
        gmar_hf.explain(
            model, zoo.pixel_values(model, batch=1), method="contribution", num_masks=2, mask_baseline=torch.zeros(5)
        )
