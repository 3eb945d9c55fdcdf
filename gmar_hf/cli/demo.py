"""`gmar-hf demo`: the bundled ViT on bundled scenes, of which the truth is known."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gmar_hf.cli.app import command, echo_json
from gmar_hf.cli.image_arguments import make_folder, safe
from gmar_hf.cli.options import JsonOption
from gmar_hf.utils.files import replacing
from gmar_hf.utils.text import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image

    from gmar_hf._pipeline_results import ExplanationResult, ResultList
    from gmar_hf.pipeline import GMARExplainer

METHODS = ("gmar", "contribution")
NUM_SCENES = 3
_MAX_TRIED = 200
_ENLARGED = 6  # times, so that a 64 pixel scene can be looked at


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """The options of `gmar-hf demo`."""

    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the pictures.")] = Path("gmar-demo")
    seed: Annotated[int, typer.Option(min=0, help="Which scenes.")] = 0
    as_json: JsonOption = False


@command(DemoOptions, example="gmar-hf demo --out pictures")
def demo(options: DemoOptions) -> None:
    """Explain both garments of bundled scenes with the bundled ViT, offline, by two methods side by side."""
    from gmar_hf import demo
    from gmar_hf.pipeline import GMARExplainer
    from gmar_hf.plotting import plot_head_maps

    out = options.out
    make_folder(out)
    model, image_processor = demo.load("vit")
    explainer = GMARExplainer(model=model, image_processor=image_processor, device="cpu")
    summary: list[dict[str, Any]] = []
    explained = []
    for number, scene in enumerate(_ranked_right(explainer, options.seed), start=1):
        results = {
            method: explainer(scene["image"], target=scene["labels"], method=method, return_head_maps=True)
            for method in METHODS
        }
        explained.append((scene, results))
        for method in METHODS:
            for result in results[method]:
                entry = _describe(scene, result, number, method)
                with replacing(out / entry["file"]) as temporary:
                    _picture(scene["image"], result).save(temporary)
                summary.append(entry)
    # The sheet shows all scenes; the heads' maps are those of the first scene's best label.
    _save_figure(_contact_sheet(explained), out / "contact-sheet.png")
    best = explained[0][1]["contribution"][0]
    figure = plot_head_maps(best["head_maps"], title=f"What every head adds to {best['label']!r}", label="logits")
    _save_figure(figure, out / "head-maps.png")
    with replacing(out / "demo.json") as temporary:
        temporary.write_text(json.dumps(summary, indent=2), encoding="utf-8")
    if options.as_json:
        echo_json(summary)
    else:
        _print(summary, out)


def _ranked_right(explainer: "GMARExplainer", seed: int) -> list[dict[str, Any]]:
    """Return the first scenes on which the model puts both garments first, so that there is something to explain."""
    import torch

    from gmar_hf import demo

    # Two labels are put first: those of the scene, if the model is right.
    candidates = demo.scenes(_MAX_TRIED, seed=seed)
    pixel_values = explainer.image_processor([scene["image"] for scene in candidates], return_tensors="pt")[
        "pixel_values"
    ]
    with torch.no_grad():
        best = explainer.model(pixel_values=pixel_values).logits.topk(2).indices.sort().values.tolist()
    return [scene for scene, labels in zip(candidates, best, strict=True) if scene["labels"] == labels][:NUM_SCENES]


def _describe(scene: dict[str, Any], result: "ExplanationResult", number: int, method: str) -> dict[str, Any]:
    import numpy as np

    (neighbour,) = (label for label in scene["labels"] if label != result["target"])
    heat = np.asarray(result["heatmap"], dtype=float)
    total = heat.sum() or 1.0
    return {
        "scene": number,
        "label": result["label"],
        "score": result["score"],
        "method": method,
        "energy_on_target": heat[scene["masks"][result["target"]]].sum() / total,
        "energy_on_other": heat[scene["masks"][neighbour]].sum() / total,
        "file": f"scene{number}-{safe(result['label'])}-{method}.png",
    }


def _enlarge(image: "Image.Image") -> "Image.Image":
    from PIL import Image

    return image.resize((image.width * _ENLARGED, image.height * _ENLARGED), Image.Resampling.BICUBIC)


def _picture(image: "Image.Image", result: "ExplanationResult") -> "Image.Image":
    from gmar_hf.images.placement import scale_box
    from gmar_hf.plotting import overlay

    large = _enlarge(image)
    return overlay(large, result["attribution"], box=scale_box(result["box"], image.size, large.size))


def _contact_sheet(shown: list[tuple[dict[str, Any], "dict[str, ResultList[ExplanationResult]]"]]) -> "Figure":
    """Draw a row a target: the scene with the target outlined, the map of each method, the heads' contributions."""
    import numpy as np
    from matplotlib.figure import Figure

    from gmar_hf.demo.scene import LABELS
    from gmar_hf.plotting import plot_head_importance

    rows = [(scene, results, number) for scene, results in shown for number in range(len(scene["labels"]))]
    figure = Figure(figsize=(11, 2.5 * len(rows)), layout="constrained")
    title = "How much of each map lies on the garment asked for (outlined); area: its share of the picture"
    figure.suptitle(title, fontsize="medium")
    grid = figure.subplots(len(rows), len(METHODS) + 2, squeeze=False)
    # From left to right: the scene, a map a method, the heads.
    for axes, (scene, results, number) in zip(grid, rows, strict=True):
        target = scene["labels"][number]
        mask = scene["masks"][target]
        axes[0].imshow(_enlarge(scene["image"]))
        axes[0].contour(np.kron(mask, np.ones((_ENLARGED, _ENLARGED))), levels=[0.5], colors="white", linewidths=1)
        axes[0].set_title(f"area: {mask.mean():.0%}", fontsize="medium")
        axes[0].set_ylabel(f"why {LABELS[target]!r}?")
        for ax, method in zip(axes[1:], METHODS, strict=False):
            result = results[method][number]
            energy = _describe(scene, result, 0, method)["energy_on_target"]
            ax.imshow(_picture(scene["image"], result))
            ax.set_title(f"{method}: {energy:.0%}", fontsize="medium")
        for ax in axes[:-1]:
            ax.set(xticks=[], yticks=[])
        contribution = results["gmar"][number]["head_contribution"]
        assert contribution is not None
        plot_head_importance(contribution, title="head contributions", label="logits", ax=axes[-1])
    return figure


def _save_figure(figure: Any, path: Path) -> None:
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=100)


def _print(summary: list[dict[str, Any]], out: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("scene", "label", "score", "method", "on the garment", "on the other")
    for entry in summary:
        table.add_row(
            str(entry["scene"]),
            entry["label"],
            f"{entry['score']:.3f}",
            entry["method"],
            f"{entry['energy_on_target']:.0%}",
            f"{entry['energy_on_other']:.0%}",
        )
    Console().print(table)
    typer.echo(f"Look at {printable(out / 'contact-sheet.png')} and {printable(out / 'head-maps.png')}")
