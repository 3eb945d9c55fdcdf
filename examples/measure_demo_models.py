"""Measure the maps of the demo models on scenes whose truth is known, and print a table per model.

    python examples/measure_demo_models.py                             # 200 scenes, three models
    python examples/measure_demo_models.py --model vit --num-scenes 50
    python examples/measure_demo_models.py --json > figures.json

Protocol: scenes of two test garments, explained for the garment of the lower class index, on the scenes where the
model ranks both labels first. Insertion and deletion by whole patches in 16 equal steps; hidden patches come from the
image under a Gaussian blur of sigma 8 pixels with reflected edges, so other fillings may rank the maps otherwise; the
score is the sigmoid of the target's logit, the area under a curve the mean of its 17 points. Energy is the share of a
map's positive mass inside a garment's mask; pointing asks whether the maximum lies on a patch that the mask touches;
class correlation is Pearson's, between the maps for the two garments; cost counts forwards, a backward as one.
"""

import json
from collections.abc import Callable, Iterator
from typing import Annotated, NamedTuple

import numpy as np
import torch
import typer
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel

import gmar_hf
from gmar_hf import demo

NUM_STEPS = 16
BLUR_SIGMA = 8.0  # pixels
BLOB_SIGMA = 0.25  # of the grid's side

ScoreFunction = Callable[[Tensor], Tensor]  # pixel values (M, C, H, W) to one score per row (M,)

app = typer.Typer(add_completion=False, help=__doc__)


class Batch(NamedTuple):
    """Scenes of two garments; axis 1 of `targets` and `masks` is the garment of the lower class index, then the other.

    Args:
        model (`PreTrainedModel`): The model that is explained.
        pixel_values (`Tensor` (B, C, H, W)): What it sees.
        targets (`Tensor` (B, 2)): Class indices.
        masks (`Tensor` (B, 2, H, W)): Bool, true on the garment's pixels.
        seeds (`list` of `list[int]`): One per scene, for maps made by chance.
    """

    model: PreTrainedModel
    pixel_values: Tensor
    targets: Tensor
    masks: Tensor
    seeds: list[list[int]]

    @property
    def grid(self) -> tuple[int, int]:
        patch_size = self.model.config.patch_size
        return self.pixel_values.shape[-2] // patch_size, self.pixel_values.shape[-1] // patch_size


class MapKind(NamedTuple):
    """A way to a map (B, 2, rows, cols) for both garments, and what it costs in forwards."""

    name: str
    cost: int
    draw: Callable[[Batch], Tensor]


def draw_random(batch: Batch) -> Tensor:
    """Uniform chance, drawn anew for every scene and garment."""
    maps = [np.random.default_rng(seed).random((2, *batch.grid), dtype=np.float32) for seed in batch.seeds]
    return torch.from_numpy(np.stack(maps))


def draw_centre_blob(batch: Batch) -> Tensor:
    """A Gaussian in the middle, the same for all."""
    sides = [torch.exp(-(((torch.arange(side) + 0.5) / side - 0.5) ** 2) / (2 * BLOB_SIGMA**2)) for side in batch.grid]
    return torch.outer(*sides).expand(len(batch.pixel_values), 2, -1, -1)


def explained(method: str, **options: str) -> Callable[[Batch], Tensor]:
    """A map of `gmar_hf.explain`, both garments in one call."""

    def draw(batch: Batch) -> Tensor:
        return gmar_hf.explain(batch.model, batch.pixel_values, batch.targets, method=method, **options).attribution

    return draw


MAPS = (
    MapKind("random", 0, draw_random),
    MapKind("centre blob", 0, draw_centre_blob),
    MapKind("attention rollout", 1, explained("rollout")),
    MapKind("GMAR L1", 2, explained("gmar", norm="l1")),
    MapKind("GMAR L2", 2, explained("gmar", norm="l2")),
    MapKind("gradient rollout", 2, explained("gradient-rollout")),
    MapKind("contribution", 2, explained("contribution")),
)
# What is measured of a map, and the heading of its column.
COLUMNS = {
    "insertion_minus_deletion": "ins - del",
    "energy_on_target": "energy on target (area {area:.2f})",
    "energy_on_other": "on the other",
    "pointing": "pointing",
    "class_correlation": "class corr.",
}


