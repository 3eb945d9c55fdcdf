"""Take one garment away, and see whether maps knew what it was worth: every map on the three demo models.

    python examples/benchmarks/garments.py                         # writes garments.md beside this file
    python examples/benchmarks/garments.py --num-scenes 50 --model vit --methods rollout --out quick.md

The generator of scenes draws each scene once more without one of its garments, all other pixels as they were, so
what a garment adds to a logit is known: the logit of the whole scene less that of the scene without it. No filling has
to be chosen, and the models were trained on scenes of one garment too. A map says something of the same kind: its
signed sum over the garment's mask. The two are compared by Spearman's correlation, as in the single deletion protocol
of FunnyBirds (Hesse et al., ICCV 2023), over every scene, class of the scene and garment of the scene.
"""

from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import torch
import typer

from gmar_hf import demo
from gmar_hf.evaluation import DEFAULT_METHODS, MapMethod, find_map_methods
from gmar_hf.metrics import SingleDeletion, part_mass, score_function, single_deletion
from gmar_hf.utils.correlation import spearman
from gmar_hf.utils.files import replacing

DOCUMENT = Path(__file__).with_name("garments.md")
SEED = 1  # of the scenes, the leaderboard's
BATCH = 50
NUM_DRAWS = 500  # of the bootstrap over scenes
TITLES = {"vit": "ViT", "deit": "DeiT", "beit": "BEiT"}
HEADINGS = ("map", "all", "within a scene", "own garment", "other garment", "cost")
INTRODUCTION = """# What a garment is worth, and whether maps know

Written by `python examples/benchmarks/garments.py`, not by hand. {num_scenes} scenes of two garments (seed {seed}),
both classes explained. A garment's true effect is the logit of the scene less that of the same scene drawn without the
garment; a map's word on it is its signed sum over the garment's mask. Spearman's correlation of the two:

- **all**: over every scene, class and garment; in brackets the bootstrap interval of 95 % over scenes. Most of it is
  whether the class's own garment is told from the other one. The mask of the explained garment itself, 1 on it and 0
  elsewhere (**the garment**), shows how far that alone goes.
- **within a scene**: over the two garments of a scene, for one class at a time, and averaged. With two garments each
  is 1 or -1, so the figure is 2 p - 1, where p is how often the garment that counts more gets more of the map. A map
  that is the same for both classes is right for the one and wrong for the other, and gets about 0.
- **own garment**, **other garment**: over scenes and classes, of garments of the explained class only, or of the other
  only: whether the map knows in which scenes the garment adds more, and in which the other one takes away more. Size
  counts here too: "the garment" gives each its area.

Masses of different scenes are compared as maps give them; a map that is scaled anew for each image begins with a
handicap everywhere but within a scene. **cost**: forwards, a backward counts as one.
"""


class Garments(NamedTuple):
    """Every class of every scene, a row each: the scene's two classes in turn.

    Args:
        pixel_values (`torch.Tensor` of shape (rows, channels, height, width)): The whole scenes.
        target (`torch.LongTensor` of shape (rows,)): The explained classes.
        masks (`torch.Tensor` of shape (rows, 2, height, width), bool): The class's own garment, and the other one.
        effect (`torch.Tensor` of shape (rows, 2)): What each of them adds to the class's logit.
    """

    pixel_values: torch.Tensor
    target: torch.Tensor
    masks: torch.Tensor
    effect: torch.Tensor


def garments_of(name: str, num_scenes: int) -> Garments:
    """Draw scenes, whole and without each garment, and ask the model what each garment adds."""
    model, image_processor = demo.load(name)
    scenes = demo.scenes(num_scenes, seed=SEED)
    target = torch.tensor([scene["labels"] for scene in scenes])
    masks = torch.from_numpy(np.stack([[scene["masks"][label] for label in scene["labels"]] for scene in scenes]))
    whole, *lacking = (
        image_processor([scene["image"] for scene in drawn], return_tensors="pt")["pixel_values"]
        for drawn in (scenes, *(demo.scenes(num_scenes, seed=SEED, without=place) for place in (0, 1)))
    )
    logits = [  # of both classes (scenes, 2): of the whole scene, without the one garment, without the other
        torch.stack([score_function(model, target[:, place], "logit")(pixels) for place in (0, 1)], dim=1)
        for pixels in (whole, *lacking)
    ]
    effect = torch.stack([logits[0] - logits[1], logits[0] - logits[2]], dim=2)  # (scenes, classes, garments)
    # The class's own garment stands first: for the second class the two change places.
    return Garments(
        pixel_values=whole.repeat_interleave(2, dim=0),
        target=target.flatten(),
        masks=torch.stack([masks, masks.flip(1)], dim=1).flatten(0, 1),
        effect=torch.stack([effect[:, 0], effect[:, 1].flip(1)], dim=1).flatten(0, 1),
    )


