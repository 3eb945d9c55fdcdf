"""Measure every map on the three demo models, and write leaderboard.md beside this file.

    python examples/benchmarks/leaderboard.py                        # 300 scenes a model; goes on where it was stopped
    torchrun --nproc_per_node 2 examples/benchmarks/leaderboard.py   # shared by two processes
    python examples/benchmarks/leaderboard.py --no-write --num-scenes 20 --work quick
    python examples/benchmarks/leaderboard.py --model vit --methods rollout --methods gmar-l1 --no-write

Protocol: scenes of two test garments, both explained in turn; all scenes, and those on which the model ranks both
labels first. Insertion and deletion by whole patches in 16 equal steps, score = sigmoid of the target's logit, area by
the trapezoid, hidden patches filled in three ways: the image under a Gaussian of sigma 8 pixels, zero in the model's
pixel values (grey), the same patches of another scene. Needs `pip install ".[compare]"`.
"""

import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from accelerate import Accelerator

import gmar_hf
from gmar_hf import demo
from gmar_hf.evaluation import MAP_METHODS, Evaluation, evaluate, find_map_methods
from gmar_hf.evaluation.rows_and_columns import is_made_with
from gmar_hf.runs.processes import joined
from gmar_hf.utils.files import replacing

ROOT = Path(__file__).parents[2]
DOCUMENT = Path(__file__).with_name("leaderboard.md")
BASELINES = ("blur", "zero", "other")
DIFFERENCE = ("insertion_minus_deletion", "insertion_minus_deletion_zero", "insertion_minus_deletion_other")
IN_SHORT = (
    "recommended", "path-half-centred", "path", "removal", "contribution", "partition-contribution",
    "gradient-rollout", "gmar-l1", "rollout", "legrad", "integrated-gradients",
)  # fmt: skip
METRICS = (
    "insertion", "deletion", "insertion_minus_deletion", "energy_pointing_game", "energy_on_other", "pointing_game",
    "pixel_average_precision", "iou", "class_sensitivity", "sparseness",
)  # fmt: skip
HEADINGS = {
    "insertion_minus_deletion": "ins - del, blur",
    "insertion_minus_deletion_zero": "zero",
    "insertion_minus_deletion_other": "other",
    "energy_pointing_game": "energy on target",
    "energy_on_other": "on the other",
    "pointing_game": "pointing",
    "pixel_average_precision": "pixel AP",
    "iou": "IoU",
    "class_sensitivity": "class corr.",
    "sparseness": "Gini",
}
TITLES = {"vit": "ViT", "deit": "DeiT", "beit": "BEiT"}
SEED = 1  # of the scenes; everything was tuned on other seeds
_TIMED = 16  # scenes, in one batch
INTRODUCTION = """# Leaderboard: every map on the three demo models

Written by `python examples/benchmarks/leaderboard.py`, not by hand. {num_scenes} scenes of two garments (seed {seed};
nothing was tuned on it), both explained.

- **ins - del**: area under the insertion curve minus that under the deletion curve (16 steps of whole patches, sigmoid
  of the target's logit, trapezoid), where hidden patches show the blurred image, zero in pixel values (grey), or the
  same patches of another scene; in brackets the bootstrap interval of 95 % over scenes. **†: the map was made with
  this filling**, under which it shines.
- **energy on target**, **on the other**: share of the map's positive mass on the explained garment, and on the other
  one. **pointing**: the maximum lies on a patch that the garment touches.
- **class corr.**: Pearson's correlation of the maps for both garments. **Gini**: sparseness; neither end is better.
- **cost**: forwards, a backward counts as one; **ms**: for one class of one image in a batch of 16, one thread of the
  machine that measured, all maps in one run.

## In short

The scenes on which the model ranks both labels first.
"""
BESIDE = """## Beside each other

On the scenes on which the model ranks both labels first. Heads: zero-ablation of single heads against scores, over all
heads / within a layer, mean over both garments of all scenes; unsigned scores against the size of the change.
"""

app = typer.Typer(add_completion=False)