def blur(pixel_values: Tensor, sigma: float = BLUR_SIGMA) -> Tensor:
    """Separable Gaussian blur with reflected edges, cut at four sigma or where the reflection ends."""
    radius = min(int(np.ceil(4 * sigma)), min(pixel_values.shape[-2:]) - 1)
    kernel = torch.exp(-(torch.arange(-radius, radius + 1, dtype=torch.float64) ** 2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).to(pixel_values.dtype)
    padded = torch.nn.functional.pad(pixel_values, (radius,) * 4, mode="reflect").flatten(0, 1)[:, None]
    rows = torch.nn.functional.conv2d(padded, kernel[None, None, :, None])
    return torch.nn.functional.conv2d(rows, kernel[None, None, None, :]).view(pixel_values.shape)


def to_pixels(values: Tensor, height: int, width: int) -> Tensor:
    """Values of patches (..., rows, cols) as values of pixels (..., height, width): every patch uniform."""
    by_row = values.repeat_interleave(height // values.shape[-2], dim=-2)
    return by_row.repeat_interleave(width // values.shape[-1], dim=-1)


def replace_patches(
    score_fn: ScoreFunction, start: Tensor, end: Tensor, attribution: Tensor, num_steps: int = NUM_STEPS
) -> Tensor:
    """Replace the patches of `start` by those of `end`, the highest attribution first, and score every step at once.

    Insertion goes from the blurred images to the images, deletion from the images to the blurred ones.

    Args:
        score_fn: Scores of pixel values (B * (num_steps + 1), C, H, W), the steps of an image side by side.
        start, end (`Tensor` (B, C, H, W)): The images before the first and after the last step.
        attribution (`Tensor` (B, rows, cols)): The order; equal values go row by row.
        num_steps (`int`, defaults to 16): Steps of equally many patches.

    Returns:
        `Tensor` (B, num_steps + 1): Scores.
    """
    num_patches = attribution[0].numel()
    rank = attribution.flatten(1).argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    counts = torch.arange(num_steps + 1) * num_patches // num_steps
    replaced = rank[:, None, :] < counts[:, None]  # (B, steps + 1, patches)
    replaced = to_pixels(replaced.unflatten(-1, attribution.shape[1:]), *start.shape[-2:])
    pixel_values = torch.where(replaced[:, :, None], end[:, None], start[:, None])
    return score_fn(pixel_values.flatten(0, 1)).unflatten(0, (-1, num_steps + 1))


def energy(attribution: Tensor, masks: Tensor) -> Tensor:
    """Share (B,) of the positive mass of maps (B, rows, cols) inside masks (B, H, W); 0 where there is no mass."""
    mass = to_pixels(attribution.relu(), *masks.shape[-2:])
    return (mass * masks).sum((-2, -1)) / mass.sum((-2, -1)).clamp_min(torch.finfo(mass.dtype).tiny)


def point(attribution: Tensor, masks: Tensor) -> Tensor:
    """Whether (B,) the maximum of maps (B, rows, cols) lies on a patch that the masks (B, H, W) touch."""
    patch = (masks.shape[-2] // attribution.shape[-2], masks.shape[-1] // attribution.shape[-1])
    touched = torch.nn.functional.max_pool2d(masks[:, None].float(), patch).flatten(1)
    return touched.gather(1, attribution.flatten(1).argmax(1, keepdim=True))[:, 0]


def correlate(one: Tensor, other: Tensor) -> Tensor:
    """Pearson's correlation (B,) of maps (B, rows, cols); 0 where one of them is constant."""
    one, other = (maps.flatten(1) - maps.flatten(1).mean(1, keepdim=True) for maps in (one, other))
    return torch.nn.functional.cosine_similarity(one, other, dim=1, eps=1e-20)


def measure_map(batch: Batch, maps: Tensor) -> dict[str, Tensor]:
    """Measure maps (B, 2, rows, cols); one value per scene of everything in COLUMNS."""
    targets = batch.targets[:, 0].repeat_interleave(NUM_STEPS + 1)

    def score(pixel_values: Tensor) -> Tensor:
        with torch.no_grad():
            logits = batch.model(pixel_values=pixel_values).logits
        return logits.gather(1, targets[:, None])[:, 0].sigmoid()

    target_map, blurred = maps[:, 0], blur(batch.pixel_values)
    insertion = replace_patches(score, blurred, batch.pixel_values, target_map).mean(1)
    deletion = replace_patches(score, batch.pixel_values, blurred, target_map).mean(1)
    return {
        "insertion_minus_deletion": insertion - deletion,
        "energy_on_target": energy(target_map, batch.masks[:, 0]),
        "energy_on_other": energy(target_map, batch.masks[:, 1]),
        "pointing": point(target_map, batch.masks[:, 0]),
        "class_correlation": correlate(target_map, maps[:, 1]),
    }


def batches(name: str, num_scenes: int, seed: int, batch_size: int) -> Iterator[Batch]:
    """The scenes on which the model ranks both labels first."""
    model, image_processor = demo.load(name)
    made = demo.scenes(num_scenes, seed)
    for start in range(0, num_scenes, batch_size):
        part = made[start : start + batch_size]
        pixel_values = image_processor([scene["image"] for scene in part], return_tensors="pt").pixel_values
        targets = torch.tensor([scene["labels"] for scene in part])
        masks = torch.from_numpy(np.stack([[scene["masks"][label] for label in scene["labels"]] for scene in part]))
        with torch.no_grad():
            first = model(pixel_values=pixel_values).logits.topk(2).indices.sort(dim=1).values
        kept = (first == targets).all(1)
        if kept.any():
            seeds = [[seed, start + index] for index in kept.nonzero()[:, 0].tolist()]
            yield Batch(model, pixel_values[kept], targets[kept], masks[kept], seeds)


def measure_model(name: str, num_scenes: int, seed: int = 0, batch_size: int = 25) -> dict:
    """Measure every map on one demo model; means over the scenes kept."""
    areas: list[Tensor] = []
    values: dict[str, list[dict[str, Tensor]]] = {kind.name: [] for kind in MAPS}
    for batch in tqdm(batches(name, num_scenes, seed, batch_size), desc=name, disable=None):
        areas.append(batch.masks[:, 0].float().mean((-2, -1)))
        for kind in MAPS:
            values[kind.name].append(measure_map(batch, kind.draw(batch)))
    if not areas:
        raise typer.BadParameter(f"{name} ranks both labels first on none of {num_scenes} scenes; take more of them.")
    area = torch.cat(areas)
    maps = {
        kind.name: {
            column: torch.cat([part[column] for part in values[kind.name]]).mean().item() for column in COLUMNS
        }
        | {"cost": kind.cost}
        for kind in MAPS
    }
    return {"num_scenes": num_scenes, "num_kept": len(area), "area": area.mean().item(), "maps": maps}


def to_markdown(name: str, result: dict) -> str:
    """One model's table."""
    share = result["num_kept"] / result["num_scenes"]
    headings = ["map", *(heading.format(**result) for heading in COLUMNS.values()), "cost"]
    rows = [headings, ["---"] * len(headings)]
    for kind, figures in result["maps"].items():
        rows.append([kind, *(f"{figures[column]:z.2f}" for column in COLUMNS), str(figures["cost"])])
    title = f"### {name}: {result['num_kept']} of {result['num_scenes']} scenes kept ({share:.0%})"
    return "\n".join([title, "", *(f"| {' | '.join(cells)} |" for cells in rows), ""])


@app.command(help=__doc__)
def main(
    model: Annotated[list[str] | None, typer.Option(help="A demo model; may be repeated; all by default.")] = None,
    num_scenes: Annotated[int, typer.Option(min=1, help="Scenes of two garments.")] = 200,
    seed: Annotated[int, typer.Option(min=0, help="Of the scenes and of the random maps.")] = 0,
    batch_size: Annotated[int, typer.Option(min=1, help="Scenes at a time.")] = 25,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    results = {name: measure_model(name, num_scenes, seed, batch_size) for name in model or demo.MODELS}
    if as_json:
        typer.echo(json.dumps(results, indent=2))
    else:
        typer.echo("\n".join(to_markdown(name, result) for name, result in results.items()))


if __name__ == "__main__":
    app()
