"""What parts of an explanation cost, and what half precision does to head scores, as ratios taken in one run.

    python examples/benchmarks/benchmark.py targets    # five targets in one call, paired with the floor
    python examples/benchmarks/benchmark.py weights    # with a report's head weights, beside a no-grad forward
    python examples/benchmarks/benchmark.py precision  # head scores in half precision beside float32

What every method costs is in costs.md, written by costs.py; benchmark_gpu.py takes it on a GPU.
"""

import statistics
import time
from functools import partial
from typing import Annotated

import torch
import typer
from candidates import FLOOR, FORWARD, floor, forward, make_images, make_model
from timing import Seconds, by, paired, ratio

import gmar_hf

app = typer.Typer(add_completion=False, help=__doc__)
Threads = Annotated[int, typer.Option(help="Threads of torch.")]


def report(seconds: Seconds, base: str) -> None:
    """Print each candidate's median of the paired ratios to `base`."""
    for name, values in seconds.items():
        typer.echo(f"{name:50} {statistics.median(values):8.3f} s   {ratio(seconds, name, base):6.3f} x {base}")


@app.command()
def targets(count: int = 5, batch_size: int = 8, rounds: int = 7) -> None:
    """Several targets of one batch in one call, beside one forward and as many bare backwards on its graph."""
    model = make_model()
    pixel_values, wanted = make_images(model, batch_size), torch.arange(count).expand(batch_size, -1)
    seconds = paired(
        rounds,
        **{
            FLOOR: partial(floor, model, pixel_values, count),
            f"explain, {count} targets": partial(gmar_hf.explain, model, pixel_values, wanted),
        },
    )
    report(seconds, FLOOR)


@app.command()
def weights(batch_size: int = 8, rounds: int = 5, threads: Threads = 2) -> None:
    """The map with head weights from a report, and with the gradient's, beside one no-grad forward."""
    torch.set_num_threads(threads)
    model = make_model()
    pixel_values = make_images(model, batch_size)
    head_report = gmar_hf.survey(model, [{"pixel_values": row} for row in pixel_values], batch_size=batch_size)
    seconds = paired(
        rounds,
        by(time.process_time),
        **{
            FORWARD: partial(forward, model, pixel_values),
            "gmar, weights of a report": partial(gmar_hf.explain, model, pixel_values, head_weights=head_report),
            "gmar, weights of the gradient": partial(gmar_hf.explain, model, pixel_values),
        },
    )
    report(seconds, FORWARD)


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