def measure_maps(name: str, num_scenes: int, methods: list[str], work: Path, accelerator: Accelerator) -> Evaluation:
    """One model's figures, each method's in a folder of its own: what has finished in an earlier call is read."""
    model, image_processor = demo.load(name)
    scenes = demo.scenes(num_scenes, seed=SEED)
    found = []
    for method in methods:
        folder = work / name / method
        if (folder / "results.json").exists():
            found.append(Evaluation.load(folder / "rows.safetensors"))
            continue
        evaluation = evaluate(
            model,
            scenes,
            image_processor,
            methods=[method],
            metrics=METRICS,
            baselines=BASELINES,
            target="label",
            output_dir=folder,
            model_id=f"gmar_hf.demo.load({name!r})",
            data_id=f"gmar_hf.demo.scenes({num_scenes}, seed={SEED})",
            accelerator=accelerator,
        )
        found.append(evaluation)
    return Evaluation.join(found)  # which refuses figures of other scenes: another --work is for these


def measure_heads(name: str, num_scenes: int, work: Path) -> dict[str, list[float]]:
    """Spearman's correlation of head scores with what removing each head does: over all heads, and within a layer."""
    path = work / f"heads-{name}.json"
    if path.exists():
        return json.loads(path.read_text())
    model, image_processor = demo.load(name)
    scenes = demo.scenes(num_scenes, seed=SEED)
    found: dict[str, list[np.ndarray]] = {}
    for start in range(0, num_scenes, 16):
        part = scenes[start : start + 16]
        pixels = image_processor([scene["image"] for scene in part], return_tensors="pt")["pixel_values"]
        pixels = pixels.repeat_interleave(2, dim=0)
        target = torch.tensor([label for scene in part for label in scene["labels"]])
        ablation = gmar_hf.metrics.head_ablation(model, pixels, target)
        l1, l2 = (gmar_hf.explain(model, pixels, target, norm=norm, return_maps=False) for norm in ("l1", "l2"))
        scores = {
            "contribution, signed": (l1.head_contribution, False),
            "magnitude of the contribution": (l1.head_contribution, True),
            "GMAR weight L1": (l1.head_importance, True),
            "GMAR weight L2": (l2.head_importance, True),
        }
        for score, (values, magnitude) in scores.items():
            correlation = ablation.correlation(values, magnitude=magnitude)
            rows = torch.stack([correlation.overall, correlation.within_layers], dim=1)
            found.setdefault(score, []).append(rows.numpy())
    means = {score: np.concatenate(rows).mean(axis=0).tolist() for score, rows in found.items()}
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(means, indent=2))
    return means


def measure_times(name: str, methods: list[str], work: Path) -> dict[str, float]:
    """Milliseconds of each map, a class of an image, all in one go: the median of three batches on one thread."""
    path = work / f"times-{name}.json"
    times = json.loads(path.read_text()) if path.exists() else {}
    if set(methods) <= set(times):
        return times
    model, image_processor = demo.load(name)
    scenes = demo.scenes(_TIMED, seed=SEED)
    pixels = image_processor([scene["image"] for scene in scenes], return_tensors="pt")["pixel_values"]
    target = torch.tensor([scene["labels"][0] for scene in scenes])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for method in find_map_methods(methods):
            seconds = []
            for _ in range(4):  # the first one warms up
                start = time.perf_counter()
                method.draw(model, pixels, target)
                seconds.append(time.perf_counter() - start)
            times[method.name] = 1000 * float(np.median(seconds[1:])) / _TIMED
    finally:
        torch.set_num_threads(threads)
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(times, indent=2))
    return times


def first_ranked(evaluation: Evaluation) -> Evaluation:
    """The rows of scenes on which the model ranks both labels first."""
    return evaluation.subset(bool(row.labels_first) for row in evaluation.rows)


def cell(figures: dict[str, Any], *, marked: bool = False, interval: bool = False) -> str:
    if figures["mean"] is None:
        return "-"
    text = f"{figures['mean']:z.2f}{'†' if marked else ''}"
    return f"{text} [{figures['low']:z.2f}, {figures['high']:z.2f}]" if interval else text


def table(rows: list[list[str]]) -> list[str]:
    """The first row is the heading."""
    return [f"| {' | '.join(cells)} |" for cells in (rows[0], ["---"] * len(rows[0]), *rows[1:])]


