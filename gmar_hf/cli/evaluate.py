"""`gmar-hf evaluate`: maps of all kinds measured side by side over a data set."""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from gmar_hf.cli.app import JsonOption, RevisionOption, app, echo_json
from gmar_hf.cli.options import (
    DataOption,
    DataRevisionOption,
    DemoOption,
    LabelMapOption,
    LimitOption,
    NoLabelsOption,
    NoResumeOption,
    ShuffleOption,
    SplitOption,
    SubjectOption,
    SurveyTarget,
    TargetOption,
    UnreadableOption,
    WorkersOption,
    find_subject,
    interruptible,
    read_label_map,
)
from gmar_hf.evaluation import Evaluation, evaluate
from gmar_hf.evaluation.columns import NEED_MASKS
from gmar_hf.runs.processes import joined, together
from gmar_hf.utils.text import printable, quantity

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


@app.command("evaluate")
def run_evaluate(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for checkpoints and results.")],
    model: SubjectOption = None,
    data: DataOption = None,
    demo: DemoOption = None,
    methods: Annotated[
        list[str] | None,
        typer.Option(
            help="Maps, between commas or repeated: contribution, masked-contribution, partition-contribution, "
            "gradient-rollout, gmar-l1, gmar-l2, rollout, attention, legrad, gmar-shuffled, edges, centre-blob, "
            "random (these by default), gmar-uniform; with pip install 'gmar-hf[compare]' integrated-gradients, "
            "occlusion, input-x-gradient, grad-cam; or module:function of your own.",
        ),
    ] = None,
    metrics: Annotated[
        list[str] | None,
        typer.Option(
            help="Functions of gmar_hf.metrics, between commas or repeated: insertion, deletion, "
            "insertion_minus_deletion, pointing_game, energy_pointing_game, pixel_average_precision, iou, "
            "energy_on_other (these five with masks), class_sensitivity, sparseness (these by default), "
            "positive_perturbation, negative_perturbation, saco, average_drop, average_increase, average_gain.",
        ),
    ] = None,
    baselines: Annotated[
        list[str] | None,
        typer.Option(
            help="What hidden patches show: blur, zero, other (these by default), mean, black; between commas or "
            "repeated.",
        ),
    ] = None,
    target: TargetOption = SurveyTarget.PREDICTED,
    masks: Annotated[
        Path | None, typer.Option(help="Folder with a mask for each image, of the same relative path.")
    ] = None,
    split: SplitOption = None,
    revision: RevisionOption = None,
    data_revision: DataRevisionOption = None,
    batch_size: Annotated[
        int, typer.Option(min=1, help='Images explained at once; "other" fills with the one before in the batch.')
    ] = 16,
    num_steps: Annotated[int, typer.Option(min=1, help="Of insertion and deletion.")] = 16,
    limit: LimitOption = None,
    shuffle_seed: ShuffleOption = None,
    label_map: LabelMapOption = None,
    no_labels: NoLabelsOption = False,
    num_workers: WorkersOption = 0,
    max_unreadable: UnreadableOption = 0.01,
    no_resume: NoResumeOption = False,
    force: Annotated[bool, typer.Option("--force", help="Replace finished results.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Which map to believe: measure maps side by side on a data set. Also under accelerate launch and torchrun."""

    summary = make_evaluation(
        model=model,
        revision=revision,
        data=data,
        demo_name=demo,
        label_map=label_map,
        methods=methods,
        metrics=metrics,
        baselines=baselines,
        out=out,
        settings={
            "masks": masks,
            "split": split,
            "data_revision": data_revision,
            "target": target.value,
            "batch_size": batch_size,
            "num_steps": num_steps,
            "limit": limit,
            "shuffle_seed": shuffle_seed,
            "use_labels": not no_labels,
            "num_workers": num_workers,
            "max_unreadable": max_unreadable,
            "resume": not no_resume,
            "force": force,
        },
        show=not as_json,
    )
    if as_json and summary is not None:
        echo_json(summary)
