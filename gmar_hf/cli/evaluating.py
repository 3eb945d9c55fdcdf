"""`gmar-hf evaluate`: maps of all kinds measured side by side over a data set."""

import os
import sys
from pathlib import Path
from typing import Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from ..evaluation import Evaluation, evaluate
from ..evaluation.measures import NEED_MASKS
from ..labels import printable, quantity
from ..processes import joined, together
from .subjects import find_subject, interruptible, read_label_map

_DEMO_SCENES = 64
_SHORT = {
    "insertion_minus_deletion": "i-d",
    "energy_pointing_game": "energy",
    "pointing_game": "point",
    "class_sensitivity": "class corr.",
}
_MOST_COLUMNS = 6


def make_evaluation(
    *,
    model: str | None,
    revision: str | None,
    data: str | None,
    demo_name: str | None,
    label_map: Path | None,
    methods: list[str] | None,
    metrics: list[str] | None,
    baselines: list[str] | None,
    out: Path,
    settings: dict[str, Any],
    show: bool,
) -> dict[str, Any] | None:
    """Evaluate maps and write the results; of several processes the first one prints.

    Args:
        model, revision (`str`, *optional*): Whose maps.
        data (`str`, *optional*): On what.
        demo_name (`str`, *optional*): In place of both: a bundled model, on its scenes.
        label_map (`Path`, *optional*): A JSON file.
        methods, metrics, baselines (`list[str]`, *optional*): Names, also several in one text, between commas.
        out (`Path`): The folder.
        settings (`dict[str, Any]`): Of [`evaluate`].
        show (`bool`): Whether to print a table.

    Returns:
        `dict`: Counts, the folder and the page; None in all processes but the first.

    Raises:
        typer.Exit: With code 130, after Ctrl-C or SIGTERM.
    """
    accelerator = joined(None)
    chosen: dict[str, Any] = {
        name: [part.strip() for text in texts for part in text.split(",")]
        for name, texts in (("methods", methods), ("metrics", metrics), ("baselines", baselines))
        if texts
    }
    if any(":" in name for name in chosen.get("methods", ())) and "" not in sys.path:
        sys.path.append(os.getcwd())  # where whoever types module:function has the module; after all that is installed

    def prepare() -> tuple[Any, ...]:
        num_scenes = settings["limit"] or _DEMO_SCENES
        return *find_subject(model, revision, data, demo_name, num_scenes), read_label_map(label_map)

    try:
        with interruptible(accelerator, out):
            classifier, image_processor, dataset, names, label_names = together(prepare)
            evaluation = evaluate(
                classifier,
                dataset,
                image_processor,
                output_dir=out,
                label_map=label_names,
                accelerator=accelerator,
                **names,
                **chosen,
                **settings,
            )
        if not accelerator.is_main_process:
            return None
    finally:
        accelerator.end_training()
    if show:
        _print(evaluation, out)
    return {
        "out": str(out),
        "page": str(out / "index.html"),
        "results": str(out / "results.json"),
        "num_images": evaluation.num_images,
        "num_rows": len(evaluation.rows),
        "num_unreadable": evaluation.settings["counts"]["num_unreadable"],
    }


def _print(evaluation: Evaluation, out: Path) -> None:
    summary = evaluation.summary()
    columns = sorted(evaluation.metrics, key=lambda column: column.function not in _SHORT)[:_MOST_COLUMNS]
    table = Table(box=SIMPLE_HEAD, collapse_padding=True, pad_edge=False)  # 80 columns must do
    table.add_column("map", no_wrap=True)
    for column in columns:
        title = _SHORT.get(column.function, column.function.replace("_", " "))
        table.add_column(f"{title} {column.baseline}" if column.baseline else title, justify="right")
    table.add_column("cost", justify="right")
    table.add_column("ms", justify="right")
    marked = False
    for method in evaluation.methods:
        cells = []
        for column in columns:
            mean = summary[method["name"]][column.key]["mean"]
            own = method["baseline"] is not None and method["baseline"] == column.baseline
            marked = marked or own
            cells.append("-" if mean is None else f"{mean:z.2f}{'*' if own else ''}")
        forwards = "-" if method["forwards"] is None else f"{method['forwards']:g}"
        table.add_row(printable(method["name"]), *cells, forwards, f"{method['milliseconds']:.1f}")
    Console().print(table)
    if any(column.function == "insertion_minus_deletion" for column in columns):
        typer.echo("i-d: insertion minus deletion, with hidden patches filled in this way.")
    if any(summary[method["name"]][column.key]["mean"] is None for method in evaluation.methods for column in columns):
        typer.echo('-: no figure; masks are missing, or for "other" a second image in the batch.')
    if marked:
        typer.echo("* made with this very baseline, under which it shines. Baselines disagree: believe none alone.")
    placed = [column.key for column in evaluation.metrics if column.function in NEED_MASKS]
    if placed:
        known = max(by_metric[key]["num_rows"] for by_metric in summary.values() for key in placed)
        if known < len(evaluation.rows):
            typer.echo(f"Masks say where the object is for {known} of {len(evaluation.rows)} explained classes.")
    counts = evaluation.settings["counts"]
    told = f"{evaluation.num_images} images, {len(evaluation.rows)} explained classes"
    if counts["num_unreadable"]:
        told += f", {counts['num_unreadable']} unreadable"
    if counts["num_unlabelled"]:
        told += f", {counts['num_unlabelled']} without a label"
    left_out = len(evaluation.metrics) - len(columns)
    if left_out:
        typer.echo(f"{quantity(left_out, 'more column')}, and all intervals, are on the page.")
    typer.echo(f"{told}. All figures with intervals, curves and pictures: {printable(out / 'index.html')}")
