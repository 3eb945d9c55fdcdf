"""What a survey costs beside the explanations it is made of, as ratios taken in one run.

python examples/benchmarks/benchmark_survey.py overhead    # survey over a bare loop of explain on preloaded batches
python examples/benchmarks/benchmark_survey.py processes   # two processes of one thread beside one
python examples/benchmarks/benchmark_survey.py memory      # peaks at 1,000 and 10,000 images
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import time

import torch
import typer
from candidates import make_model
from timing import by, paired, ratios
from torch.utils.data import Dataset

import gmar_hf
from gmar_hf.runs.processes import joined

app = typer.Typer(add_completion=False, help=__doc__)
POOL = 200  # scenes that come again and again


class Scenes(Dataset):
    """So many scenes for the demo models; no more are held in memory than the pool."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.pool = gmar_hf.demo.scenes(min(length, POOL))

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict:
        return self.pool[index % len(self.pool)]


class Pixels(Dataset):
    """Images that the processor has seen already."""

    def __init__(self, pixel_values: torch.Tensor) -> None:
        self.pixel_values = pixel_values

    def __len__(self) -> int:
        return len(self.pixel_values)

    def __getitem__(self, index: int) -> dict:
        return {"pixel_values": self.pixel_values[index], "label": index % 5}


@app.command()
def overhead(rounds: int = 5, vit_base: bool = True) -> None:
    """The survey beside a bare loop of `explain(..., return_maps=False)` on batches that lie in memory.

    In seconds of the processor, of one thread: what else the machine does counts less.
    """
    torch.set_num_threads(1)
    if vit_base:
        model, batch_size, num_images, size = make_model(), 4, 12, 224
    else:
        model, batch_size, num_images, size = gmar_hf.demo.load("vit")[0], 32, 640, 64
    data = Pixels(torch.randn(num_images, 3, size, size, generator=torch.Generator().manual_seed(0)))
    preloaded = data.pixel_values.split(batch_size)

    def bare(norm: str) -> None:
        for pixel_values in preloaded:
            gmar_hf.explain(model, pixel_values, norm=norm, return_maps=False)

    seconds = paired(
        rounds,
        by(time.process_time),
        loop=lambda: bare("l1"),
        survey=lambda: gmar_hf.survey(model, data, batch_size=batch_size),
    )
    found = ratios(seconds, "survey", "loop")
    name = "ViT-B/16" if vit_base else "demo ViT"
    typer.echo(
        f"{name}, {num_images} images: survey {statistics.median(found):.3f} x loop "
        f"(rounds {', '.join(f'{ratio:.3f}' for ratio in found)})"
    )


@app.command()
def processes(num_images: int = 3000, rounds: int = 3) -> None:
    """Images per second of two processes of one thread beside one process of one thread, start-up left out."""
    speeds = images_a_second(num_images, rounds)
    for one, two in speeds:
        typer.echo(f"one process {one:.0f} images/s, two {two:.0f}: {two / one:.2f} times")
    typer.echo(f"median {statistics.median(two / one for one, two in speeds):.2f} times")


def images_a_second(num_images: int, rounds: int) -> list[tuple[float, float]]:
    """Images a second of one process and of two, of one thread each, in every round."""
    return [
        (num_images / _work(num_images, 1)["seconds"], num_images / _work(num_images, 2)["seconds"])
        for _ in range(rounds)
    ]


@app.command()
def memory() -> None:
    """Peak memory of the whole process after surveys of two lengths."""
    for num_images in (1000, 10_000):
        typer.echo(f"{num_images:6} images: peak {_work(num_images, 1)['peak']:.0f} MiB")


@app.command(hidden=True)
def work(num_images: int) -> None:
    """One process of a survey of scenes; the first prints what it took."""
    torch.set_num_threads(1)
    accelerator = joined(None)
    model, image_processor = gmar_hf.demo.load("vit")
    data = Scenes(num_images)
    gmar_hf.survey(model, Scenes(64), image_processor, accelerator=accelerator)
    accelerator.wait_for_everyone()
    begin = time.perf_counter()
    gmar_hf.survey(model, data, image_processor, accelerator=accelerator)
    seconds = time.perf_counter() - begin
    if accelerator.is_main_process:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
        typer.echo(json.dumps({"seconds": seconds, "peak": peak}))
    accelerator.end_training()


def _work(num_images: int, count: int) -> dict[str, float]:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(count)] if count > 1 else []
    done = subprocess.run(
        [sys.executable, *launcher, __file__, "work", str(num_images)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    app()
