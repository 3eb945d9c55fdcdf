"""A few weights by which a model is known again, wherever its weights are."""

import copy

import accelerate
import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from gmar_hf.models.weight_sample import same_weights, weight_sample
from tests.helpers import zoo


@pytest.mark.parametrize("offload", ["cpu", "disk"])
def test_offloaded_weights_are_read_where_they_are(tmp_path, offload):
    model, other = zoo.vit(), zoo.vit()
    zoo.perturb(other, seed=5, std=0.1)
    in_memory, of_other = weight_sample(model), weight_sample(other)
    assert not same_weights(in_memory, of_other)
    if offload == "cpu":
        accelerate.cpu_offload(model, execution_device=torch.device("cpu"))
    else:
        accelerate.disk_offload(model, tmp_path, execution_device=torch.device("cpu"))
    assert any(parameter.is_meta for parameter in model.parameters())
    assert torch.equal(weight_sample(model), in_memory)
    assert any(parameter.is_meta for parameter in model.parameters())  # and offloaded again


def pruned_columns(model):
    """A head of the first layer is out for good: its columns of the output projection are zero."""
    projection = model.vit.layers[0].attention.o_proj.weight
    width = projection.shape[1] // model.config.num_attention_heads
    with torch.no_grad():
        projection[:, width : 2 * width] = 0


def mask_in_a_buffer(model):
    projection = model.vit.layers[0].attention.o_proj
    mask = torch.ones_like(projection.weight)
    mask[:, :3] = 0
    prune.custom_from_mask(projection, "weight", mask)


def other_statistics(model):
    model.classifier[0].running_var.mul_(2)


@pytest.mark.parametrize("change", [pruned_columns, mask_in_a_buffer, other_statistics])
def test_what_no_single_weight_tells(change):
    """The same in half precision is the same model; with a head, a mask or statistics that are others it is not."""
    model = zoo.vit()
    width = model.classifier.in_features
    model.classifier = nn.Sequential(nn.BatchNorm1d(width), model.classifier).eval()
    if change is mask_in_a_buffer:
        prune.custom_from_mask(model.vit.layers[0].attention.o_proj, "weight", torch.ones(width, width))
    before = weight_sample(model)
    assert before.isfinite().all()
    if change is not mask_in_a_buffer:  # torch does not copy such a model
        assert same_weights(before, weight_sample(copy.deepcopy(model).bfloat16()))
        assert same_weights(before, weight_sample(copy.deepcopy(model).double()), relative=1e-5)
    change(model)
    assert not same_weights(before, weight_sample(model))