def short_table(found: dict[str, Evaluation]) -> list[str]:
    """All models in one table, on the scenes whose labels are ranked first."""
    summaries = {name: first_ranked(evaluation).summary() for name, evaluation in found.items()}
    heading = ["map", *(f"{TITLES[name]}: blur / zero / other" for name in found)]
    heading += ["energy on target", "class corr.", "cost"]
    rows = [heading]
    methods = {method["name"]: method for method in next(iter(found.values())).methods}
    for name in (name for name in IN_SHORT if name in methods):
        cells = [name]
        for summary in summaries.values():
            differences = zip(DIFFERENCE, BASELINES, strict=True)
            cells.append(
                " / ".join(
                    cell(summary[name][key], marked=is_made_with(methods[name], baseline))
                    for key, baseline in differences
                )
            )
        for key in ("energy_pointing_game", "class_sensitivity"):
            cells.append(" / ".join(cell(summary[name][key]) for summary in summaries.values()))
        rows.append([*cells, f"{methods[name]['forwards']:g}"])
    return table(rows)


def full_table(evaluation: Evaluation, times: dict[str, float]) -> list[str]:
    summary = evaluation.summary()
    rows = [["map", *HEADINGS.values(), "cost", "ms"]]
    for method in evaluation.methods:
        figures = summary[method["name"]]
        marks = dict(zip(DIFFERENCE, BASELINES, strict=True))
        cells = [
            cell(figures[key], marked=is_made_with(method, marks.get(key)), interval=key in DIFFERENCE)
            for key in HEADINGS
        ]
        rows.append([method["name"], *cells, f"{method['forwards']:g}", f"{times[method['name']]:.1f}"])
    return table(rows)


def ratios(found: dict[str, Evaluation], heads: dict[str, dict[str, list[float]]]) -> list[str]:
    """What the figures say beside each other, on the scenes whose labels are ranked first."""
    rows = [["", *(TITLES[name] for name in found)]]
    summaries = {name: first_ranked(evaluation).summary() for name, evaluation in found.items()}

    def mean(summary: dict, method: str, key: str) -> float:
        return summary[method][key]["mean"]

    def over_baselines(summary: dict, method: str) -> float:
        return float(np.mean([mean(summary, method, key) for key in DIFFERENCE]))

    def line(title: str, methods: tuple[str, ...], figure: Any) -> None:
        if all(method in summary for summary in summaries.values() for method in methods):
            rows.append([title, *(figure(summary) for summary in summaries.values())])

    blur, energy = DIFFERENCE[0], "energy_pointing_game"
    for one in ("contribution", "partition-contribution", "integrated-gradients"):
        line(
            f"{one} to rollout, blur",
            (one, "rollout"),
            lambda s, one=one: f"{mean(s, one, blur) / mean(s, 'rollout', blur):.2f}",
        )
    line(
        "contribution to integrated gradients, mean of the baselines",
        ("contribution", "integrated-gradients"),
        lambda s: f"{over_baselines(s, 'contribution') / over_baselines(s, 'integrated-gradients'):.3f}",
    )
    for other in ("legrad", "grad-cam"):
        line(
            f"contribution minus {other}: blur / zero / other",
            ("contribution", other),
            lambda s, other=other: " / ".join(
                f"{mean(s, 'contribution', key) - mean(s, other, key):+.2f}" for key in DIFFERENCE
            ),
        )
    for masked in ("masked-contribution", "partition-contribution"):
        line(
            f"{masked} to integrated gradients: blur / zero / other",
            (masked, "integrated-gradients"),
            lambda s, masked=masked: " / ".join(
                f"{mean(s, masked, key) / mean(s, 'integrated-gradients', key):.3f}" for key in DIFFERENCE
            ),
        )
    line(
        "energy on target, contribution to GMAR L1",
        ("contribution", "gmar-l1"),
        lambda s: f"{mean(s, 'contribution', energy) / mean(s, 'gmar-l1', energy):.2f}",
    )
    line(
        "class correlation of contribution",
        ("contribution",),
        lambda s: f"{mean(s, 'contribution', 'class_sensitivity'):.2f}",
    )
    for score in next(iter(heads.values())):
        rows.append([f"heads, Spearman: {score}", *(" / ".join(f"{x:.3f}" for x in heads[n][score]) for n in found)])
    return table(rows)


