"""What explanations cost on a GPU, in one run: models, sizes, batches and precisions, as a page of tables.

    python examples/benchmarks/benchmark_gpu.py > gpu.md

Times are those of CUDA's events, as medians of paired ratios to the floor: one SDPA forward and one backward for
activations only of the same batch, in bare torch. Batches double until the memory ends; the options take the page in
pieces. On a machine without a GPU it runs as well (`--device cpu --models tiny --image-sizes 32 --max-batch-size 2`),
only to show that it does.
"""

import statistics
from collections.abc import Iterator
from functools import partial
from typing import Annotated

import torch
import transformers
import typer
from candidates import FLOOR, DeviceOption, candidates_of, make_images, make_model
from timing import Seconds, paired, peak_of, ratio, timer_of

import gmar_hf

_TARGET = 1.15  # times the floor, of gmar with map and L1
_LONG = 1024  # pixels: 4097 tokens
_LONG_METHODS = ("gmar", "contribution", "removal", "recommended")

app = typer.Typer(add_completion=False, help=__doc__)
Words = Annotated[str, typer.Option(help="Between commas.")]


@app.command()
def page(
    models: Words = "vit-b,vit-l",
    image_sizes: Words = "224,512",
    dtypes: Words = "float32,bfloat16",
    device: DeviceOption = "cuda",
    max_batch_size: int = 512,
    rounds: int = 10,
    long: Annotated[bool, typer.Option(help="Also 4097 tokens in batches of 8, with their memory.")] = True,
) -> None:
    """Print the page."""
    typer.echo(f"# What explanations cost on {_machine(device)}\n")
    typer.echo(f"torch {torch.__version__}, transformers {transformers.__version__}, gmar_hf {gmar_hf.__version__}.")
    for model in models.split(","):
        for dtype in dtypes.split(","):
            for image_size in map(int, image_sizes.split(",")):
                _print_table(model, dtype, image_size, device, max_batch_size, rounds)
    if long:
        _print_long(models.split(",")[0], dtypes.split(","), device)


def _machine(device: str) -> str:
    if not device.startswith("cuda"):
        return "a CPU (no measurement: memory is that of the process)"
    return f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}"


def _print_table(name: str, dtype: str, image_size: int, device: str, max_batch_size: int, rounds: int) -> None:
    """Print a table with a row a candidate and a column a batch size."""
    model = make_model(image_size, name, device, dtype)
    columns = dict(_measured(model, device, max_batch_size, rounds))
    if not columns:
        typer.echo(f"\n{name}, {dtype}, {image_size} px: the memory does not suffice for one image.")
        return
    typer.echo(f"\n## {name}, {dtype}, {image_size} px\n")
    typer.echo(f"Times the floor; peak memory in GiB. At most {_TARGET} is the aim of the first method.\n")
    typer.echo(f"| batch | {' | '.join(map(str, columns))} |")
    typer.echo(f"| --- |{' ---: |' * len(columns)}")
    images_a_second = [f"{size / statistics.median(seconds[FLOOR]):.1f}" for size, (seconds, _) in columns.items()]
    typer.echo(f"| floor, images a second | {' | '.join(images_a_second)} |")
    for candidate in next(iter(columns.values()))[0]:
        cells = [
            f"{ratio(seconds, candidate, FLOOR):.2f}, {peaks[candidate]:.2f}" for seconds, peaks in columns.values()
        ]
        typer.echo(f"| {candidate} | {' | '.join(cells)} |")


def _measured(
    model: torch.nn.Module, device: str, max_batch_size: int, rounds: int
) -> Iterator[tuple[int, tuple[Seconds, dict[str, float]]]]:
    """Yield batch size, seconds and peaks, of batches that double until the memory ends."""
    batch_size = 1
    while batch_size <= max_batch_size:
        candidates = candidates_of(model, make_images(model, batch_size))
        try:
            seconds = paired(rounds, timer_of(device), **candidates)
            peaks = {name: peak_of(candidate, device) for name, candidate in candidates.items()}
        except torch.OutOfMemoryError:
            return
        yield batch_size, (seconds, peaks)
        batch_size *= 2


def _print_long(name: str, dtypes: list[str], device: str) -> None:
    """Print the peaks of many tokens; one model at a time is in memory."""
    is_tiny = name == "tiny"
    typer.echo("\n## 4097 tokens, batches of 8\n\nPeak memory in GiB; at most 20 GB are the aim.\n")
    typer.echo(f"| model | {' | '.join(_LONG_METHODS)} |")
    typer.echo(f"| --- |{' ---: |' * len(_LONG_METHODS)}")
    for dtype in dtypes:
        model = make_model(64 if is_tiny else _LONG, name, device, dtype)
        pixel_values = make_images(model, 1 if is_tiny else 8)
        peaks = [peak_of(partial(gmar_hf.explain, model, pixel_values, method=name), device) for name in _LONG_METHODS]
        typer.echo(f"| {name}, {dtype} | {' | '.join(f'{peak:.2f}' for peak in peaks)} |")


if __name__ == "__main__":
    app()
