"""`gmar-hf compare`: two reports side by side."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gmar_hf.cli.app import command, echo_json
from gmar_hf.cli.options import JsonOption
from gmar_hf.utils.text import printable, quantity

if TYPE_CHECKING:
    from gmar_hf.report.head_importance_report import HeadImportanceReport


@dataclass(frozen=True, kw_only=True)
class CompareOptions:
    """The arguments of `gmar-hf compare`."""

    first: Annotated[str, typer.Argument(metavar="A", help="Folder or Hub id of a report.")]
    second: Annotated[str, typer.Argument(metavar="B", help="Folder or Hub id of another.")]
    as_json: JsonOption = False


@command(CompareOptions, example="gmar-hf compare before after")
def compare(options: CompareOptions) -> None:
    """Compare two reports: do they rank the heads alike, and which heads moved?"""
    from gmar_hf.models.weight_sample import same_weights
    from gmar_hf.report.head_importance_report import HeadImportanceReport

    names = (options.first, options.second)
    before, after = (HeadImportanceReport.from_pretrained(name) for name in names)
    comparison = asdict(before.compare(after))
    summary = {
        "reports": [_describe(name, report) for name, report in zip(names, (before, after), strict=True)],
        "same_weights": same_weights(before.weight_sample, after.weight_sample),
        "same_image_processing": _same_processing(before.settings, after.settings),
        "rank_correlation": {key: _finite(value) for key, value in comparison["rank_correlation"].items()},
        "num_heads": comparison["num_heads"],
        "bound": comparison["bound"],
        "num_changed": comparison["num_changed"],
        "moved": [{name: _finite(value) for name, value in head.items()} for head in comparison["moved"]],
    }
    if options.as_json:
        echo_json(summary)
    else:
        _print(summary)


def _describe(name: str, report: "HeadImportanceReport") -> dict[str, Any]:
    settings = report.settings
    return {
        "report": name,
        "model": settings["model"]["id"],
        "state": settings["model"].get("state"),
        "datasets": [dataset["id"] for dataset in settings["datasets"]],
        "target": settings["target"],
        "num_images": report.num_images,
        "image_processing": settings.get("image_processing"),
    }


def _same_processing(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool | None:
    """Tell whether images were processed alike; None where a report does not say."""
    digests = [settings.get("image_processor") for settings in (before, after)]
    return None if None in digests else digests[0] == digests[1]


def _finite(value: Any) -> Any:
    """Return the value, or None for a number that JSON lacks."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _print(summary: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    from gmar_hf.report.settings import processing_in_words

    # What is compared, and whether it is of one model.
    for letter, report in zip("AB", summary["reports"], strict=True):
        data = " and ".join(report["datasets"])
        aim = "its labels" if report["target"] == "label" else "the predicted class"
        state = f" with {report['state']}" if report["state"] else ""
        typer.echo(
            printable(
                f"{letter}: {report['report']}, of {report['model']}{state} over {report['num_images']:,} images "
                f"of {data}, each explained for {aim}"
            )
        )
    states = {report["state"] for report in summary["reports"]}
    if not summary["same_weights"]:
        typer.echo("They are of models with different weights.")
    else:
        typer.echo("Both are of one model." if len(states) == 1 else "Both are of one model, in two states.")
    if summary["same_image_processing"] is False:
        typer.echo("Their images were processed otherwise, which alone can move heads:")
        for letter, report in zip("AB", summary["reports"], strict=True):
            told = processing_in_words(report["image_processing"] or {}) or "not told"
            typer.echo(f"{letter}: {printable(told)}")
    typer.echo(_in_short(summary))
    # How alike the heads rank by each score, then which heads moved.
    table = Table("score", "rank correlation of all heads")
    for key, value in summary["rank_correlation"].items():
        table.add_row(key, "none: all heads alike" if value is None else f"{value:z.3f}")
    Console().print(table)
    if not summary["moved"]:
        return
    table = Table("layer.head", "rank in A -> B", "contribution_abs in A -> B (logits)", "z")
    for head in summary["moved"]:
        table.add_row(
            f"{head['layer']}.{head['head']}",
            f"{head['rank_before']:g} -> {head['rank_after']:g}",
            f"{head['mean_before']:z.3f} -> {head['mean_after']:z.3f}",
            "none" if head["z"] is None else f"{head['z']:+z.1f}",
        )
    Console().print(table)
    typer.echo(
        "These heads changed most, by chance or not. z is the change of contribution_abs in its standard errors, as "
        "if the two sets of images had been drawn apart: of the same images it is too small."
    )


def _in_short(summary: dict[str, Any]) -> str:
    """Say in one sentence how far the two agree."""
    from gmar_hf.report.certainty import FEW_IMAGES

    num_heads, num_changed = summary["num_heads"], summary["num_changed"]
    if not summary["moved"]:
        return "Both give every head the same mean size of its contribution (contribution_abs)."
    correlation = summary["rank_correlation"][summary["moved"][0]["score"]]
    alike = "" if correlation is None else f"Their rankings of the heads agree by {correlation:z.2f} (1: wholly); "
    if summary["bound"] is None:
        return f"{alike}a report of fewer than {FEW_IMAGES} explanations cannot tell changes of its heads from chance."
    verb = "differ" if num_changed > 1 else "differs"
    changed = f"{quantity(num_changed, 'head')} of {num_heads}" if num_changed else f"none of {num_heads} heads"
    return f"{alike}{changed} {verb} by more than chance explains (|z| above {summary['bound']:.1f})."
