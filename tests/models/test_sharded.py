"""Models whose weights are spread over processes, or lie on a disk."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
import torch.distributed as dist

import gmar_hf
from gmar_hf.explanation.methods import METHODS
from gmar_hf.models.weight_sample import weight_sample
from tests.helpers import zoo
from tests.helpers.explainers import name_classes, photo
from tests.helpers.sampling import pick
from tests.helpers.survey_processes import PATIENCE, free_port

# Of torch, when it shards for the CPU.
pytestmark = pytest.mark.filterwarnings("ignore:.*(FSDP|FullyShardedDataParallel|cpu).*")

WORK = """
import sys
import torch, torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
import gmar_hf
from tests.helpers import zoo

dist.init_process_group("gloo")
rank, mesh = dist.get_rank(), init_device_mesh("cpu", (2,))
pixels = zoo.pixel_values(zoo.vit())[rank : rank + 1]
for method in sys.argv[1].split():
    expected = gmar_hf.explain(zoo.vit(), pixels, 1, method)
    sharded, replicated = zoo.vit(), torch.nn.parallel.DistributedDataParallel(zoo.vit())
    for layer in sharded.vit.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(sharded, mesh=mesh)
    shares = [parameter.to_local().numel() for parameter in sharded.parameters()]
    assert sum(shares) < 0.6 * sum(parameter.numel() for parameter in sharded.parameters())
    for model in (sharded, replicated):
        out = gmar_hf.explain(model, pixels, 1, method)
        assert all(torch.equal(out.tensors()[name], tensor) for name, tensor in expected.tensors().items())
        assert out.settings == expected.settings
    assert [parameter.to_local().numel() for parameter in sharded.parameters()] == shares
    with torch.no_grad():
        assert torch.equal(sharded(pixel_values=pixels).logits, zoo.vit()(pixel_values=pixels).logits)
dist.destroy_process_group()
"""


@pytest.fixture
def process_group():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.fixture
def sharded(process_group):
    """A model that `fully_shard` has sharded over one process, which has all of it."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (1,))
    model = name_classes(zoo.vit())
    for layer in model.vit.layers:
        fully_shard(layer, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def test_fully_shard(sharded):
    pixels = zoo.pixel_values(zoo.vit())
    expected = gmar_hf.explain(name_classes(zoo.vit()), pixels, 1, "recommended")
    out = gmar_hf.explain(sharded, pixels, 1, "recommended")
    assert type(sharded).__name__ == "FSDPViTForImageClassification"
    assert torch.equal(out.attribution, expected.attribution)
    assert out.settings["model_class"] == "ViTForImageClassification"
    assert all(hasattr(parameter, "full_tensor") for parameter in sharded.parameters())
    assert torch.equal(weight_sample(sharded), weight_sample(zoo.vit()))


@pytest.mark.slow
def test_two_processes():
    """Each explains images of its own, with a sharded and with a replicated model."""
    surroundings = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    root = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", WORK, "gmar recommended"],
            env={**os.environ, **surroundings, "RANK": str(rank), "OMP_NUM_THREADS": "1", "PYTHONPATH": root},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        errors = [process.communicate(timeout=PATIENCE)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert [process.returncode for process in processes] == [0, 0], "\n".join(errors)


def test_a_step_after_an_explanation_reaches_all_weights(sharded):
    """Gathered weights that were kept would be older than those that the optimizer has changed."""
    pixels = zoo.pixel_values(zoo.vit())
    plain = zoo.vit()
    for model in (sharded, plain):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        model(pixel_values=pixels).logits.square().sum().backward()
        gmar_hf.explain(model, pixels, 1, "recommended")
        optimizer.step()
    with torch.no_grad():
        torch.testing.assert_close(sharded(pixel_values=pixels).logits, plain(pixel_values=pixels).logits)


def test_surveys_want_the_whole_model(sharded):
    with pytest.raises(gmar_hf.ArgumentError, match=r"`model` must be whole in every process .* Load it without"):
        gmar_hf.survey(sharded, [{"image": photo()}])


@pytest.mark.parametrize("is_inside", [False, True])
def test_fully_sharded_data_parallel(process_group, is_inside):
    from torch.distributed.fsdp import FullyShardedDataParallel

    model = zoo.vit()
    if is_inside:
        model.vit = FullyShardedDataParallel(model.vit, device_id=torch.device("cpu"))
    else:
        model = FullyShardedDataParallel(model, device_id=torch.device("cpu"))
    for call in (gmar_hf.explain, gmar_hf.describe_heads):
        with pytest.raises(gmar_hf.ArgumentError) as caught:
            call(model, zoo.pixel_values(zoo.vit()), 1)
        assert str(caught.value) == (
            "`model` must not be in FullyShardedDataParallel (whose backwards have weights only in training); got one "
            "that is. Shard it by `fully_shard`, or load its full state dict into a model without wrapper."
        )


@pytest.mark.parametrize("method", pick(METHODS, 2))
def test_weights_on_a_disk(tmp_path, method):
    import accelerate

    pixels = zoo.pixel_values(zoo.vit())
    expected = gmar_hf.explain(zoo.vit(), pixels, 1, method)
    model = zoo.vit()
    accelerate.disk_offload(model, tmp_path, execution_device=torch.device("cpu"))
    assert all(parameter.is_meta for parameter in model.parameters())
    flags = [parameter.requires_grad for parameter in model.parameters()]
    out = gmar_hf.explain(model, pixels, 1, method)
    for name, tensor in expected.tensors().items():  # with sums of all tokens, whose last digit may differ
        torch.testing.assert_close(out.tensors()[name], tensor, atol=1e-6, rtol=1e-5)
    assert all(parameter.is_meta for parameter in model.parameters())
    assert [parameter.requires_grad for parameter in model.parameters()] == flags


@pytest.mark.parametrize(("reentrant", "is_trainable"), pick([(True, True), (False, False), (False, True)], 1))
def test_gradient_checkpointing(reentrant, is_trainable):
    """No layer is computed twice for an explanation, which runs in eval mode."""
    model = zoo.vit().requires_grad_(is_trainable)
    pixels = zoo.pixel_values(model)
    expected = {method: gmar_hf.explain(model, pixels, 1, method).attribution for method in METHODS}
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": reentrant})
    calls = []
    model.vit.layers[1].register_forward_pre_hook(lambda *_: calls.append(1))
    model.train()
    for method in METHODS:
        before = len(calls)
        assert torch.equal(gmar_hf.explain(model, pixels, 1, method).attribution, expected[method])
        assert len(calls) - before <= (1 if method not in ("path", "recommended") else 4)
    assert model.training
