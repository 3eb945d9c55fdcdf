"""What insertion minus deletion gives to maps of the truth: of the explained garment, and of both garments alike.

    python examples/benchmarks/truth_maps.py           # the scenes of the leaderboard that it filters
    python examples/benchmarks/truth_maps.py --num-scenes 50 --model vit

A map that is right about where the garment is need not win: the metric asks what the model uses. And a map that knows
nothing of the class, but where garments are, already gets most of it. Read the leaderboard's figures beside these.
"""

from typing import Annotated

import numpy as np
import torch
import typer

from gmar_hf import demo, metrics

SEED = 1  # of the leaderboard's scenes
BATCH = 20


def truth_maps(masks: torch.Tensor, other_masks: torch.Tensor, patch: int) -> dict[str, torch.Tensor]:
    """Shares of each patch that are garment, (batch, rows, cols), from masks (batch, height, width)."""
    own, other = (torch.nn.functional.avg_pool2d(one.float()[:, None], patch)[:, 0] for one in (masks, other_masks))
    return {"the garment": own, "the garment minus the other": own - other, "both garments": own + other}


def main(
    num_scenes: Annotated[int, typer.Option(min=2, help="Scenes a model.")] = 300,
    model: Annotated[list[str] | None, typer.Option(help="A demo model; may be repeated; all by default.")] = None,
) -> None:
    for name in model or demo.MODELS:
        classifier, image_processor = demo.load(name)
        found: dict[str, dict[str, list[torch.Tensor]]] = {}
        scenes = demo.scenes(num_scenes, seed=SEED)
        for start in range(0, num_scenes, BATCH):
            part = scenes[start : start + BATCH]
            pixels = image_processor([scene["image"] for scene in part], return_tensors="pt")["pixel_values"]
            labels = torch.tensor([scene["labels"] for scene in part])
            masks = torch.from_numpy(np.stack([[scene["masks"][one] for one in scene["labels"]] for scene in part]))
            with torch.no_grad():
                first = classifier(pixel_values=pixels).logits.topk(2).indices.sort(dim=1).values
            kept = (first == labels.sort(dim=1).values).all(dim=1)
            fillings = {"blur": "blur", "zero": "zero", "other": pixels.roll(1, dims=0)[kept]}
            for garment in (0, 1):
                score = metrics.score_function(classifier, labels[kept, garment], "sigmoid")
                maps = truth_maps(masks[kept, garment], masks[kept, 1 - garment], classifier.config.patch_size)
                for title, one in maps.items():
                    for baseline, filling in fillings.items():
                        figures = metrics.insertion_minus_deletion(score, pixels[kept], one, baseline=filling)
                        found.setdefault(title, {}).setdefault(baseline, []).append(figures)
        for title, by_baseline in found.items():
            cells = " / ".join(f"{torch.cat(figures).mean():.3f}" for figures in by_baseline.values())
            typer.echo(f"{name}: {title}: {cells} (blur / zero / other)")


if __name__ == "__main__":
    typer.run(main)
