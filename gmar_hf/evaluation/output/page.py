"""An evaluation as one page that needs nothing else: figures, curves, and maps side by side."""

import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from PIL import Image

from gmar_hf.evaluation.maps.map_lookup import shown_name
from gmar_hf.evaluation.metric_columns import CURVES
from gmar_hf.evaluation.results import REFERENCES, Evaluation
from gmar_hf.evaluation.rows_and_columns import Metric, Row, is_made_with
from gmar_hf.evaluation.verdict import RULE, Verdict
from gmar_hf.metrics.registry import METRICS
from gmar_hf.pages.dress import data_uri, render_page
from gmar_hf.plotting import plot_curves
from gmar_hf.plotting.saturation import SATURATED
from gmar_hf.utils.files import replacing
from gmar_hf.utils.text import printable

PAGE_FILE, PAGE_NOUN = "index.html", "evaluation"
_TEMPLATE = "page.html.jinja"
_ARROWS = {True: "↑", False: "↓", None: ""}

Summary = dict[str, dict[str, dict[str, Any]]]  # of [`Evaluation.summary`]


@dataclass(frozen=True)
class Picture:
    """An image with every method's map on it.

    Args:
        image (PIL image, RGB): As it is.
        row ([`Row`]): What was explained.
        overlays (`dict[str, PIL image]`): By method.
        figures (`dict[str, float]`): Each method's insertion minus deletion; empty where that was not measured.
    """

    image: Image.Image
    row: Row
    overlays: dict[str, Image.Image]
    figures: dict[str, float]


def write_page(evaluation: Evaluation, summary: Summary, pictures: Sequence[Picture], path: Path) -> None:
    """Write the page.

    Args:
        evaluation ([`Evaluation`]): The figures.
        summary (`dict`): The evaluation's own, which takes long to make.
        pictures (`Sequence` of [`Picture`]): To show below.
        path (`Path`): The HTML file.

    Raises:
        ArgumentError: If it cannot be written.
    """
    settings, verdict = evaluation.settings, evaluation.verdict()
    hides = any(metric.baseline for metric in evaluation.metrics)
    ranked = [row.labels_first for row in evaluation.rows if row.labels_first is not None]
    # What decides comes first: on a narrow window the other columns are beyond the edge.
    metrics = sorted(evaluation.metrics, key=lambda metric: metric.function != verdict.criterion)
    table = _figures(evaluation, metrics, summary)
    state = settings["model"].get("state")
    text = render_page(
        "gmar_hf.evaluation.output",
        _TEMPLATE,
        noun=PAGE_NOUN,
        verdict=verdict.sentences,
        believed=shown_name(verdict.map or ""),
        criterion=(verdict.criterion or "").replace("_", " "),
        ranking=_ranking(verdict),
        rule=RULE,
        model=printable(settings["model"]["id"] + (f" with {state}" if state else "")),
        data=printable(" and ".join(dataset["id"] for dataset in settings["datasets"])),
        num_images=evaluation.num_images,
        num_rows=len(evaluation.rows),
        num_ranked=len(ranked),
        num_labels_first=sum(ranked),
        num_unreadable=settings["counts"]["num_unreadable"],
        target=settings["target"],
        function=settings["function"],
        date=settings["date"],
        version=settings["versions"]["gmar_hf"],
        baselines=settings["baselines"] if hides else [],
        num_steps=settings["num_steps"],
        blur_sigma=f"{settings['blur_sigma']:g}",
        batch_size=settings["batch_size"],
        marked=any(cell["marked"] for row in table for cell in row["cells"]),
        columns=_columns(metrics, summary),
        table=table,
        differences=_differences(metrics, summary),
        maps=_legend((shown_name(method["name"]), method["about"]) for method in evaluation.methods),
        figures=_legend((_name(metric), _about(metric)) for metric in metrics),
        curves=_curves(evaluation),
        figure_title="insertion minus deletion" if any(picture.figures for picture in pictures) else "",
        saturated=SATURATED,
        pictures=[_picture(picture) for picture in pictures],
    )
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _ranking(verdict: Verdict) -> list[dict[str, str]]:
    """Make the rows of the small table: the other maps, the nearest first, and the best control."""
    leads = [*verdict.leads, *([verdict.control] if verdict.control else [])]
    statuses = {"open": "open", "level": "level", "ahead": "more than chance", "behind": "behind"}
    return [
        {
            "name": shown_name(lead.over) + (", a control" if lead is verdict.control else ""),
            "text": f"{lead.mean:+z.2f}",
            "interval": f"{lead.low:+z.2f} to {lead.high:+z.2f}",
            "status": statuses[lead.status],
        }
        for lead in leads
    ]


def _name(metric: Metric) -> str:
    return metric.function.replace("_", " ")


