"""`gmar-hf compare`: two reports side by side."""

import math
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from gmar_hf.cli.app import JsonOption, app, echo_json
from gmar_hf.models.weight_sample import same_weights
from gmar_hf.report.report import HeadImportanceReport
from gmar_hf.utils.text import printable


def compare_reports(first: str, second: str, *, show: bool) -> dict[str, Any]:
    """Compare two reports, each a folder or a repository on the Hub.

    Args:
        first, second (`str`): Folders or repo ids.
        show (`bool`): Whether to print tables.

    Returns:
        `dict`: What was compared, rank correlations by score, and the heads that moved; None for what is no number.
    """
    before, after = (HeadImportanceReport.from_pretrained(name) for name in (first, second))
    comparison = asdict(before.compare(after))
    summary = {
        "reports": [_described(name, report) for name, report in ((first, before), (second, after))],
        "same_weights": same_weights(before.weight_sample, after.weight_sample),
        "rank_correlation": {key: _finite(value) for key, value in comparison["rank_correlation"].items()},
        "moved": [{name: _finite(value) for name, value in head.items()} for head in comparison["moved"]],
    }
    if show:
        _print(summary)
    return summary


def _described(name: str, report: HeadImportanceReport) -> dict[str, Any]:
    settings = report.settings
    return {
        "report": name,
        "model": settings["model"]["id"],
        "datasets": [one["id"] for one in settings["datasets"]],
        "target": settings["target"],
        "num_images": report.num_images,
    }


def _finite(value: Any) -> Any:
    """The value, or None for a number that JSON lacks."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _print(summary: dict[str, Any]) -> None:
    for letter, one in zip("AB", summary["reports"], strict=True):
        data = printable(" and ".join(one["datasets"]))
        aim = "its labels" if one["target"] == "label" else "the predicted class"
        typer.echo(
            f"{letter}: {printable(one['report'])}, of {printable(one['model'])} over {one['num_images']:,} images of "
            f"{data}, each explained for {aim}"
        )
    typer.echo("Both are of one model." if summary["same_weights"] else "They are of models with different weights.")
    table = Table("score", "rank correlation of all heads")
    for key, value in summary["rank_correlation"].items():
        table.add_row(key, "none: all heads alike" if value is None else f"{value:.3f}")
    Console().print(table)
    if not summary["moved"]:
        typer.echo("Both rank all heads alike by the mean size of their contribution (contribution_abs).")
        return
    table = Table("layer.head", "rank in A -> B", "contribution_abs in A -> B (logits)", "z")
    for head in summary["moved"]:
        table.add_row(
            f"{head['layer']}.{head['head']}",
            f"{head['rank_before']:g} -> {head['rank_after']:g}",
            f"{head['mean_before']:.3f} -> {head['mean_after']:.3f}",
            "none" if head["z"] is None else f"{head['z']:+.1f}",
        )
    Console().print(table)
    typer.echo(
        "These heads changed their rank by contribution_abs most. z is the change in its standard errors, as if the "
        "two sets of images had been drawn apart."
    )


@app.command()
def compare(
    first: Annotated[str, typer.Argument(metavar="A", help="Folder or Hub id of a report.")],
    second: Annotated[str, typer.Argument(metavar="B", help="Folder or Hub id of another.")],
    as_json: JsonOption = False,
) -> None:
    """Compare two reports: do they rank the heads alike, and which heads moved?"""

    summary = compare_reports(first, second, show=not as_json)
    if as_json:
        echo_json(summary)
