"""What the benchmarks time: ViTs, the floor, a forward without a graph, and every method of `gmar_hf.explain`.

The floor is one SDPA forward and one backward for activations only of the same batch, in bare torch. The models are
ViTs with patches of 16 pixels and random weights: costs do not depend on what they learned.
"""

from collections.abc import Callable
from enum import StrEnum
from functools import partial
from typing import Annotated, Any

import torch
import transformers
import typer

import gmar_hf
from gmar_hf.explanation.methods import METHODS

# Layers, heads, width and the MLP's width; the last one only shows that a script runs.
SHAPES = {
    "vit-s": (12, 6, 384, 1536),
    "vit-b": (12, 12, 768, 3072),
    "vit-l": (24, 16, 1024, 4096),
    "tiny": (2, 2, 8, 16),
}
FLOOR, FORWARD = "floor", "forward"
# Methods of one forward and one backward, or less: they can share both.
SINGLE_PASS = [name for name, method in METHODS.items() if method.num_points is None]

Dtype = StrEnum("Dtype", {name: name for name in ("float32", "bfloat16", "float16")})
DeviceOption = Annotated[str, typer.Option(help="cpu, cuda or cuda:1.")]
Candidates = dict[str, Callable[[], Any]]


def make_model(
    image_size: int = 224, shape: str = "vit-b", device: str = "cpu", dtype: str = "float32"
) -> transformers.ViTForImageClassification:
    torch.manual_seed(0)
    layers, heads, width, mlp = SHAPES[shape]
    config = transformers.ViTConfig(
        image_size=image_size,
        num_labels=1000,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        hidden_size=width,
        intermediate_size=mlp,
    )
    model = transformers.ViTForImageClassification(config).eval().requires_grad_(False)
    return model.to(device, getattr(torch, dtype))


def make_images(model: torch.nn.Module, batch_size: int) -> torch.Tensor:
    """Noise in the size, the precision and on the device of the model."""
    size, weight = model.config.image_size, model.classifier.weight
    return torch.randn(batch_size, 3, size, size, device=weight.device, dtype=weight.dtype)


def candidates_of(model: torch.nn.Module, pixel_values: torch.Tensor) -> Candidates:
    """What is timed: the floor and a forward without a graph first, then every method with its map."""
    explain = partial(gmar_hf.explain, model, pixel_values)
    path = partial(explain, 0, method="path", return_logits=False)
    return {
        FLOOR: lambda: floor(model, pixel_values),
        FORWARD: lambda: forward(model, pixel_values),
        **{named(name): partial(explain, method=name) for name in METHODS},
        "gmar, L2": partial(explain, norm="l2"),
        "path, 2 points alone": path,
        "path, 4 points alone": partial(path, num_points=4),
        f"the {len(SINGLE_PASS)} of one pass, at once": partial(explain, method=SINGLE_PASS),
    }


def is_path(name: str) -> bool:
    """Whether a candidate makes several passes."""
    method = METHODS.get(name.partition(",")[0])
    return method is not None and method.num_points is not None


def named(method: str) -> str:
    """The name of a method as a candidate; the paths make two forwards more, for the logits and for the gap."""
    return method if method in SINGLE_PASS else f"{method}, with logits and gap"


@torch.no_grad()
def forward(model: torch.nn.Module, pixel_values: torch.Tensor) -> None:
    model(pixel_values=pixel_values)


def forward_with_graph(model: torch.nn.Module, pixel_values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits, and the embeddings at which their graph begins: no parameter and no pixel wants a gradient."""
    kept = []

    def begin_graph(module, inputs, output):
        kept.append(output.detach().requires_grad_())
        return kept[0]

    hook = model.vit.embeddings.register_forward_hook(begin_graph)
    try:
        return model(pixel_values=pixel_values).logits, kept[0]
    finally:
        hook.remove()


def floor(model: torch.nn.Module, pixel_values: torch.Tensor, num_targets: int = 1) -> None:
    """One forward, and `num_targets` bare backwards on its graph."""
    logits, start = forward_with_graph(model, pixel_values)
    for target in range(num_targets):
        torch.autograd.grad(logits[:, target].sum(), start, retain_graph=target + 1 < num_targets)
