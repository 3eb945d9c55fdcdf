"""What an evaluation costs beside the forwards that it makes, on a ViT with random weights and images of noise.

    python examples/benchmarks/benchmark_evaluate.py                    # 100 images by ViT-B: hours on a CPU
    python examples/benchmarks/benchmark_evaluate.py --num-images 8 --num-steps 4

Six maps, insertion minus deletion under three fillings. The forwards are those that `evaluate` announces: a backward
counts as one. Beside them stand forwards of the same model without anything, of 8 images each, before and after the
evaluation. Times are of the processor, which other work on the machine disturbs least.
"""

import statistics
import time
from typing import Annotated

import torch
import typer
from candidates import forward, make_images, make_model
from timing import by

from gmar_hf.evaluation import Evaluation, evaluate, find_map_methods
from gmar_hf.evaluation.costs import forwards_of_class
from gmar_hf.evaluation.rows_and_columns import Metric

METHODS = ("recommended", "contribution", "removal", "gradient-rollout", "gmar-l1", "rollout")
METRIC, BASELINES = "insertion_minus_deletion", ("blur", "zero", "other")
BATCH = 8

app = typer.Typer(add_completion=False)


@app.command(help=__doc__)
def main(
    model: Annotated[str, typer.Option(help="vit-s, vit-b or vit-l, or tiny.")] = "vit-b",
    image_size: Annotated[int, typer.Option(help="Pixels a side.")] = 224,
    num_images: Annotated[int, typer.Option(min=2, help="Images.")] = 100,
    num_steps: Annotated[int, typer.Option(min=1, help="Steps of insertion and deletion.")] = 16,
    rounds: Annotated[int, typer.Option(min=1, help="Bare forwards before, and after.")] = 4,
    threads: Annotated[int, typer.Option(min=1, help="Threads of torch.")] = 1,
) -> None:
    torch.set_num_threads(threads)
    timed = by(time.process_time)
    classifier = make_model(image_size, model)
    images = make_images(classifier, num_images)
    columns = [Metric(f"{METRIC}_{name}", METRIC, name, True) for name in BASELINES]
    num_patches = (image_size // classifier.config.patch_size) ** 2
    of_maps, of_figures = forwards_of_class(
        find_map_methods(METHODS), columns, num_steps=num_steps, num_patches=num_patches
    )
    num_forwards = num_images * (1 + of_maps + of_figures)  # the first tells the class

    def evaluated() -> Evaluation:
        return evaluate(
            classifier, [{"pixel_values": image} for image in images], methods=METHODS, metrics=[METRIC],
            baselines=BASELINES, num_steps=num_steps, batch_size=BATCH,
        )  # fmt: skip

    batch = make_images(classifier, BATCH)
    forward(classifier, batch)
    bare = [timed(lambda: forward(classifier, batch)) / BATCH for _ in range(rounds)]
    seconds = timed(evaluated)
    bare += [timed(lambda: forward(classifier, batch)) / BATCH for _ in range(rounds)]
    each = statistics.median(bare)
    typer.echo(
        f"{num_images} images, {len(METHODS)} maps, {len(BASELINES)} fillings: {seconds:.1f} s for "
        f"{num_forwards:,.0f} forwards of {each * 1000:.0f} ms ({min(bare) * 1000:.0f} to {max(bare) * 1000:.0f}): "
        f"{seconds / (num_forwards * each):.2f} times its forwards"
    )


if __name__ == "__main__":
    app()
