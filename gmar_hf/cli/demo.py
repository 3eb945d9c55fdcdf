"""`gmar-hf demo`: the bundled ViT on bundled scenes, of which the truth is known."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gmar_hf.cli.app import command, echo_json
from gmar_hf.cli.demo_scenes import METHODS, ShownScene, choose_scenes, points_right, shares_on_garments
from gmar_hf.cli.image_arguments import safe
from gmar_hf.cli.options import JsonOption
from gmar_hf.utils.files import made_folder, replacing
from gmar_hf.utils.own_files import check_replaceable
from gmar_hf.utils.text import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image

    from gmar_hf._pipeline.results import ExplanationResult

_TITLE = (
    "recommended: red speaks for the label, blue stripes against it; gmar: magenta, where the model looks. Above\n"
    "each map how much of it lies on the garment asked for (outlined); below the scene what taking that garment out\n"
    "of it really does to the label's logit. The strongest {:.0%} of a map's patches have the full colour."
)
_FAILURE = (
    "Scene {} is shown because the recommended map misleads there: for one label it has less than twice as much on\n"
    "its garment as on the other; compare what taking the garment out does. Maps are first-order estimates:\n"
    "`gmar-hf evaluate` measures how far to believe them on your data."
)
_SHEET, _HEADS, _SUMMARY = "contact-sheet.png", "head-maps.png", "demo.json"
_ENLARGED = 6  # times, so that a 64 pixel scene can be looked at


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """The options of `gmar-hf demo`."""

    out: Annotated[Path, typer.Option("--out", "-o", metavar="FOLDER", help="Folder for the pictures.")] = Path(
        "gmar-demo"
    )
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Which scenes.")] = 0
    as_json: JsonOption = False


@command(DemoOptions, example="gmar-hf demo --out pictures")
def demo(options: DemoOptions) -> None:
    """Explain both garments of bundled scenes with the bundled ViT, offline, by two methods side by side.

    Two scenes on which the recommended map points the right way come first, and then one on which it does not.
    """
    drawn = [path.name for path in options.out.glob("scene*-*.png")]  # what the labels will be is not known yet
    check_replaceable("`--out`", options.out, [*drawn, _SHEET, _HEADS, _SUMMARY], "demo")
    with made_folder("`--out`", options.out):
        summary = _draw(options.out, options.seed)
    if options.as_json:
        echo_json(summary)
    else:
        _print(summary, options.out)


def _draw(out: Path, seed: int) -> list[dict[str, Any]]:
    """Draw the pictures into a folder; return what the JSON beside them says."""
    from gmar_hf import demo
    from gmar_hf.images.own_pictures import save_picture
    from gmar_hf.pipeline import GMARExplainer

    model, image_processor = demo.load("vit")
    explainer = GMARExplainer(model=model, image_processor=image_processor, device="cpu")
    shown = choose_scenes(explainer, seed)
    summary = []
    for number, scene in enumerate(shown, start=1):
        for method in METHODS:
            for result, effect in zip(scene.results[method], scene.effects, strict=True):
                entry = _describe(scene, result, effect, number)
                with replacing(out / entry["file"]) as temporary:
                    save_picture(_picture(scene.scene["image"], result), temporary)
                summary.append(entry)
    # The sheet shows all scenes; the heads' maps are those of the first scene's first label.
    _save_figure(_contact_sheet(shown), out / _SHEET)
    first = shown[0].scene
    (best,) = explainer(first["image"], target=first["labels"][:1], method="contribution", return_head_maps=True)
    _save_figure(_head_maps(first["image"], best), out / _HEADS)
    with replacing(out / _SUMMARY) as temporary:
        temporary.write_text(json.dumps(summary, indent=2), encoding="utf-8")
    return summary


def _describe(shown: ShownScene, result: "ExplanationResult", effect: float, number: int) -> dict[str, Any]:
    own, other = shares_on_garments(shown.scene, result)
    return {
        "scene": number,
        "label": result["label"],
        "score": result["score"],
        "method": result["method"],
        "energy_on_target": own,
        "energy_on_other": other,
        "logit_drop_without_target": effect,
        "points_right": shown.points_right,
        "file": f"scene{number}-{safe(result['label'])}-{result['method']}.png",
    }


def _enlarge(image: "Image.Image") -> "Image.Image":
    from PIL import Image

    return image.resize((image.width * _ENLARGED, image.height * _ENLARGED), Image.Resampling.BICUBIC)


def _picture(image: "Image.Image", result: "ExplanationResult") -> "Image.Image":
    from gmar_hf.plotting import overlay
    from gmar_hf.plotting.values import has_sign

    least_side = _ENLARGED * max(image.size)
    attribution, is_signed = result["attribution"], has_sign(result["attribution"], result["unit"])
    how: dict[str, Any] = {"style": "signed", "has_sign": is_signed, "least_side": least_side}
    return overlay(image, attribution, box=result["box"], **how)


def _contact_sheet(shown: list[ShownScene]) -> "Figure":
    """Draw a row a label: the scene with its garment outlined, the map of each method, the heads' contributions."""
    import numpy as np
    from matplotlib.figure import Figure

    from gmar_hf.plotting.heads import HEAD_TITLES, plot_head_importance
    from gmar_hf.plotting.saturation import SATURATED

    rows = [(scene, place) for scene in shown for place in range(len(scene.effects))]
    figure = Figure(figsize=(11, 2.6 * len(rows)), layout="constrained")
    figure.suptitle(_TITLE.format(SATURATED), fontsize="medium")
    grid = figure.subplots(len(rows), len(METHODS) + 2, squeeze=False)
    # From left to right: the scene, a map a method, the heads.
    for axes, (shown_scene, place) in zip(grid, rows, strict=True):
        scene, results = shown_scene.scene, shown_scene.results
        target = scene["labels"][place]
        mask = scene["masks"][target]
        axes[0].imshow(_enlarge(scene["image"]))
        axes[0].contour(np.kron(mask, np.ones((_ENLARGED, _ENLARGED))), levels=[0.5], colors="white", linewidths=1)
        axes[0].set_title(f"{mask.mean():.0%} of the picture", fontsize="medium")
        axes[0].set_xlabel(f"taken out: {-shown_scene.effects[place]:+z.1f} logits", fontsize="small")
        axes[0].set_ylabel(f"why {results['recommended'][place]['label']!r}?")
        for ax, method in zip(axes[1:], METHODS, strict=False):
            own, other = shares_on_garments(scene, results[method][place])
            ax.imshow(_picture(scene["image"], results[method][place]))
            ax.set_title(f"{method}: {own:.0%} on it", fontsize="medium")
            failed = method == "recommended" and not points_right(scene, results[method][place])
            ax.set_xlabel(f"{other:.0%} on the other{': misleading' if failed else ''}", fontsize="small")
        for ax in axes[:-1]:
            ax.set(xticks=[], yticks=[])
        contribution = results["recommended"][place]["head_contribution"]
        title, unit = HEAD_TITLES["head_contribution"]
        plot_head_importance(contribution, title=f"{title} (recommended)", label=unit, ax=axes[-1])
        axes[-1].title.set_fontsize("small")  # which the colour bar leaves room for
    return figure


