"""What insertion and deletion cost, beside one forward for every perturbation and image.

    python examples/benchmarks/benchmark_metrics.py
    python examples/benchmarks/benchmark_metrics.py --threads 2 --batch-size 64

The images are scenes of the demo, the model is the demo ViT, the maps are its contributions. Both ways score the same
pictures, 16 steps and the two ends of each curve; times are of the processor, which other work on the machine disturbs
least, and a ratio is the median of those of the rounds.
"""

import statistics
import time
from collections.abc import Callable
from typing import Annotated

import torch
import typer
from torch import Tensor
from transformers import PreTrainedModel

import gmar_hf
from gmar_hf import demo, metrics

NUM_STEPS = 16

app = typer.Typer(add_completion=False, help=__doc__)


def one_by_one(model: PreTrainedModel, pixel_values: Tensor, target: Tensor, attribution: Tensor) -> Tensor:
    """Insertion minus deletion (batch,), with a forward of its own for every picture."""
    filling = metrics.baseline_pixels(pixel_values, "blur")
    rows, cols = attribution.shape[1:]
    patch = pixel_values.shape[-2] // rows, pixel_values.shape[-1] // cols
    differences = []
    for image, filled, wanted, values in zip(pixel_values, filling, target, attribution, strict=True):
        rank = values.flatten().argsort(descending=True, stable=True).argsort().view(rows, cols)
        rank = rank.repeat_interleave(patch[0], 0).repeat_interleave(patch[1], 1)
        heights = []
        for start, end in ((filled, image), (image, filled)):
            scores = []
            for step in range(NUM_STEPS + 1):
                picture = torch.where(rank < step * rows * cols // NUM_STEPS, end, start)
                with torch.no_grad():
                    scores.append(model(pixel_values=picture[None]).logits[0, wanted].sigmoid())
            heights.append(torch.trapezoid(torch.stack(scores)) / NUM_STEPS)
        differences.append(heights[0] - heights[1])
    return torch.stack(differences)


def seconds(candidate: Callable[[], object]) -> float:
    begin = time.process_time()
    candidate()
    return time.process_time() - begin


@app.command(help=__doc__)
def main(
    batch_size: Annotated[int, typer.Option(min=1, help="Images.")] = 32,
    rounds: Annotated[int, typer.Option(min=1, help="Times that everything is measured.")] = 5,
    threads: Annotated[int, typer.Option(min=1, help="Threads of torch.")] = 1,
    max_rows: Annotated[int, typer.Option(min=1, help="Pictures of one forward, the batch once at least.")] = 256,
) -> None:
    torch.set_num_threads(threads)
    model, image_processor = demo.load("vit")
    scenes = demo.scenes(batch_size)
    pixel_values = image_processor([scene["image"] for scene in scenes], return_tensors="pt").pixel_values
    target = torch.tensor([scene["labels"][0] for scene in scenes])
    attribution = gmar_hf.explain(model, pixel_values, target, method="contribution").attribution
    score = metrics.score_function(model, target, "sigmoid")
    arguments = score, pixel_values, attribution
    options = {"num_steps": NUM_STEPS, "max_rows": max_rows}

    def picture_by_picture() -> Tensor:
        return one_by_one(model, pixel_values, target, attribution)

    def separately() -> Tensor:
        return metrics.insertion(*arguments, **options).auc - metrics.deletion(*arguments, **options).auc

    def together() -> Tensor:
        return metrics.insertion_minus_deletion(*arguments, **options)

    candidates = {
        "one forward a picture": picture_by_picture,
        "insertion and deletion": separately,
        "their difference": together,
    }
    found = [candidate() for candidate in candidates.values()]
    for values in found[1:]:
        torch.testing.assert_close(values, found[0], atol=1e-4, rtol=0)
    taken: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, candidate in candidates.items():
            taken[name].append(seconds(candidate))
    for name, values in taken.items():
        pairs = zip(taken["one forward a picture"], values, strict=True)
        ratio = statistics.median(slow / fast for slow, fast in pairs)
        typer.echo(f"{name:24} {statistics.median(values):7.2f} s   {ratio:5.2f} times as fast")


if __name__ == "__main__":
    app()
