"""What an explanation costs, as ratios taken in one run.

    python examples/benchmarks/benchmark.py            # cost of a batch, paired with the floor
    python examples/benchmarks/benchmark.py targets    # five targets in one call
    python examples/benchmarks/benchmark.py weights    # with a report's head weights, beside a no-grad forward
    python examples/benchmarks/benchmark.py memory     # peak memory of one 1024 px image, in a process of its own
    python examples/benchmarks/benchmark.py precision  # head scores in half precision beside float32

On a GPU, timed by events of CUDA (benchmark_gpu.py goes through models, sizes, batches and precisions in one run):

    python examples/benchmarks/benchmark.py --device cuda --dtype bfloat16 --model vit-l --image-size 512

The floor is one SDPA forward and one backward for activations only of the same batch, in bare torch. The models are
ViTs with patches of 16 pixels and random weights: costs do not depend on what they learned.
"""

import statistics
import time
from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, Any

import torch
import transformers
import typer
from timing import by, paired, peak_of, timer_of

import gmar_hf

app = typer.Typer(add_completion=False, help=__doc__, invoke_without_command=True)
Threads = Annotated[int, typer.Option(help="Threads of torch.")]


# Layers, heads, width and the MLP's width; the last one only shows that a script runs.
SHAPES = {
    "vit-s": (12, 6, 384, 1536),
    "vit-b": (12, 12, 768, 3072),
    "vit-l": (24, 16, 1024, 4096),
    "tiny": (2, 2, 8, 16),
}
Model = StrEnum("Model", {name: name for name in SHAPES})
Dtype = StrEnum("Dtype", {name: name for name in ("float32", "bfloat16", "float16")})
ModelOption = Annotated[Model, typer.Option("--model", help="Which shape.")]
DeviceOption = Annotated[str, typer.Option(help="cpu, cuda or cuda:1.")]
DtypeOption = Annotated[Dtype, typer.Option(help="Of weights and images.")]


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


def candidates_of(model: torch.nn.Module, pixel_values: torch.Tensor) -> dict[str, Callable[[], Any]]:
    """What is timed: the floor and a forward without a graph first, then every method."""

    @torch.no_grad()
    def forward() -> None:
        model(pixel_values=pixel_values)

    return {
        "floor": lambda: floor(model, pixel_values),
        "forward": forward,
        "gmar, L1, map": lambda: gmar_hf.explain(model, pixel_values),
        "gmar, L2, map": lambda: gmar_hf.explain(model, pixel_values, norm="l2"),
        "contribution, map": lambda: gmar_hf.explain(model, pixel_values, method="contribution"),
        "removal, map": lambda: gmar_hf.explain(model, pixel_values, method="removal"),
        "path, two points, map": lambda: gmar_hf.explain(model, pixel_values, 0, method="path", return_logits=False),
        "recommended, with logits and gap": lambda: gmar_hf.explain(model, pixel_values, method="recommended"),
        "gradient-rollout": lambda: gmar_hf.explain(model, pixel_values, method="gradient-rollout"),
        "gmar, contribution, removal, both rollouts at once": lambda: gmar_hf.explain(
            model, pixel_values, method=["gmar", "contribution", "removal", "gradient-rollout", "rollout"]
        ),
        "rollout": lambda: gmar_hf.explain(model, pixel_values, method="rollout"),
    }


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


def explicit_loop(model: torch.nn.Module, pixel_values: torch.Tensor) -> None:
    """How it is done elsewhere: image by image, explicit attention, its gradient, the full rollout matrix."""
    for image in pixel_values.split(1):
        with gmar_hf.retain_attention(model) as attentions:
            logits = model(pixel_values=image).logits
            logits.max(dim=-1).values.sum().backward()
        rollout = torch.eye(attentions[0].shape[-1]).to(attentions[0])
        for attention in attentions:
            weights = attention.grad.abs().sum(dim=(2, 3), keepdim=True)
            fused = (attention.detach() * weights / weights.sum(dim=1, keepdim=True)).sum(dim=1)
            rollout = (fused + torch.eye(fused.shape[-1]).to(fused)) / 2 @ rollout


def report(seconds: dict[str, list[float]], base: str) -> None:
    """Print each candidate's median of the paired ratios to `base`."""
    for name, values in seconds.items():
        ratio = statistics.median(value / floor for value, floor in zip(values, seconds[base], strict=True))
        typer.echo(f"{name:50} {statistics.median(values):8.3f} s   {ratio:6.3f} x {base}")