def _head_maps(image: "Image.Image", result: "ExplanationResult") -> "Figure":
    """Draw a scene, its map below it, and beside them the maps of all heads."""
    from matplotlib.figure import Figure

    from gmar_hf.plotting import plot_head_maps

    layers, heads, *_ = result["head_maps"].shape
    figure = Figure(figsize=(heads + 4, layers + 0.4), layout="constrained")
    parts: Any = figure.subfigures(1, 2, width_ratios=[3, heads + 1])
    left, right = parts
    shown = {"the scene": _enlarge(image), f"{result['method']}: all heads together": _picture(image, result)}
    for ax, (title, picture) in zip(left.subplots(len(shown)), shown.items(), strict=True):
        ax.imshow(picture)
        ax.set(xticks=[], yticks=[])
        ax.set_title(title, fontsize="small")
    plot_head_maps(
        result["head_maps"], title=f"what each head adds to {result['label']!r}", label="logits", figure=right
    )
    return figure


def _save_figure(figure: Any, path: Path) -> None:
    from gmar_hf.images.own_pictures import MARK

    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=100, metadata=MARK)


def _print(summary: list[dict[str, Any]], out: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("scene", "label", "score", "method", "on it", "on the other", "taken out")
    for entry in summary:
        table.add_row(
            str(entry["scene"]),
            entry["label"],
            f"{entry['score']:z.3f}",
            entry["method"],
            f"{entry['energy_on_target']:.0%}",
            f"{entry['energy_on_other']:.0%}",
            f"{-entry['logit_drop_without_target']:+z.1f}",
        )
    Console().print(table)
    typer.echo("on it: share of the map on the label's garment; taken out: what its logit does without that garment")
    if not summary[-1]["points_right"]:
        typer.echo(_FAILURE.format(summary[-1]["scene"]))
    typer.echo(f"Look at {printable(out / _SHEET)} and {printable(out / _HEADS)}")
