"""`gmar-hf evaluate`: maps of all kinds measured side by side over a data set."""

import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gmar_hf.cli.app import command, echo_json
from gmar_hf.cli.data_run import run_over_data
from gmar_hf.cli.options import DataOptions
from gmar_hf.evaluation.maps.map_registry import BUILT_IN, DEFAULT_METHODS, NAMES_IN_EXPLAIN
from gmar_hf.metrics.registry import DEFAULT_BASELINES, KNOWN_BASELINES, METRICS
from gmar_hf.utils.text import printable, quantity

if TYPE_CHECKING:
    from gmar_hf.evaluation.results import Evaluation

_DEMO_SCENES = 64
_SHORT = {
    "insertion_minus_deletion": "i-d",
    "energy_pointing_game": "energy",
    "pointing_game": "point",
    "grid_pointing_game": "GridPG",
    "right_quadrant": "quadrant",
    "class_sensitivity": "class corr.",
    "insertion": "ins.",
    "deletion": "del.",
}
_MOST_COLUMNS = 6


def _listed(defaults: Sequence[str], names: Iterable[str]) -> str:
    """List names for a help text: those that are taken by default first."""
    more = [name for name in names if name not in defaults]
    return ", ".join([*defaults[:-1], f"{defaults[-1]} (these by default)", *more])


def _maps_help() -> str:
    shown = {method.name: method.name for method in BUILT_IN}
    shown |= {row: f"{name} ({row})" for name, row in NAMES_IN_EXPLAIN.items()}
    by_default = [shown[name] for name in DEFAULT_METHODS]
    light = _listed(by_default, [shown[method.name] for method in BUILT_IN if not method.needs])
    more = [method for method in BUILT_IN if method.needs]
    packages = " ".join(sorted({package for method in more for package in method.needs}))
    return (
        f"Maps, between commas or repeated: {light}; after `pip install {packages}` "
        f"{', '.join(method.name for method in more)}; or module:function of your own."
    )


def _metrics_help() -> str:
    placed = ", ".join(entry.name for entry in METRICS.values() if entry.needs_masks)
    free = [entry for entry in METRICS.values() if not entry.needs_masks]
    listed = _listed([entry.name for entry in free if entry.is_default], [entry.name for entry in free])
    return f"Figures, between commas or repeated: {listed}; with masks by default also {placed}."


def _baselines_help() -> str:
    return f"What hidden patches show, between commas or repeated: {_listed(DEFAULT_BASELINES, KNOWN_BASELINES)}."


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(DataOptions):
    """The options of `gmar-hf evaluate`."""

    methods: Annotated[list[str] | None, typer.Option(metavar="NAME", help=_maps_help())] = None
    metrics: Annotated[list[str] | None, typer.Option(metavar="NAME", help=_metrics_help())] = None
    baselines: Annotated[list[str] | None, typer.Option(metavar="NAME", help=_baselines_help())] = None
    mosaics: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=2, help="Explain mosaics of so many of the photos a side; figures need no masks then."
        ),
    ] = None
    masks: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Folder with a mask for each image, of the same relative path."),
    ] = None
    batch_size: Annotated[
        int,
        typer.Option(
            metavar="N", min=1, help='Images explained at once; "other" fills with the one before in the batch.'
        ),
    ] = 16
    num_steps: Annotated[int, typer.Option(metavar="N", min=1, help="Steps of insertion and deletion.")] = 16


@command(EvaluateOptions, example="gmar-hf evaluate --demo vit --methods gmar,recommended --out maps")
def evaluate(options: EvaluateOptions) -> None:
    """Find out which map to believe: measure maps side by side. Also under accelerate launch and torchrun."""
    from gmar_hf.evaluation.evaluating import evaluate

    # A map may be a function of the user's: its module is sought in the folder here, too.
    settings = {**options.settings("mosaics", "masks", "batch_size", "num_steps"), **_names(options)}
    if any(":" in name for name in settings.get("methods", ())) and "" not in sys.path:
        sys.path.append(os.getcwd())  # where whoever types module:function has the module; after all that is installed
    evaluation = run_over_data(
        evaluate, options, doing="Comparing maps of", num_scenes=_DEMO_SCENES, settings=settings
    )
    if evaluation is None:  # the first process tells
        return
    if not options.as_json:
        _print(evaluation, options.out)
        return
    echo_json(
        {
            "out": str(options.out),
            "page": str(options.out / "index.html"),
            "results": str(options.out / "results.json"),
            "verdict": evaluation.verdict().as_dict(),
            "num_images": evaluation.num_images,
            "num_rows": len(evaluation.rows),
            "num_unreadable": evaluation.settings["counts"]["num_unreadable"],
        }
    )


