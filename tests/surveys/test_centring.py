"""Contributions centred on other images, against the float64 oracle with explicit attention."""

import numpy as np
import pytest
import torch

import gmar_hf
from gmar_hf import ArgumentError, ArgumentTypeError, centred_head_contribution, metrics
from gmar_hf.surveys.scoring import score_heads
from tests.helpers import oracle, zoo
from tests.helpers.reports import report_of
from tests.helpers.state import make_uneven, snapshot


def error(ours, theirs):
    return np.abs(ours.double().numpy() - theirs).max() / np.abs(theirs).max()


def centred(references, mean):
    """The scores (batch, layers, heads) of explicit outputs and gradients, less this mean output."""
    return np.stack([((each.output - mean) * each.output_gradient).sum(axis=(2, 3)) for each in references])


@pytest.mark.parametrize("name", ["vit_landscape", "deit_teacher", "beit_relative", "clip", "dinov2_registers"])
def test_against_the_oracle(name):
    model = zoo.MODELS[name]()
    images, others = zoo.pixel_values(model, batch=2), zoo.pixel_values(model, batch=3, seed=1)
    classes = [[1, 3], [4, 0]]
    means = score_heads(model, others).means
    by_token = np.mean([each.output for each in oracle.explicit_reference(model, others)], axis=0)
    num_prefix = oracle.explicit_reference(model, images[:1])[0].num_prefix_tokens
    by_position = by_token.copy()
    by_position[:, :, num_prefix:] = by_token[:, :, num_prefix:].mean(axis=2, keepdims=True)
    for reference, mean in ((others, by_token), (means, by_position)):
        found = centred_head_contribution(model, images, torch.tensor(classes), reference=reference)
        assert found.shape == (2, 2, *by_token.shape[:2])
        assert found.dtype == torch.float32
        for target in range(2):
            references = oracle.explicit_reference(model, images, [row[target] for row in classes])
            assert error(found[:, target], centred(references, mean)) < 1e-5


def test_a_report_by_its_folder(tmp_path):
    model = zoo.vit()
    images = zoo.pixel_values(model, batch=4)
    items = [{"pixel_values": image, "label": 0} for image in images]
    report = gmar_hf.survey(model, items, output_dir=tmp_path)
    found = centred_head_contribution(model, images, reference=tmp_path)
    assert torch.equal(found, centred_head_contribution(model, images, reference=report))
    # Over the images of the report the mean is what the report says.
    torch.testing.assert_close(found.mean(dim=0), report.mean["contribution_centred"].float(), rtol=1e-4, atol=1e-6)


def test_it_foretells_mean_ablation_where_the_model_is_all_but_linear():
    """Outputs scaled down leave a first-order effect alone; the mean is the batch's, token by token."""
    model = zoo.vit_landscape()
    with torch.no_grad():
        for layer in model.vit.layers:
            layer.attention.o_proj.weight.mul_(1e-3)
    images = zoo.pixel_values(model, batch=5)
    change = metrics.head_ablation(model.double(), images.double(), 2, ablation="mean").change
    found = centred_head_contribution(model, images.double(), 2, reference=images.double())
    assert error(found, change.double().numpy()) < 0.01


def test_the_model_is_as_it_was():
    model = zoo.deit_teacher()
    make_uneven(model)
    before = snapshot(model)
    images = zoo.pixel_values(model, batch=2)
    with torch.no_grad():
        centred_head_contribution(model, images, reference=images)
    with pytest.raises(ArgumentError):
        centred_head_contribution(model, images, 99, reference=images)
    assert snapshot(model) == before


def test_references_that_cannot_be_used():
    model = zoo.ijepa()
    images = zoo.pixel_values(model, batch=2)
    for reference, reason in (
        (images[:1], "`reference` must hold several images"),
        (report_of(model), "`reference` must be a report that holds the heads' mean outputs"),
        (report_of(zoo.vit_msn()), "`reference` must be of a IJepaForImageClassification; got those of"),
    ):
        with pytest.raises(ArgumentError, match=reason):
            centred_head_contribution(model, images, reference=reference)
    with pytest.raises(
        ArgumentTypeError, match="`reference` must be a HeadImportanceReport, its repo id or its folder"
    ):
        centred_head_contribution(model, images, reference=3)