@app.callback(invoke_without_command=True)
def cost(
    context: typer.Context,
    batch_size: int = 8,
    image_size: int = 224,
    rounds: int = 15,
    threads: Threads = 2,
    model_name: ModelOption = Model["vit-b"],
    device: DeviceOption = "cpu",
    dtype: DtypeOption = Dtype.float32,
) -> None:
    """Cost of explaining a batch, beside the floor, a no-grad forward and a per-image loop with explicit attention."""
    torch.set_num_threads(threads)
    if context.invoked_subcommand:
        return
    model = make_model(image_size, model_name, device, dtype)
    pixel_values = make_images(model, batch_size)
    timer = timer_of(device)
    seconds = paired(rounds, timer, **candidates_of(model, pixel_values))
    report(seconds, "floor")
    typer.echo("")
    report({name: values for name, values in seconds.items() if name != "floor"}, "forward")
    loop = paired(
        2, timer, floor=lambda: floor(model, pixel_values), explicit=lambda: explicit_loop(model, pixel_values)
    )
    typer.echo("\nper-image loop, explicit attention:")
    report(loop, "floor")


@app.command()
def targets(count: int = 5, batch_size: int = 8, rounds: int = 7) -> None:
    """Several targets of one batch in one call, beside one forward and as many bare backwards on its graph."""
    model, pixel_values = make_model(), torch.randn(batch_size, 3, 224, 224)
    wanted = torch.arange(count).expand(batch_size, -1)
    seconds = paired(
        rounds,
        floor=lambda: floor(model, pixel_values, count),
        **{f"explain, {count} targets": lambda: gmar_hf.explain(model, pixel_values, wanted)},
    )
    report(seconds, "floor")


@app.command()
def weights(batch_size: int = 8, rounds: int = 5, threads: Threads = 2) -> None:
    """The map with head weights from a report, and with the gradient's, beside one no-grad forward."""
    torch.set_num_threads(threads)
    model, pixel_values = make_model(), torch.randn(batch_size, 3, 224, 224)
    head_report = gmar_hf.survey(model, [{"pixel_values": row} for row in pixel_values], batch_size=batch_size)

    @torch.no_grad()
    def forward() -> None:
        model(pixel_values=pixel_values)

    seconds = paired(
        rounds,
        by(time.process_time),
        forward=forward,
        **{
            "gmar, weights of a report": lambda: gmar_hf.explain(model, pixel_values, head_weights=head_report),
            "gmar, weights of the gradient": lambda: gmar_hf.explain(model, pixel_values),
        },
    )
    report(seconds, "forward")


@app.command()
def memory(
    image_size: int = 1024,
    method: str = "gmar",
    batch_size: int = 1,
    model_name: ModelOption = Model["vit-b"],
    device: DeviceOption = "cpu",
    dtype: DtypeOption = Dtype.float32,
) -> None:
    """Peak memory of this whole process, or of the GPU, in explaining large images."""
    model = make_model(image_size, model_name, device, dtype)
    pixel_values = make_images(model, batch_size)
    before = peak_of(lambda: None, device)
    tokens = (image_size // model.config.patch_size) ** 2 + 1
    peak = peak_of(lambda: gmar_hf.explain(model, pixel_values, method=method), device)
    typer.echo(
        f"{model_name}, {dtype}, {device}: {batch_size} x {image_size} px, {tokens} tokens, {method}: peak {peak:.2f} "
        f"GiB ({before:.2f} GiB before explaining)"
    )


@app.command()
def precision(num_scenes: int = 200, seed: int = 0) -> None:
    """Half precision on the trained demo ViT: Spearman correlation of an image's 48 head scores with float32's."""
    model, image_processor = gmar_hf.demo.load("vit")
    scenes = gmar_hf.demo.scenes(num_scenes, seed=seed)
    pixel_values = image_processor([scene["image"] for scene in scenes], return_tensors="pt")["pixel_values"]
    target = torch.tensor([scene["labels"][0] for scene in scenes])
    for norm in ("l1", "l2"):
        exact = gmar_hf.explain(model.float(), pixel_values, target, norm=norm, return_maps=False).head_score
        for dtype in (torch.bfloat16, torch.float16):
            half = gmar_hf.explain(model.to(dtype), pixel_values, target, norm=norm, return_maps=False).head_score
            found = spearman(exact.flatten(1), half.flatten(1))
            underflown = int((half == 0).sum())
            typer.echo(
                f"{norm} {str(dtype).removeprefix('torch.'):9} Spearman mean {found.mean():.4f}, "
                f"lowest {found.min():.4f}; "
                f"{underflown} of {half.numel()} scores are zero"
            )
            model = gmar_hf.demo.load("vit")[0]


def spearman(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Rank correlation of each row (rows, numbers) with the same row of the other."""
    ranks = torch.stack([one, other]).argsort(dim=-1).argsort(dim=-1).double()
    ranks -= ranks.mean(dim=-1, keepdim=True)
    return (ranks[0] * ranks[1]).sum(dim=-1) / (ranks[0].norm(dim=-1) * ranks[1].norm(dim=-1))


if __name__ == "__main__":
    app()