def _names(options: EvaluateOptions) -> dict[str, Any]:
    """Return the maps, metrics and baselines that were named, each alone; what was not named is left out."""
    named = {name: getattr(options, name) for name in ("methods", "metrics", "baselines")}
    return {
        name: [part.strip() for text in texts for part in text.split(",")] for name, texts in named.items() if texts
    }


def _place(metric: str) -> int:
    """Return where a metric stands in the table, which has no room for all."""
    return list(_SHORT).index(metric) if metric in _SHORT else len(_SHORT)


def _print(evaluation: "Evaluation", out: Path) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    from gmar_hf.evaluation.maps.map_lookup import shown_name
    from gmar_hf.evaluation.rows_and_columns import is_made_with

    typer.echo(evaluation.verdict().text)
    summary = evaluation.summary()
    columns = sorted(evaluation.metrics, key=lambda column: _place(column.function))[:_MOST_COLUMNS]
    # The table: a row a map, a star at a figure whose baseline the map was made with.
    table = Table(box=SIMPLE_HEAD, collapse_padding=True, pad_edge=False)  # 80 columns must do
    table.add_column("map", no_wrap=True)
    for column in columns:
        title = _SHORT.get(
            column.function, column.function.replace("insertion_minus_deletion", "i-d").replace("_", " ")
        )
        table.add_column(f"{title} {column.baseline}" if column.baseline else title, justify="right")
    table.add_column("cost", justify="right")
    table.add_column("ms", justify="right")
    marked = False
    for method in evaluation.methods:
        cells = []
        for column in columns:
            mean = summary[method["name"]][column.key]["mean"]
            made_with = is_made_with(method, column.baseline)
            marked = marked or made_with
            cells.append("-" if mean is None else f"{mean:z.2f}{'*' if made_with else ''}")
        forwards = "-" if method["forwards"] is None else f"{method['forwards']:g}"
        name = shown_name(method["name"]).replace(" (", "\n(")  # on two lines: 80 columns must do
        table.add_row(name, *cells, forwards, f"{method['milliseconds']:.1f}")
    Console().print(table)
    # What the marks and short names mean, where they occur.
    if any(column.function == "insertion_minus_deletion" for column in columns):
        typer.echo("i-d: insertion minus deletion (ins., del.), with hidden patches filled in this way.")
    if any(summary[method["name"]][column.key]["mean"] is None for method in evaluation.methods for column in columns):
        typer.echo('-: no figure; masks are missing, or for "other" a second image in the batch.')
    if marked:
        typer.echo("* made with this very baseline, under which it shines. Baselines disagree: believe none alone.")
    placed = [column.key for column in evaluation.metrics if METRICS[column.function].needs_masks]
    if placed:
        known = max(by_metric[key]["num_rows"] for by_metric in summary.values() for key in placed)
        if known < len(evaluation.rows):
            typer.echo(f"Masks say where the object is for {known} of {len(evaluation.rows)} explained classes.")
    # What was measured, and where all of it is.
    counts = evaluation.settings["counts"]
    told = f"{quantity(evaluation.num_images, 'image')}, {len(evaluation.rows)} explained class"
    told += "es" * (len(evaluation.rows) != 1)
    if counts["num_unreadable"]:
        told += f", {counts['num_unreadable']} unreadable"
    if counts["num_unlabelled"]:
        told += f", {counts['num_unlabelled']} without a label"
    left_out = len(evaluation.metrics) - len(columns)
    if left_out:
        typer.echo(f"{quantity(left_out, 'more column')}, and all intervals, are on the page.")
    typer.echo(f"{told}. Figures, intervals and curves are in {printable(out)}")
    typer.echo(f"Look first at {printable(out / 'index.html')}")
