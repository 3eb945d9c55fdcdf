"""A report as one page that needs nothing else, for those who will open no notebook; page.html.jinja words it."""

import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gmar_hf.pages.dress import data_uri, render_page
from gmar_hf.report.card_tables import class_tables, outcome_table, shown_scores, strongest_rows
from gmar_hf.report.card_traits import top_image_rows, trait_table
from gmar_hf.report.certainty import remarks
from gmar_hf.report.figures import FIGURES, png
from gmar_hf.report.settings import named_unreadable, parts_in_words
from gmar_hf.report.statistics import MIN_CLASS_EXPLANATIONS, RANKED_BY, strongest_heads
from gmar_hf.utils.files import replacing
from gmar_hf.utils.text import printable, quantity

if TYPE_CHECKING:
    from gmar_hf.report.head_importance_report import HeadImportanceReport

PAGE_FILE, PAGE_NOUN = "index.html", "report"


def write_report_page(report: "HeadImportanceReport", path: str | os.PathLike[str]) -> None:
    """Write the page; see [`HeadImportanceReport.write_page`]. Same report, same bytes."""
    settings, overall = report.settings, report.overall
    model = settings["model"]
    is_centred = report.means is not None
    text = render_page(
        "gmar_hf.report",
        "page.html.jinja",
        noun=PAGE_NOUN,
        model=_name(model) + (f" with {printable(model['state'])}" if model.get("state") else ""),
        data=[_data_name(entry) for entry in settings["datasets"]],
        summary=_summary(report),
        counts=quantity(report.num_images, "image"),
        is_predicted=settings["target"] == "predicted",
        date=settings["date"],
        version=settings["versions"].get("gmar_hf", "of an unknown version"),
        is_centred=is_centred,
        heads_header=["layer", "head", *shown_scores(overall)],
        heads=strongest_rows(overall),
        figures=[
            {"title": title, "source": data_uri(png(overall, score), "image/png")}
            for score, (title, _) in FIGURES.items()
        ],
        classes=class_tables(model["labels"], report.moments, overall, printable),
        min_class_explanations=MIN_CLASS_EXPLANATIONS,
        outcomes=outcome_table(report.moments),
        traits=None if report.traits is None else trait_table(report.traits, overall),
        top_images=top_image_rows(settings.get("top_images"), model["labels"], overall, printable),
    )
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _summary(report: "HeadImportanceReport") -> list[str]:
    """Say in sentences what matters most."""
    sizes, counts = report.mean[RANKED_BY].nan_to_num(0.0), report.settings["counts"]
    num_heads = report.overall.num_heads
    # Half of all contributions: so many of the strongest heads.
    shares = sizes.flatten().sort(descending=True).values.cumsum(0) / sizes.sum().clamp_min(1e-300)
    half = min(int((shares < 0.5).sum()) + 1, num_heads)
    layer, head, value = strongest_heads(report.mean, 1, RANKED_BY)[0]
    by_layer = sizes.sum(1)
    strongest = int(by_layer.argmax())
    sentences = [
        f"{half} of {num_heads} heads make half of all contributions to the logits.",
        f"The strongest is head {head} of layer {layer}: {value:.3g} logits an image, either way.",
        f"Of layers 0 to {len(by_layer) - 1}, layer {strongest} has the most: "
        f"{float(by_layer[strongest] / by_layer.sum().clamp_min(1e-300)):.0%} of all.",
    ]
    known = counts["num_correct"] + counts["num_wrong"]
    if known:
        sentences.append(f"The model's prediction is right for {counts['num_correct']:,} of {known:,} images.")
    if counts["num_unreadable"]:
        named = named_unreadable(report.settings)
        sentences.append(f"{quantity(counts['num_unreadable'], 'image')} could not be read{named}.")
    return sentences + remarks(report.overall, report.num_images)


def _name(entry: Mapping[str, Any]) -> str:
    """Name a model or data set: without the folders that it lay in, if it is not on the Hub."""
    name = re.split(r"[/\\]", entry["id"].rstrip("/\\"))[-1] if entry["is_local"] else entry["id"]
    return printable(name) or "a local folder"


def _data_name(entry: Mapping[str, Any]) -> str:
    """Name a data set, and its parts where only some were surveyed."""
    return _name(entry) + (f" ({parts_in_words(entry['parts'])})" if entry.get("parts") else "")
