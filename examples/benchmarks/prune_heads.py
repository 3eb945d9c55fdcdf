"""How much of a demo model can be silenced before it fails, by which order of its heads.

    python examples/benchmarks/prune_heads.py              # the ViT: table, and prune-heads-vit.png
    python examples/benchmarks/prune_heads.py --model beit

A report over scenes of one seed ranks the heads; the least important are silenced first, by each ranking, and average
precision is measured on scenes of another seed. Heads are silenced by `gmar_hf.silence_heads`, as transformers 5 has
no `head_mask`; on another model, `report.prunable_heads(ratio)` gives the heads of the first ranking.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from matplotlib.figure import Figure
from train_demo_models import average_precision

import gmar_hf
from gmar_hf.demo.scene import LABELS

RANKINGS = ("contribution_abs", "l1", "l2")
SURVEY_SEED, TEST_SEED = 1, 2
Head = tuple[int, int]


def rankings(report: gmar_hf.HeadImportanceReport, num_random: int) -> dict[str, list[list[Head]]]:
    """Orders of all heads, least important first, by name; of the random order there are several."""
    layers, heads = report.mean["l1"].shape
    found = {name: [[head[:2] for head in report.top_heads(layers * heads, score=name)][::-1]] for name in RANKINGS}
    everyone = [(layer, head) for layer in range(layers) for head in range(heads)]
    generator = np.random.default_rng(0)
    found["random"] = [[everyone[i] for i in generator.permutation(len(everyone))] for _ in range(num_random)]
    return found


@torch.no_grad()
def macro_precision(
    model: torch.nn.Module, pixel_values: torch.Tensor, truth: np.ndarray, silent: Sequence[Head]
) -> float:
    """Average precision over the classes, without the silent heads."""
    with gmar_hf.silence_heads(model, silent):
        scores = torch.cat([model(pixel_values=part).logits for part in pixel_values.split(100)]).numpy()
    return float(np.mean([average_precision(scores[:, label], truth[:, label]) for label in range(truth.shape[1])]))


def main(
    model: Annotated[str, typer.Option(help="vit, deit or beit.")] = "vit",
    num_survey: Annotated[int, typer.Option(help="Scenes that the report is made of.")] = 500,
    num_test: Annotated[int, typer.Option(help="Scenes that precision is measured on.")] = 500,
    num_random: Annotated[int, typer.Option(help="Random orders to average over.")] = 5,
    num_steps: Annotated[int, typer.Option(help="Shares of silenced heads between none and all.")] = 8,
    out: Annotated[Path | None, typer.Option(help="The figure; by default prune-heads-MODEL.png.")] = None,
) -> None:
    """Print average precision against the share of silenced heads, and draw it."""
    classifier, image_processor = gmar_hf.demo.load(model)
    report = gmar_hf.survey(classifier, gmar_hf.demo.scenes(num_survey, seed=SURVEY_SEED), image_processor)
    scenes = gmar_hf.demo.scenes(num_test, seed=TEST_SEED)
    pixel_values = image_processor([scene["image"] for scene in scenes], return_tensors="pt")["pixel_values"]
    truth = np.array([[label in scene["labels"] for label in range(len(LABELS))] for scene in scenes])

    orders = rankings(report, num_random)
    num_heads = len(orders["random"][0])
    counts = [num_heads * step // num_steps for step in range(num_steps + 1)]
    curves = {
        name: [
            float(np.mean([macro_precision(classifier, pixel_values, truth, order[:count]) for order in several]))
            for count in counts
        ]
        for name, several in orders.items()
    }
    typer.echo(f"{model}: macro average precision on {num_test} scenes, by share of silenced heads")
    typer.echo("| silenced | " + " | ".join(curves) + " |")
    typer.echo("| --- " * (len(curves) + 1) + "|")
    for place, count in enumerate(counts):
        cells = " | ".join(f"{curve[place]:.3f}" for curve in curves.values())
        typer.echo(f"| {count / num_heads:.0%} | {cells} |")

    axes = Figure(figsize=(6, 4), layout="constrained").subplots()
    for name, curve in curves.items():
        axes.plot([count / num_heads for count in counts], curve, marker="o", label=name)
    axes.set(xlabel="share of heads silenced", ylabel="macro average precision", ylim=(0, 1), title=model)
    axes.legend(title="least first by")
    path = out or Path(f"prune-heads-{model}.png")
    axes.figure.savefig(path, dpi=120)
    typer.echo(f"The figure is in {path}")


if __name__ == "__main__":
    typer.run(main)
