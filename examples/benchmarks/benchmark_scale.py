"""The figures that the cost of a large survey is worked out from: what a GPU scores, a core reads, and a report keeps.

python examples/benchmarks/benchmark_scale.py rate --device cuda --dtype bfloat16 --batch-size 256
python examples/benchmarks/benchmark_scale.py reading FOLDER    # JPEGs that a core opens and processes
python examples/benchmarks/benchmark_scale.py kept              # bytes of a report and of a checkpoint
python examples/benchmarks/benchmark_scale.py merging           # what gmar-hf merge takes
python examples/benchmarks/benchmark_scale.py listing           # memory for the names of a folder's files

Rates are of seconds of the processor, of one thread, on a CPU; of the GPU's own events on a GPU.
"""

import resource
import statistics
import tempfile
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import torch
import transformers
import typer
from candidates import SHAPES, DeviceOption, Dtype, make_images, make_model
from timing import by, by_cuda_events, paired

from gmar_hf.data.opening import open_data
from gmar_hf.report.head_importance_report import HeadImportanceReport
from gmar_hf.report.head_means import HeadMeans
from gmar_hf.report.moments import Moments
from gmar_hf.report.statistics import KEYS, OUTCOMES
from gmar_hf.surveys.scoring import score_heads
from gmar_hf.surveys.survey_checkpoint import Part

app = typer.Typer(add_completion=False, help=__doc__)
by_processor = by(time.process_time)
Shape = StrEnum("Shape", {name: name for name in SHAPES})
_NUM_CLASSES, _LAYERS, _HEADS, _HEAD_DIM = 1000, 12, 12, 64  # of a ViT-B/16


@app.command()
def rate(
    batch_size: int = 4,
    image_size: int = 224,
    rounds: int = 5,
    shape: Annotated[Shape, typer.Option("--model", help="Which shape.")] = Shape["vit-b"],
    device: DeviceOption = "cpu",
    dtype: Annotated[Dtype, typer.Option(help="Of weights and images.")] = Dtype["float32"],
) -> None:
    """Images a second whose heads a survey scores, reading left out."""
    torch.set_num_threads(1)
    model = make_model(image_size, shape, device, dtype)
    pixel_values = make_images(model, batch_size)
    timer = by_cuda_events if device.startswith("cuda") else by_processor
    seconds = statistics.median(paired(rounds, timer, scoring=lambda: score_heads(model, pixel_values))["scoring"])
    typer.echo(f"{shape}, {dtype}, {device}: {batch_size / seconds:.2f} images a second")


@app.command()
def reading(folder: Path, repeats: int = 20) -> None:
    """Images a second that one core opens, resizes to 224 pixels and normalises; and how large the files are."""
    torch.set_num_threads(1)
    data, processor = open_data(folder, {}, use_labels=False), transformers.ViTImageProcessor()

    def read() -> None:
        for index in range(len(data)):
            processor(images=[data.read(index).image], return_tensors="pt")

    seconds = statistics.median(paired(repeats, by_processor, reading=read)["reading"])
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png")]
    typer.echo(f"{len(data) / seconds:.1f} images a second and core; files of {statistics.mean(sizes) / 1024:.0f} KiB")


@app.command()
def kept() -> None:
    """Bytes of a report's folder and of a checkpoint, of a ViT-B/16 with 1000 classes, all of which were met."""
    with tempfile.TemporaryDirectory() as folder:
        moments, means = _moments(), _means()
        _report(moments, means, 0).save_pretrained(f"{folder}/report")
        Part(settings={}, moments=moments, means=means).save(Path(folder, "rank-00000.safetensors"))
        report = sum(path.stat().st_size for path in Path(folder, "report").iterdir())
        checkpoint = Path(folder, "rank-00000.safetensors").stat().st_size
    typer.echo(f"report {report / 2**20:.1f} MiB, checkpoint {checkpoint / 2**20:.1f} MiB")


@app.command()
def merging(count: int = 10) -> None:
    """Seconds of the processor for each report that is loaded and merged, of the same size."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(count):
            _report(_moments(), _means(), number).save_pretrained(f"{folder}/{number}")

        def merge() -> None:
            merged = HeadImportanceReport.from_pretrained(f"{folder}/0")
            for number in range(1, count):
                merged = merged.merge(HeadImportanceReport.from_pretrained(f"{folder}/{number}"))

        (seconds,) = paired(1, by_processor, merging=merge)["merging"]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    typer.echo(f"{seconds / count:.2f} s for each of {count} reports; peak of the process {peak:.2f} GiB")


@app.command()
def listing(count: Annotated[int, typer.Option(help="Files, empty ones.")] = 100_000) -> None:
    """Memory that a process takes for each file of a folder of images, before it reads one."""
    with tempfile.TemporaryDirectory() as folder:
        for number in range(count):
            Path(folder, f"{number:012}.jpg").touch()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        data = open_data(folder, {}, use_labels=False)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        typer.echo(f"{(peak - before) * 1024 / len(data):.0f} bytes a file, of {len(data):,} files")


def _moments() -> Moments:
    shape = (len(KEYS), _LAYERS, _HEADS)
    num_groups = _NUM_CLASSES * len(OUTCOMES)
    moments = Moments.empty(num_groups, shape)
    values = torch.rand(2 * num_groups, *shape, generator=torch.Generator().manual_seed(0))
    moments.add(values, torch.arange(num_groups).repeat(2))
    return moments


def _means() -> HeadMeans:
    zeros = torch.zeros(_LAYERS, _HEADS, 2, _HEAD_DIM, dtype=torch.float64)
    return HeadMeans(2 * _NUM_CLASSES * len(OUTCOMES), zeros, zeros.clone())


def _report(moments: Moments, means: HeadMeans, number: int) -> HeadImportanceReport:
    num_each = 2 * _NUM_CLASSES
    settings = {
        "model": dict(
            {"id": "a/vit", "is_local": False, "revision": None, "commit": None, "class": "ViTForImageClassification"},
            num_layers=_LAYERS, num_heads=_HEADS, dtype="float32", attention="sdpa",
            labels=[f"label {index}" for index in range(_NUM_CLASSES)],
        ),
        "datasets": [
            dict(id="a/data", is_local=False, revision=None, split=None, num_images=None, fingerprint=str(number))
        ],
        "target": "predicted",
        "survey": dict(batch_size=32, limit=None, shuffle_seed=None, until_stable=None, max_unreadable=0.01),
        "counts": dict(
            num_images=3 * num_each, num_explanations=3 * num_each, num_correct=num_each, num_wrong=num_each,
            num_unlabelled=num_each, num_unreadable=0,
        ),
        "unreadable": [], "stability": None, "license": None, "versions": {}, "date": "2026-11-27T00:00:00+00:00",
    }  # fmt: skip
    return HeadImportanceReport(moments, torch.zeros(16), settings, means)


if __name__ == "__main__":
    app()