def _title(metric: Metric) -> str:
    return f"{_name(metric)} ({metric.baseline})" if metric.baseline else _name(metric)


def _about(metric: Metric) -> str:
    entry = METRICS.get(metric.function)
    return entry.about if entry else ""


def _legend(entries: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return what is known of each name, once."""
    return {printable(name): printable(about) for name, about in entries if about}


def _columns(metrics: Sequence[Metric], summary: Summary) -> list[dict[str, Any]]:
    return [
        {
            "title": _title(metric),
            "arrow": _ARROWS[metric.higher_is_better],
            # Where masks are missing there is no figure.
            "num_rows": max((figures[metric.key]["num_rows"] for figures in summary.values()), default=0),
        }
        for metric in metrics
    ]


def _figures(evaluation: Evaluation, metrics: Sequence[Metric], summary: Summary) -> list[dict[str, Any]]:
    """Make the rows of the table of means."""
    rows = []
    for method in evaluation.methods:
        cells = []
        for metric in metrics:
            figures = summary[method["name"]][metric.key]
            marked = is_made_with(method, metric.baseline)
            is_best = figures["mean"] is not None and figures["mean"] == _best(metric, summary)
            cells.append({**_cell(figures, ""), "marked": marked, "bold": is_best})
        forwards = "?" if method["forwards"] is None else f"{method['forwards']:g}"
        costs = [forwards, f"{method['milliseconds']:.1f}"]
        rows.append({"name": shown_name(method["name"]), "cells": cells, "costs": costs})
    return rows


def _differences(metrics: Sequence[Metric], summary: Summary) -> dict[str, list[dict[str, Any]]]:
    """Make the rows of a table for each method that all others are compared with."""
    tables: dict[str, list[dict[str, Any]]] = {}
    for reference in REFERENCES:
        for name, by_metric in summary.items():
            if reference not in summary or name == reference:
                continue
            cells = []
            for metric in metrics:
                figures = by_metric[metric.key][f"minus_{reference}"]
                # A method is better if its whole interval is on the better side of 0.
                low, high = figures["low"], figures["high"]
                is_better = low is not None and {True: low > 0, False: high < 0, None: False}[metric.higher_is_better]
                cells.append({**_cell(figures, "+"), "marked": False, "bold": is_better})
            tables.setdefault(shown_name(reference), []).append(
                {"name": shown_name(name), "cells": cells, "costs": []}
            )
    return tables


def _cell(figures: dict[str, Any], sign: str) -> dict[str, str]:
    """Write a figure and its interval as texts."""
    mean, low, high = (figures[name] for name in ("mean", "low", "high"))
    return {
        "text": "–" if mean is None else f"{mean:{sign}z.3f}",  # noqa: RUF001 (a dash for nothing)
        "interval": "" if low is None else f"{low:{sign}z.3f} to {high:{sign}z.3f}",
    }


def _best(metric: Metric, summary: Summary) -> float | None:
    means = [figures[metric.key]["mean"] for figures in summary.values()]
    known = [mean for mean in means if mean is not None]
    if metric.higher_is_better is None or not known:
        return None
    return max(known) if metric.higher_is_better else min(known)


def _curves(evaluation: Evaluation) -> list[dict[str, str]]:
    """Draw a figure for each curve and baseline."""
    pictures = []
    for metric in evaluation.metrics:
        if metric.function not in CURVES or metric.key not in evaluation.curves:
            continue
        names = [shown_name(method["name"]) for method in evaluation.methods]
        figure = Figure(figsize=(7, 4.6), layout="constrained")
        shown = "shown" if metric.function == "insertion" else "hidden"
        plot_curves(
            dict(zip(names, evaluation.curves[metric.key], strict=True)),
            shares=evaluation.curves["shares"],
            title=_title(metric),
            label=f"share of patches {shown}, the most important first",
            ax=figure.subplots(),
        )
        with io.BytesIO() as content:
            figure.savefig(content, format="png", dpi=110)
            pictures.append({"title": _title(metric), "source": data_uri(content.getvalue(), "image/png")})
    return pictures


def _picture(picture: Picture) -> dict[str, Any]:
    label, image = printable(picture.row.label), printable(picture.row.image)
    panels = [{"alt": f"the image {image}", "caption": "image", "source": _png(picture.image)}]
    for name, overlay in picture.overlays.items():
        figure, name = picture.figures.get(name, math.nan), shown_name(name)
        caption = name if math.isnan(figure) else f"{name}: {figure:z.2f}"
        panels.append({"alt": f"map of {name} for {label}", "caption": caption, "source": _png(overlay)})
    return {"image": image, "label": label, "score": f"{picture.row.score:z.2f}", "panels": panels}


def _png(image: Image.Image) -> str:
    with io.BytesIO() as content:
        image.save(content, format="PNG", optimize=True)
        return data_uri(content.getvalue(), "image/png")
