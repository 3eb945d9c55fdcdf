"""`gmar-hf report`: a survey over a data set, its report in a folder and on the Hub."""

from pathlib import Path
from typing import Annotated, Any

import typer
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
from gmar_hf.errors import GMARError
from gmar_hf.report.files import CARD_FILE, may_replace_card
from gmar_hf.report.report import HeadImportanceReport
from gmar_hf.runs.processes import joined, together
from gmar_hf.surveys.surveying import survey
from gmar_hf.utils.text import printable, quantity


def make_report(
    *,
    model: str | None,
    revision: str | None,
    data: str | None,
    demo_name: str | None,
    label_map: Path | None,
    out: Path,
    push: str | None,
    private: bool,
    settings: dict[str, Any],
    show: bool,
) -> dict[str, Any] | None:
    """Survey a data set and write the report; of several processes the first one prints and pushes.

    Args:
        model, revision (`str`, *optional*): What is surveyed.
        data (`str`, *optional*): On what.
        demo_name (`str`, *optional*): In place of both: a bundled model, on its scenes.
        label_map (`Path`, *optional*): A JSON file.
        out (`Path`): The folder.
        push (`str`, *optional*): Repository on the Hub.
        private (`bool`): Whether a new repository there is private.
        settings (`dict[str, Any]`): Of [`survey`].
        show (`bool`): Whether to print a table.

    Returns:
        `dict`: Counts, the strongest heads, the folder, and the address it was pushed to; None in all processes
            but the first.

    Raises:
        typer.Exit: With code 130, after Ctrl-C or SIGTERM.
    """
    accelerator = joined(None)

    def prepare() -> tuple[Any, ...]:
        return *find_subject(model, revision, data, demo_name, settings["limit"] or 200), read_label_map(label_map)

    with interruptible(accelerator, out):
        classifier, image_processor, dataset, names, label_names = together(prepare)
        report = survey(
            classifier,
            dataset,
            image_processor,
            output_dir=out,
            label_map=label_names,
            accelerator=accelerator,
            **names,
            **settings,
        )
    try:
        if not accelerator.is_main_process:
            return None
        url = _push(report, push, private, settings["overwrite_card"], out)
    finally:
        accelerator.end_training()
    summary = {
        "out": str(out),
        **report.settings["counts"],
        "top_heads": [
            {"layer": layer, "head": head, "contribution_abs": value} for layer, head, value in _strongest(report, 5)
        ],
        "url": url,
    }
    is_kept = not may_replace_card(out / CARD_FILE)
    if show:
        _print(report, summary, "Report and card are" if not is_kept else "The report is")
    if is_kept:
        typer.echo(
            f"gmar-hf: {CARD_FILE} in {printable(out)} was written by hand and is kept; --overwrite-card replaces it.",
            err=True,
        )
    return summary


def _push(
    report: HeadImportanceReport, repo_id: str | None, private: bool, overwrite_card: bool, out: Path
) -> str | None:
    if repo_id is None:
        return None
    try:
        return str(report.push_to_hub(repo_id, private=private or None, overwrite_card=overwrite_card))
    except GMARError as error:
        raise GMARError(
            f"{error} The report itself is complete in {str(out)!r}; push it with "
            f"`HeadImportanceReport.from_pretrained({str(out)!r}).push_to_hub({repo_id!r})`."
        ) from error


def _strongest(report: HeadImportanceReport, count: int) -> list[tuple[int, int, float]]:
    return report.top_heads(min(count, report.mean["contribution_abs"].numel()))


def _print(report: HeadImportanceReport, summary: dict[str, Any], written: str) -> None:
    table = Table("layer.head", "contribution, absolute (logits)", "contribution (logits)", "L1 weight")
    for layer, head, value in _strongest(report, 10):
        error = report.standard_error["contribution_abs"][layer, head]
        table.add_row(
            f"{layer}.{head}",
            f"{value:.3f} ± {error:.3f}" if error.isfinite() else f"{value:.3f}",  # of one explanation nobody knows it
            f"{report.mean['contribution'][layer, head]:+.3f}",
            f"{report.mean['l1_weight'][layer, head]:.1%}",
        )
    Console().print(table)
    counts = f"{quantity(summary['num_images'], 'image')}, {quantity(summary['num_explanations'], 'explanation')}"
    if summary["num_unreadable"]:
        counts += f", {summary['num_unreadable']} unreadable"
    typer.echo(f"{counts}. {written} in {printable(summary['out'])}")
    if summary["url"]:
        typer.echo(f"Pushed to {printable(summary['url'])}")


@app.command()
def report(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for checkpoints and the report.")],
    model: SubjectOption = None,
    data: DataOption = None,
    demo: DemoOption = None,
    split: SplitOption = None,
    revision: RevisionOption = None,
    data_revision: DataRevisionOption = None,
    streaming: Annotated[bool, typer.Option("--streaming", help="Do not store a data set of the Hub first.")] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Images explained at once.")] = 32,
    target: TargetOption = SurveyTarget.PREDICTED,
    limit: LimitOption = None,
    shuffle_seed: ShuffleOption = None,
    label_map: LabelMapOption = None,
    no_labels: NoLabelsOption = False,
    num_workers: WorkersOption = 0,
    save_every: Annotated[int, typer.Option(min=1, help="Batches of a process between checkpoints.")] = 20,
    until_stable: Annotated[
        float | None, typer.Option(help="Stop when standard errors are below this share of the largest mean.")
    ] = None,
    max_unreadable: UnreadableOption = 0.01,
    no_resume: NoResumeOption = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a finished report.")] = False,
    push: Annotated[str | None, typer.Option(help="Repository on the Hub to push the report to.")] = None,
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    license: Annotated[str | None, typer.Option(help="The report's own licence, such as cc-by-4.0.")] = None,
    overwrite_card: Annotated[
        bool, typer.Option("--overwrite-card", help="Replace a README.md that was written by hand, too.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Which heads matter over a data set: a report for the Hub. Also under accelerate launch and torchrun."""

    summary = make_report(
        model=model,
        revision=revision,
        data=data,
        demo_name=demo,
        label_map=label_map,
        out=out,
        push=push,
        private=private,
        settings={
            "split": split,
            "data_revision": data_revision,
            "streaming": streaming,
            "batch_size": batch_size,
            "target": target.value,
            "limit": limit,
            "shuffle_seed": shuffle_seed,
            "use_labels": not no_labels,
            "num_workers": num_workers,
            "save_every": save_every,
            "until_stable": until_stable,
            "max_unreadable": max_unreadable,
            "resume": not no_resume,
            "force": force,
            "license": license,
            "overwrite_card": overwrite_card,
        },
        show=not as_json,
    )
    if as_json and summary is not None:
        echo_json(summary)
