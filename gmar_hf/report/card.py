"""The page that strangers see: a report's model card, which card.md.jinja words."""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData

from gmar_hf.report.card_tables import class_tables, outcome_table, shown_scores, strongest_rows, unreadable_rows
from gmar_hf.report.card_traits import top_image_rows, trait_table
from gmar_hf.report.certainty import remarks
from gmar_hf.report.head_means import HeadMeans
from gmar_hf.report.moments import Moments
from gmar_hf.report.settings import SURVEY_SETTINGS, heads_in_words, parts_in_words, processing_in_words
from gmar_hf.report.statistics import MIN_CLASS_EXPLANATIONS, RANKED_BY, class_counts, summarize, with_centred
from gmar_hf.report.traits import HeadTraits
from gmar_hf.utils.text import markdown, printable, quantity

TAGS = ["gmar", "explainability", "interpretability", "attention", "head-importance", "vision-transformer"]

_TEMPLATE = Path(__file__).with_name("card.md.jinja")
_REPO_ID = re.compile(r"(?!.*(--|\.\.))\w[\w.-]*(/\w[\w.-]*)?", re.ASCII)
_PLAIN = re.compile(r"\d[\dA-Za-z.+-]*|[\d-]+T[\d:.]+(\+[\d:]+)?", re.ASCII)  # versions, dates

# At the end of a card: by it a later save knows that nobody has written on it since.
_MARKER = "<!-- Written by gmar_hf. Edited cards are kept. sha256 of what stands above: {} -->\n"
_MARKED = re.compile(re.escape(_MARKER.strip()).replace(r"\{\}", "([0-9a-f]{64})") + r"\s*\Z")


def write_card(
    settings: Mapping[str, Any],
    moments: Moments,
    means: HeadMeans | None = None,
    traits: HeadTraits | None = None,
) -> str:
    """Return the card of a report, in Markdown.

    Args:
        settings (`Mapping[str, Any]`): What [`plain_settings`] returns.
        moments ([`Moments`]): The moments of every class and outcome.
        means ([`HeadMeans`], *optional*): The heads' means, from which "contribution_centred" follows.
        traits ([`HeadTraits`], *optional*): What the heads are like.
    """
    model, datasets, survey = settings["model"], settings["datasets"], settings["survey"]
    processing = processing_in_words(settings.get("image_processing") or {})
    overall = with_centred(summarize(moments), means)
    metadata = ModelCardData(
        library_name="gmar_hf",
        base_model=model["id"] if _is_on_hub(model) else None,
        datasets=list(dict.fromkeys(entry["id"] for entry in datasets if _is_on_hub(entry))) or None,
        license=None if settings["license"] is None else printable(settings["license"]),
        tags=TAGS,
    )
    # The template escapes nothing: it gets no text of a user but what is escaped here or in card_tables.
    card = ModelCard.from_template(
        metadata,
        template_path=str(_TEMPLATE),
        model=_model_facts(model),
        data=[_dataset_line(entry) for entry in datasets],
        counts=settings["counts"],
        is_predicted=settings["target"] == "predicted",
        limit=_limit(settings),
        stability=settings["stability"],
        ranked_by=RANKED_BY,
        min_class_explanations=MIN_CLASS_EXPLANATIONS,
        commonest_class=int(class_counts(moments).argmax()),  # by index: in code a label could not be escaped
        is_centred=means is not None,
        has_head_weights="heads_by_layer" not in model,  # GMAR, which takes them, is for layers of as many heads
        scores=[f"`{score}`" for score in shown_scores(overall)],
        strongest=strongest_rows(overall),
        remarks=remarks(overall, settings["counts"]["num_images"]),
        traits=None if traits is None else trait_table(traits, overall),
        top_images=top_image_rows(settings.get("top_images"), model["labels"], overall),
        classes=class_tables(model["labels"], moments, overall),
        outcomes=outcome_table(moments),
        unreadable=unreadable_rows(settings["unreadable"]),
        num_named=len(settings["unreadable"]),
        date=_plain(settings["date"]),
        made=[
            f"dtype {markdown(model['dtype'])}",
            f"attention {markdown(model['attention'])}",
            *([f"images processed to {markdown(processing)}"] if processing else []),
            *(f"{name.replace('_', ' ')} {survey[name]:,}" for name in SURVEY_SETTINGS if survey[name] is not None),
        ],
        versions=[f"{markdown(name)} {_plain(version)}" for name, version in settings["versions"].items()],
        quantity=quantity,
    )
    text = f"{card}\n\n"
    return text + _MARKER.format(_digest(text))


def is_unedited(card: str) -> bool:
    """Tell whether a card was written by [`write_card`] and is still as it was.

    Args:
        card (`str`): The text of a README.md, with line ends of any kind.
    """
    text = card.replace("\r\n", "\n")
    marked = _MARKED.search(text)
    return marked is not None and marked[1] == _digest(text[: marked.start()])


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _model_facts(model: Mapping[str, Any]) -> dict[str, Any]:
    template = model.get("hypothesis_template")
    details = [
        "" if template is None else f"which are texts, each put into “{markdown(template)}”",
        f"with {markdown(model['state'])}" if model.get("state") else "",
        f"revision {markdown(model['revision'])}" if model["revision"] else "",
        f"commit {markdown(model['commit'][:12])}" if model["commit"] else "",
    ]
    return {
        "name": _named(model, ""),
        "path": model["id"] if _is_on_hub(model) else "path/to/the/model",
        # In backticks; but what is no name could end them.
        "class": f"`{model['class']}`" if model["class"].isidentifier() else markdown(model["class"]),
        "num_layers": model["num_layers"],
        "num_heads": heads_in_words(model),
        "num_classes": len(model["labels"]),
        "details": list(filter(None, details)),
    }


def _dataset_line(entry: Mapping[str, Any]) -> str:
    parts = [_named(entry, "datasets/")]
    parts += [f"{key} {markdown(entry[key])}" for key in ("split", "revision") if entry[key]]
    if entry["num_images"] is not None:
        parts.append(quantity(entry["num_images"], "image"))
    if entry.get("parts"):
        parts.append(f"of which {parts_in_words(entry['parts'])}")
    return ", ".join(parts)


def _limit(settings: Mapping[str, Any]) -> float | None:
    """Return the largest number of images a survey took, or None if no data set has more of them."""
    limit = settings["survey"]["limit"]
    sizes = [entry["num_images"] for entry in settings["datasets"]]
    return limit if limit is not None and any(size is None or size > limit for size in sizes) else None


def _named(entry: Mapping[str, Any], kind: str) -> str:
    """Name a model or data set: with a link if it is on the Hub, else without the folders that it lay in."""
    if _is_on_hub(entry):
        return f"[{markdown(entry['id'])}](https://huggingface.co/{kind}{entry['id']})"
    name = re.split(r"[/\\]", entry["id"].rstrip("/\\"))[-1]
    return f"{markdown(name) or 'a local folder'} (not on the Hub)"


def _is_on_hub(entry: Mapping[str, Any]) -> bool:
    """Tell whether an entry can have a link: an id that is no repository's could end it and go on as anything."""
    return not entry["is_local"] and _REPO_ID.fullmatch(entry["id"]) is not None


def _plain(text: str) -> str:
    """Return a version or a date as it is, where no letter of it can be markup; a plus is only where a line begins."""
    return text if _PLAIN.fullmatch(text) else markdown(text)
