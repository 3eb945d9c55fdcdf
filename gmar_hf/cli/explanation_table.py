"""What `gmar-hf explain` prints of explained images: a table, where to look, and what puzzles people."""

import math
from pathlib import Path
from typing import Any

import typer

from gmar_hf.cli.image_arguments import shortest_names
from gmar_hf.explanation.methods import why_heads_differ
from gmar_hf.utils.text import printable


def print_table(summary: list[dict[str, Any]], out: Path, page: Path | None = None) -> None:
    """Print a row for each label and method of each image.

    Args:
        summary (`list[dict]`): What is said of each image.
        out (`Path`): The folder of the files.
        page (`Path`, *optional*): The page of all images, where there is one.
    """
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    from gmar_hf.plotting.result_words import has_amounts

    table = Table(Column("image", overflow="fold"), "label", "score", "map", "strongest heads (layer.head)")
    for entry, name in zip(summary, shortest_names([entry["image"] for entry in summary]), strict=True):
        for result in entry.get("results", []):
            heads = ", ".join(_head_text(head, has_amounts(result)) for head in result["top_heads"])
            score = f"{result['score']:z.3f}" if math.isfinite(result["score"]) else "?"
            label = result["label"] + (f" (not {result['versus']})" if "versus" in result else "")
            table.add_row(*(Text(printable(cell)) for cell in (name, label, score, result["method"], heads)))
    if table.row_count:
        Console().print(table)
        typer.echo(f"Overlays, maps and head scores are in {printable(out)}")
        first = out / next(entry["files"]["overlays"][0] for entry in summary if "files" in entry)
        typer.echo(
            f"Look first at {printable(first)}"
            if page is None
            else f"Look first at {printable(page)}: all of it on one page, which can be sent"
        )
        for line in remarks(summary):
            typer.echo(line)
    for entry in summary:
        for result in entry.get("results", []):
            if "note" in result:
                what = f"{entry['image']}, {result['label']}, {result['method']}"
                typer.echo(f"{printable(what)}: {result['note']}")


def remarks(summary: list[dict[str, Any]]) -> list[str]:
    """Return what puzzles people who see the table and the pictures: heads that differ, and what a crop hid."""
    from gmar_hf.images.sight import sight_of_several

    results = [result for entry in summary for result in entry.get("results", []) if result["top_heads"]]
    weighing = [result["method"] for result in results if "head_importance" in result["top_heads"][0]]
    contributing = [result["method"] for result in results if "head_contribution" in result["top_heads"][0]]
    shares = [entry["seen_share"] for entry in summary if "seen_share" in entry]
    return [line for line in (why_heads_differ(contributing, weighing), sight_of_several(shares)) if line]


def _head_text(head: dict[str, Any], is_amount: bool) -> str:
    where = f"{head['layer']}.{head['head']}"
    if "head_contribution" in head and not is_amount:
        return f"{where}: {'-' if head['head_contribution'] < 0 else '+'}"
    if "head_contribution" in head:
        return f"{where}: {head['head_contribution']:+z.2f}"
    return f"{where}: {head['head_importance']:.0%}"
