"""`gmar-hf report`: a survey over a data set, its report in a folder and on the Hub."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gmar_hf.cli.app import command, echo_json
from gmar_hf.cli.data_run import run_over_data
from gmar_hf.cli.options import DataOptions
from gmar_hf.errors import ArgumentError, GMARError
from gmar_hf.utils.text import printable, quantity

if TYPE_CHECKING:
    from gmar_hf.report.head_importance_report import HeadImportanceReport

_DEMO_SCENES = 200


@dataclass(frozen=True, kw_only=True)
class ReportOptions(DataOptions):
    """The options of `gmar-hf report`."""

    streaming: Annotated[bool, typer.Option("--streaming", help="Do not store a data set of the Hub first.")] = False
    batch_size: Annotated[int, typer.Option(metavar="N", min=1, help="Images explained at once.")] = 32
    save_every: Annotated[int, typer.Option(metavar="N", min=1, help="Batches of a process between checkpoints.")] = 20
    until_stable: Annotated[
        float | None,
        typer.Option(metavar="SHARE", help="Stop when standard errors are below this share of the largest mean."),
    ] = None
    describe_heads: Annotated[
        bool, typer.Option("--describe-heads", help="Also report where heads look, and their direct effects.")
    ] = False
    top_images: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Name so many images on which each head adds most.")
    ] = None
    push: Annotated[
        str | None, typer.Option(metavar="REPOSITORY", help="Repository on the Hub to push the report to.")
    ] = None
    part: Annotated[
        str | None,
        typer.Option(metavar="I/N", help="Survey this part only, such as 3/8; gmar-hf merge joins the reports."),
    ] = None
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False
    license: Annotated[
        str | None, typer.Option(metavar="LICENCE", help="The report's own licence, such as cc-by-4.0.")
    ] = None
    overwrite_card: Annotated[
        bool, typer.Option("--overwrite-card", help="Replace a README.md that was written by hand, too.")
    ] = False


@command(ReportOptions, example="gmar-hf report --model MODEL --data FOLDER --out heads")
def report(options: ReportOptions) -> None:
    """Show which heads matter over a data set, in a report for the Hub. Also under accelerate launch and torchrun."""
    from gmar_hf.report.page import PAGE_FILE
    from gmar_hf.report.report_files import CARD_FILE, may_replace_card
    from gmar_hf.surveys.surveying import survey

    settings = options.settings(
        "streaming",
        "batch_size",
        "save_every",
        "until_stable",
        "describe_heads",
        "top_images",
        "license",
        "overwrite_card",
    )
    settings["part"] = None if options.part is None else _read_part(options.part)
    report = run_over_data(survey, options, doing="Measuring the heads of", num_scenes=_DEMO_SCENES, settings=settings)
    if report is None:  # the first process tells
        return
    # The push may fail: the report is in its folder before it.
    summary = {
        "out": str(options.out),
        "page": str(options.out / PAGE_FILE),
        **report.settings["counts"],
        "top_heads": [
            {"layer": layer, "head": head, "contribution_abs": value} for layer, head, value in _strongest(report, 5)
        ],
        "url": _push(report, options),
    }
    is_kept = not may_replace_card(options.out / CARD_FILE)
    if options.as_json:
        echo_json(summary)
    else:
        _print(
            report,
            summary,
            f"The report and its page ({PAGE_FILE}) are" if is_kept else f"Report, card and page ({PAGE_FILE}) are",
        )
    if is_kept:
        typer.echo(
            f"gmar-hf: {CARD_FILE} in {printable(options.out)} was written by hand and is kept; --overwrite-card "
            "replaces it.",
            err=True,
        )


def _read_part(text: str) -> tuple[int, int]:
    number, slash, count = text.partition("/")
    if not (slash and number.isdecimal() and count.isdecimal()):
        raise ArgumentError(f"`--part` must be a number and a count, such as 3/8; got {text!r:.40}.")
    return int(number), int(count)


def _push(report: "HeadImportanceReport", options: ReportOptions) -> str | None:
    """Push the report if the user asks for it, and return the address of the commit."""
    if options.push is None:
        return None
    try:
        private = options.private or None
        return str(report.push_to_hub(options.push, private=private, overwrite_card=options.overwrite_card))
    except GMARError as error:
        folder = str(options.out)
        raise GMARError(
            f"{error} The report itself is complete in {folder!r}; push it with "
            f"`HeadImportanceReport.from_pretrained({folder!r}).push_to_hub({options.push!r})`."
        ) from error


def _strongest(report: "HeadImportanceReport", count: int) -> list[tuple[int, int, float]]:
    return report.top_heads(min(count, report.overall.num_heads))


def _print(report: "HeadImportanceReport", summary: dict[str, Any], written: str) -> None:
    from rich.console import Console
    from rich.table import Table

    from gmar_hf.report.certainty import remarks

    scores = ("contribution_abs", "contribution", "contribution_centred", "l1_weight")
    table = Table("layer.head", *scores, padding=(0, 0))  # whole names in 80 columns
    for layer, head, value in _strongest(report, 10):
        error = report.standard_error["contribution_abs"][layer, head]
        table.add_row(
            f"{layer}.{head}",
            f"{value:.3f} ± {error:.3f}" if error.isfinite() else f"{value:.3f}",  # of one explanation nobody knows it
            f"{report.mean['contribution'][layer, head]:+z.3f}",
            f"{report.mean['contribution_centred'][layer, head]:+z.3f}",
            f"{report.mean['l1_weight'][layer, head]:.1%}",
        )
    Console().print(table)
    typer.echo(
        "Means, in logits: contribution_abs is the size of what a head adds or takes, contribution the same, signed,"
    )
    typer.echo("contribution_centred what is beyond its average output; l1_weight is its share of the layer in GMAR.")
    for remark in remarks(report.overall, report.num_images):
        typer.echo(remark)
    counts = f"{quantity(summary['num_images'], 'image')}, {quantity(summary['num_explanations'], 'explanation')}"
    if summary["num_unreadable"]:
        from gmar_hf.report.settings import named_unreadable

        counts += f", {summary['num_unreadable']} unreadable{named_unreadable(report.settings)}"
    typer.echo(f"{counts}. {written} in {printable(summary['out'])}")
    typer.echo(f"Look first at {printable(summary['page'])}")
    if summary["url"]:
        typer.echo(f"Pushed to {printable(summary['url'])}")
