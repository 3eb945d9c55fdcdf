"""`gmar-hf merge`: reports of separate jobs over parts of the data as one."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gmar_hf.cli.app import command, echo_json, tell
from gmar_hf.cli.options import JsonOption
from gmar_hf.errors import ArgumentError
from gmar_hf.utils.text import printable, quantity

if TYPE_CHECKING:
    from gmar_hf.report.head_importance_report import HeadImportanceReport

# What only some surveys look for, by the name that users know: the whole has what all of its parts have.
_EXTRAS: dict[str, Callable[["HeadImportanceReport"], Any]] = {
    "means of the heads' outputs": lambda report: report.means,
    "descriptions of heads": lambda report: report.traits,
    "images of heads": lambda report: report.settings.get("top_images"),
}


@dataclass(frozen=True, kw_only=True)
class MergeOptions:
    """The arguments of `gmar-hf merge`."""

    reports: Annotated[list[str], typer.Argument(metavar="REPORT", help="Folders or Hub ids of reports.")]
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FOLDER", help="Folder for the whole report.")]
    force: Annotated[bool, typer.Option("--force", help="Replace a finished report in the folder.")] = False
    overwrite_card: Annotated[
        bool, typer.Option("--overwrite-card", help="Replace a README.md that was written by hand, too.")
    ] = False
    as_json: JsonOption = False


@command(MergeOptions, example="gmar-hf merge part-1 part-2 part-3 --out heads")
def merge(options: MergeOptions) -> None:
    """Make one report of several over parts of the data (gmar-hf report --part 1/3, ...), as one survey would have."""
    from gmar_hf.report.page import PAGE_FILE
    from gmar_hf.report.report_files import check_no_others, check_no_report

    if len(options.reports) < 2:
        raise ArgumentError("`REPORT...` must name at least two reports; got one. Name all that are to be merged.")
    check_no_others("`--out`", options.out, with_page=True)
    if not options.force:
        check_no_report(options.out)
    merged, lost = _merged(options.reports)
    merged.save_pretrained(options.out, overwrite_card=options.overwrite_card)
    merged.write_page(options.out / PAGE_FILE)
    summary = {
        "out": str(options.out),
        "num_reports": len(options.reports),
        **merged.settings["counts"],
        "datasets": [dataset["id"] for dataset in merged.settings["datasets"]],
        "missing_parts": _missing_parts(merged.settings["datasets"]),
        "left_out": lost,
    }
    if options.as_json:
        echo_json(summary)
    else:
        _print(summary)


def _merged(names: list[str]) -> tuple["HeadImportanceReport", list[str]]:
    """Load one report after the other, and return all as one, with what not all of them have."""
    from gmar_hf.report.head_importance_report import HeadImportanceReport
    from gmar_hf.report.merging import merge_two

    merged = HeadImportanceReport.from_pretrained(names[0])
    had = {extra for extra, find in _EXTRAS.items() if find(merged) is not None}
    for number, name in enumerate(names[1:], start=2):
        tell(f"Merging report {number} of {len(names)} ...")
        report = HeadImportanceReport.from_pretrained(name)
        had |= {extra for extra, find in _EXTRAS.items() if find(report) is not None}
        merged = merge_two(merged, report, repr(name))
    return merged, [extra for extra, find in _EXTRAS.items() if extra in had and find(merged) is None]


def _missing_parts(datasets: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the parts that nobody has surveyed, of data sets that were cut."""
    return [
        {"data": dataset["id"], "count": dataset["parts"]["count"], "missing": missing}
        for dataset in datasets
        if dataset.get("parts")
        for missing in [sorted(set(range(1, dataset["parts"]["count"] + 1)) - set(dataset["parts"]["numbers"]))]
    ]


def _print(summary: dict[str, Any]) -> None:
    from gmar_hf.report.settings import parts_in_words

    typer.echo(
        f"{summary['num_reports']} reports: {quantity(summary['num_images'], 'image')}, "
        f"{quantity(summary['num_explanations'], 'explanation')}. The whole is in {printable(summary['out'])}"
    )
    for entry in summary["missing_parts"]:
        words = parts_in_words({"numbers": entry["missing"], "count": entry["count"]})
        typer.echo(f"gmar-hf: of {printable(entry['data'])} {words} is not among them.", err=True)
    if summary["left_out"]:
        typer.echo(
            f"gmar-hf: the whole is without {' and '.join(summary['left_out'])}, which not all reports have.", err=True
        )