def document(
    found: dict[str, Evaluation],
    heads: dict[str, dict[str, list[float]]],
    times: dict[str, dict[str, float]],
    num_scenes: int,
) -> str:
    lines = [INTRODUCTION.format(num_scenes=num_scenes, seed=SEED), *short_table(found), "", BESIDE]
    lines += [*ratios(found, heads), ""]
    for name, evaluation in found.items():
        kept = first_ranked(evaluation)
        lines += [
            f"## {TITLES[name]}",
            "",
            f"The {kept.num_images} of {evaluation.num_images} scenes on which both labels are ranked first:",
            "",
            *full_table(kept, times[name]),
            "",
            f"All {evaluation.num_images} scenes:",
            "",
            *full_table(evaluation, times[name]),
            "",
        ]
    return "\n".join(lines)


def with_rows_kept(old: str, new: str, times: dict[str, dict[str, float]]) -> str:
    """Give the tables of a new document the rows that only the old one has, with the milliseconds of this run."""
    order = {"map": -2, "---": -1} | {name: place for place, name in enumerate(MAP_METHODS)}
    old_tables, new_lines = dict(_tables(old)), []
    for heading, part in _tables(new, rest=True):
        if heading is None:
            new_lines += part
            continue
        rows = {_cells(row)[0]: row for row in [*old_tables.get(heading, []), *part]}
        if "map" in rows:
            model = next((name for name, title in TITLES.items() if heading[0] == f"## {title}"), None)
            rows = {name: rows[name] for name in sorted(rows, key=lambda name: order[name])}
            for name in (name for name in rows if model and name in times[model]):
                rows[name] = f"| {' | '.join([*_cells(rows[name])[:-1], f'{times[model][name]:.1f}'])} |"
        new_lines += rows.values()
    return "\n".join(new_lines) + "\n"


def _cells(row: str) -> list[str]:
    return row.strip("| ").split(" | ")


def _tables(text: str, rest: bool = False) -> Iterator[tuple[tuple[str, int] | None, list[str]]]:
    """Yield a document's tables, under the section's heading and their number in it, and with `rest` other lines."""
    section, number = "", 0
    for is_table, group in itertools.groupby(text.splitlines(), lambda line: line.startswith("|")):
        lines = list(group)
        if is_table:
            number += 1
            yield (section, number), lines
            continue
        headings = [line for line in lines if line.startswith("## ")]
        section, number = (headings[-1], 0) if headings else (section, number)
        if rest:
            yield None, lines


@app.command(help=__doc__)
def main(
    model: Annotated[list[str] | None, typer.Option(help="A demo model; may be repeated; all by default.")] = None,
    num_scenes: Annotated[int, typer.Option(min=2, help="Scenes a model.")] = 300,
    methods: Annotated[list[str] | None, typer.Option(help="Some maps only; may be repeated.")] = None,
    work: Annotated[Path, typer.Option(help="Folder that the figures are kept in.")] = Path("leaderboard"),
    write: Annotated[bool, typer.Option("--write/--no-write", help="Write leaderboard.md.")] = True,
    keep: Annotated[
        bool, typer.Option("--keep/--no-keep", help="Rows of maps left out now stay as they are.")
    ] = False,
) -> None:
    accelerator = joined(None)
    names = model or list(demo.MODELS)
    maps = methods or [method for method in MAP_METHODS if method != "gmar-uniform"]  # which is rollout
    work.mkdir(parents=True, exist_ok=True)
    found = {name: measure_maps(name, num_scenes, maps, work, accelerator) for name in names}
    if accelerator.is_main_process:
        heads = {name: measure_heads(name, num_scenes, work) for name in names}
        timed = list(MAP_METHODS) if keep else maps  # rows that stay get times of this run too
        times = {name: measure_times(name, timed, work) for name in names}
        text = document(found, heads, times, num_scenes)
        if keep:
            text = with_rows_kept(DOCUMENT.read_text(encoding="utf-8"), text, times)
        if write:
            with replacing(DOCUMENT) as temporary:
                temporary.write_text(text, encoding="utf-8")
        else:
            typer.echo(text)
    accelerator.end_training()


if __name__ == "__main__":
    app()