def masses(method: MapMethod, model: torch.nn.Module, garments: Garments) -> torch.Tensor:
    """A map's masses on the class's own garment and on the other one, (rows, 2)."""
    rows = zip(*(part.split(BATCH) for part in (garments.pixel_values, garments.target, garments.masks)), strict=True)
    found = []
    for pixels, target, masks in rows:
        maps = method.draw(model, pixels, target)
        found.append(torch.stack([part_mass(maps, masks[:, place]) for place in (0, 1)], dim=1))
    return torch.cat(found)


def interval(mass: torch.Tensor, effect: torch.Tensor, num_draws: int = NUM_DRAWS) -> tuple[float, float]:
    """The pooled correlation's bootstrap interval of 95 %, scenes (two rows each) drawn with replacement."""
    generator = np.random.default_rng(0)
    by_scene = [values.unflatten(0, (-1, 2)).flatten(1) for values in (mass, effect)]
    drawn = generator.integers(len(by_scene[0]), size=(num_draws, len(by_scene[0])))
    pooled = spearman(*(values[drawn].flatten(1) for values in by_scene))
    low, high = np.quantile(pooled.numpy(), [0.025, 0.975])
    return float(low), float(high)


def line(title: str, found: SingleDeletion, limits: tuple[float, float] | None, cost: float | None) -> str:
    """A row of the table."""
    pooled = f"{found.pooled:z.2f}" + ("" if limits is None else f" [{limits[0]:z.2f}, {limits[1]:z.2f}]")
    within = f"{np.nanmean(found.by_image.numpy()):z.2f}" if not found.by_image.isnan().all() else "-"
    of_parts = ["-" if value.isnan() else f"{value:z.2f}" for value in found.by_part]
    return (
        f"| {title} | {pooled} | {within} | {of_parts[0]} | {of_parts[1]} | {'-' if cost is None else f'{cost:g}'} |"
    )


def table(name: str, num_scenes: int, methods: list[MapMethod]) -> list[str]:
    """One model's table."""
    garments, (model, _) = garments_of(name, num_scenes), demo.load(name)
    lines = ["| " + " | ".join(HEADINGS) + " |", "| " + " | ".join(["---"] * len(HEADINGS)) + " |"]
    areas = garments.masks.flatten(2).sum(dim=2).float()
    truth = areas * torch.tensor([1.0, 0.0])
    lines.append(line("the garment", single_deletion(truth, garments.effect), interval(truth, garments.effect), None))
    for method in methods:
        mass = masses(method, model, garments)
        typer.echo(f"{name}: {method.name} is measured", err=True)
        found, limits = single_deletion(mass, garments.effect), interval(mass, garments.effect)
        lines.append(line(method.name, found, limits, method.forwards(64)))  # patches of a scene
    own, other = garments.effect.mean(dim=0).tolist()
    expected = (garments.effect[:, 0] > garments.effect[:, 1]).float().mean().item()
    lines += [
        "",
        f"Mean effect in logits: the class's own garment {own:z.2f}, the other one {other:z.2f}; the own one",
    ]
    lines[-1] += f" adds more in {expected:.3f} of the cases."
    return lines


def main(
    num_scenes: Annotated[int, typer.Option(min=2, help="Scenes a model.")] = 300,
    model: Annotated[list[str] | None, typer.Option(help="A demo model; may be repeated; all by default.")] = None,
    methods: Annotated[str, typer.Option(help="Maps, between commas.")] = ",".join(DEFAULT_METHODS),
    out: Annotated[Path, typer.Option(help="The file that is written.")] = DOCUMENT,
) -> None:
    """Measure maps on scenes that lack a garment, print the tables and write them."""
    text = INTRODUCTION.format(num_scenes=num_scenes, seed=SEED)
    for name in model or demo.MODELS:
        lines = table(name, num_scenes, find_map_methods(methods.split(",")))
        text += f"\n## {TITLES[name]}\n\n" + "\n".join(lines) + "\n"
    with replacing(out) as temporary:
        temporary.write_text(text, encoding="utf-8")
    typer.echo(text)


if __name__ == "__main__":
    typer.run(main)
