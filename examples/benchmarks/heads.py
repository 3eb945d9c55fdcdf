"""Measure head scores against what taking heads out does: any image classifier, any labelled folder.

    python examples/benchmarks/heads.py --model google/vit-base-patch16-224 --data photos/test --out heads
    python examples/benchmarks/heads.py --demo vit

Photos that the model gets right (of the bundled models: scenes whose first-ranked garment is there), their class
explained. Every head is taken out by itself, its output set to zero or to its mean over these photos, token by token;
the change of the logit is correlated with the score over all heads (Spearman, signed), photo by photo. The table holds
means over photos with their intervals of 95 % (bootstrap), and the correlation of the means of both over the photos,
which is what a report's means can foretell. It is printed and written to `OUT/heads.md`.
"""

from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from photos import labelled_photos, load_classifier, right_photos
from PIL import Image

from gmar_hf import centred_head_contribution, demo, explain, metrics
from gmar_hf.evaluation.bootstrap import Bootstrap
from gmar_hf.report.statistics import rank_correlation
from gmar_hf.surveys.scoring import score_heads
from gmar_hf.utils.files import replacing

ABLATIONS = ("zero", "mean")

app = typer.Typer(add_completion=False)


def demo_pixels(name: str, number: int) -> tuple[Any, torch.Tensor, torch.Tensor]:
    """A bundled model, scenes that it is right about, and the garment that it ranks first in each."""
    model, image_processor = demo.load(name)
    scenes = demo.scenes(3 * number)
    pixels = image_processor([scene["image"] for scene in scenes], return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        predicted = model(pixel_values=pixels).logits.argmax(dim=-1)
    right = [row for row, scene in enumerate(scenes) if int(predicted[row]) in scene["labels"]][:number]
    return model, pixels[right], predicted[right]


def photo_pixels(
    model: str, data: Path, number: int, image_size: int | None, seed: int
) -> tuple[Any, torch.Tensor, torch.Tensor]:
    """A classifier, photos that it is right about, and their classes."""
    classifier, image_processor = load_classifier(model, image_size)
    photos = labelled_photos(data, classifier.config.label2id, seed)
    right = right_photos(classifier, image_processor, photos, number)
    images = [Image.open(path).convert("RGB") for path, _ in right]
    pixels = image_processor(images=images, return_tensors="pt")["pixel_values"]
    return classifier, pixels, torch.tensor([label for _, label in right])


def head_scores(model: Any, pixels: torch.Tensor, target: torch.Tensor) -> dict[str, torch.Tensor]:
    """Scores (photos, layers, heads) by name."""
    explanation = explain(model, pixels, target, return_maps=False)
    assert explanation.head_contribution is not None
    assert explanation.head_contribution_centred is not None
    assert explanation.head_importance is not None
    means = score_heads(model, pixels, target).means
    return {
        "contribution": explanation.head_contribution,
        "centred, mean over the photo's tokens": explanation.head_contribution_centred,
        "centred, mean of these photos by token": centred_head_contribution(model, pixels, target, reference=pixels),
        "centred, mean of a report (prefix tokens, patches)": centred_head_contribution(
            model, pixels, target, reference=means
        ),
        "GMAR weight, L1": explanation.head_importance,
    }


def table(scores: dict[str, torch.Tensor], changes: dict[str, torch.Tensor], correlation: str) -> str:
    """Correlations of every score with every ablation, with half the width of their intervals."""
    bootstrap = Bootstrap(range(len(changes["zero"])))
    lines = [
        "| score | zero-ablation | mean-ablation | of the means: zero | mean |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, values in scores.items():
        cells = [name]
        for ablation in ABLATIONS:
            found = getattr(metrics.HeadAblation(changes[ablation]).correlation(values), correlation)
            interval = bootstrap.interval(found.numpy())
            cells.append(f"{interval['mean']:.3f} ± {(interval['high'] - interval['low']) / 2:.3f}")
        cells += [f"{rank_correlation(values.mean(0), changes[ablation].mean(0)):.3f}" for ablation in ABLATIONS]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


@app.command()
def main(
    model: Annotated[str | None, typer.Option(help="Folder or id of an image classifier.")] = None,
    data: Annotated[Path | None, typer.Option(help="Folder with a folder of photos a label.")] = None,
    demo: Annotated[str | None, typer.Option(help="In place of both: vit, deit or beit, on its own scenes.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the table.")] = None,
    num_photos: Annotated[int, typer.Option(min=2, help="Photos, all in one batch.")] = 50,
    image_size: Annotated[int | None, typer.Option(help="Pixels a side, where not the processor's own.")] = None,
    max_rows: Annotated[int, typer.Option(min=1, help="Images that the model sees at once.")] = 256,
    seed: Annotated[int, typer.Option(help="Seed of the choice of photos.")] = 0,
) -> None:
    """Measure head scores against zero- and mean-ablation, and print the table."""
    if demo is not None:
        classifier, pixels, target = demo_pixels(demo, num_photos)
    elif model is not None and data is not None:
        classifier, pixels, target = photo_pixels(model, data, num_photos, image_size, seed)
    else:
        raise typer.BadParameter("`--model` and `--data` must both be given, or `--demo`.")
    scores = head_scores(classifier, pixels, target)
    changes = {
        name: metrics.head_ablation(classifier, pixels, target, ablation=name, max_rows=max_rows).change
        for name in ABLATIONS
    }
    size = " x ".join(map(str, pixels.shape[-2:]))
    text = f"{len(pixels)} photos of {size} pixels that the model gets right, seed {seed}.\n\nOver all heads:\n\n"
    text += table(scores, changes, "overall")
    text += f"\nWithin layers, mean over the layers:\n\n{table(scores, changes, 'within_layers')}"
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        with replacing(out / "heads.md") as temporary:
            temporary.write_text(text, encoding="utf-8")
    typer.echo(text)


if __name__ == "__main__":
    app()
