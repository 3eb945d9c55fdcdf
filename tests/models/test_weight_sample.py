"""A few weights by which a model is known again, wherever its weights are."""

import accelerate
import pytest
import torch

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
