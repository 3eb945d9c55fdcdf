"""The page that strangers see: a report's model card."""

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from huggingface_hub import ModelCardData

from gmar_hf.report.card_tables import classes_section, heads_section, outcomes_section, unreadable_section
from gmar_hf.report.moments import Moments
from gmar_hf.report.settings import SURVEY_SETTINGS
from gmar_hf.report.statistics import MIN_CLASS_EXPLANATIONS, RANKED_BY, class_counts, summarize
from gmar_hf.utils.text import markdown, printable, quantity

TAGS = ["gmar", "explainability", "interpretability", "attention", "head-importance", "vision-transformer"]

_REPO_ID = re.compile(r"(?!.*(--|\.\.))\w[\w.-]*(/\w[\w.-]*)?", re.ASCII)
_PLAIN = re.compile(r"\d[\dA-Za-z.+-]*|[\d-]+T[\d:.]+(\+[\d:]+)?", re.ASCII)  # versions, dates

# At the end of a card: by it a later save knows that nobody has written on it since.
_MARKER = "<!-- Written by gmar_hf. Edited cards are kept. sha256 of what stands above: {} -->\n"
_MARKED = re.compile(re.escape(_MARKER.strip()).replace(r"\{\}", "([0-9a-f]{64})") + r"\s*\Z")


def write_card(settings: Mapping[str, Any], moments: Moments) -> str:
    """The card of a report, in Markdown.

    Args:
        settings (`Mapping[str, Any]`): Of the report.
        moments ([`Moments`]): Of the report.
    """
    overall = summarize(moments)
    sections = [
        _opening(settings),
        _measured(settings),
        _use(settings, moments),
        heads_section(overall),
        classes_section(settings, moments, overall),
        outcomes_section(moments),
        unreadable_section(settings),
        _limits(settings),
        _making(settings),
    ]
    text = f"---\n{_metadata(settings)}\n---\n\n" + "\n\n".join(one for one in sections if one) + "\n\n"
    return text + _MARKER.format(_digest(text))


def is_unedited(card: str) -> bool:
    """Whether a card was written by [`write_card`] and is still as it was.

    Args:
        card (`str`): A README.md, with line ends of any kind.
    """
    text = card.replace("\r\n", "\n")
    marked = _MARKED.search(text)
    return marked is not None and marked[1] == _digest(text[: marked.start()])


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _metadata(settings: Mapping[str, Any]) -> str:
    model, datasets = settings["model"], settings["datasets"]
    data = ModelCardData(
        library_name="gmar_hf",
        base_model=model["id"] if _on_hub(model) else None,
        datasets=list(dict.fromkeys(one["id"] for one in datasets if _on_hub(one))) or None,
        license=None if settings["license"] is None else printable(settings["license"]),
        tags=TAGS,
    )
    return data.to_yaml(line_break="\n")


def _opening(settings: Mapping[str, Any]) -> str:
    return f"""# Which attention heads of {_named(settings["model"], "")} matter

How much every attention head of an image classifier adds to its logits, measured image by image with `gmar_hf` and
averaged. No model is in this repository: it holds numbers about one."""


def _measured(settings: Mapping[str, Any]) -> str:
    model, counts, stability = settings["model"], settings["counts"], settings["stability"]
    versions = [f"revision {markdown(model['revision'])}" if model["revision"] else "", _commit(model["commit"])]
    facts = [
        f"**Model:** {_named(model, '')}, a {_code(model['class'])} of {model['num_layers']} layers of "
        f"{model['num_heads']} heads, {len(model['labels']):,} classes"
        + "".join(f", {one}" for one in versions if one),
        f"**Data:** {'; '.join(_dataset(one) for one in settings['datasets'])}",
        f"**Images:** {_images(settings)}",
    ]
    if settings["target"] == "predicted":
        explained = "the logit of the class that the model predicts"
    else:
        explained = "the logits of the image's labels, one explanation for each"
    number = counts["num_explanations"]
    facts.append(f"**Explained:** {explained}; {quantity(number, 'explanation')} in all")
    if stability is not None:
        bound = f"{stability['tolerance']:g} of its largest mean"
        facts.append(
            f"**How many images that takes:** after {stability['num_images']:,} images the largest standard error of "
            f"`{RANKED_BY}` was {'below' if stability['reached'] else 'still above'} {bound}"
        )
    listed = "\n".join(f"- {fact}." for fact in facts)
    return f"""## What was measured

{listed}

Each explanation takes one forward and one backward pass. In it every head gets these scores:

- `contribution`: what its attention adds to the logit, signed, in logits: to first order what removing it takes away.
- `contribution_abs`: the size of that, so that adding to some images and taking from others does not cancel.
- `l1`, `l2`: norms of the gradient of the logit with respect to its attention: how sensitive the logit is to it.
- `l1_weight`, `l2_weight`: the same as shares of the layer, the head weights of
  [GMAR](https://arxiv.org/abs/2504.19414); those of a layer sum to one.

The report holds mean, standard deviation and standard error of each score, of all explanations and of every class."""


def _images(settings: Mapping[str, Any]) -> str:
    """How many there were, of how many, and how they were predicted."""
    counts, datasets, limit = settings["counts"], settings["datasets"], settings["survey"]["limit"]
    number, right, wrong = (counts[name] for name in ("num_images", "num_correct", "num_wrong"))
    text = f"{number:,} explained"
    if limit is not None and any(one["num_images"] is None or one["num_images"] > limit for one in datasets):
        surveys = "each survey" if len(datasets) > 1 else "the survey"
        text += f" ({surveys} was limited to {quantity(limit, 'image')})"
    if not right + wrong:
        return f"{text}; {'it has no label' if number == 1 else 'they have no labels'}"
    text += f": the prediction is right for {right:,} and wrong for {wrong:,}"
    if unlabelled := counts["num_unlabelled"]:
        more = "" if settings["target"] == "predicted" else " more"
        text += f"; {unlabelled:,}{more} {'has' if unlabelled == 1 else 'have'} no label"
    return text


def _use(settings: Mapping[str, Any], moments: Moments) -> str:
    model = settings["model"]
    commonest = int(class_counts(moments).argmax())  # by index: in code a label could not be escaped
    loaded = model["id"] if _on_hub(model) else "path/to/the/model"
    return f"""## How to use it

```python
from gmar_hf import HeadImportanceReport

report = HeadImportanceReport.from_pretrained("user/this-repository")  # the name of this page, or a folder
report.top_heads(10)  # (layer, head, mean) by contribution_abs, the largest first
report.mean["contribution"], report.standard_error["contribution"]  # (layers, heads) each
report.per_class({commonest}).mean["l1_weight"]  # a label or an index
report.prunable_heads(0.1)  # the tenth of all heads that contributes least
report.to_pandas()
```

Its head weights save the backward pass of an explanation:

```python
import gmar_hf
from transformers import pipeline

explain = pipeline("gmar-explanation", model="{loaded}", head_weights="user/this-repository")
explain("image.jpg")
```

A class with fewer than {MIN_CLASS_EXPLANATIONS} explanations gets the weights of all of them there."""


def _limits(settings: Mapping[str, Any]) -> str:
    draws = "images" if settings["target"] == "predicted" else "explanations"
    return f"""## Limits

- A contribution is first order. It ranks well what removing a head takes from the logit, but sizes can be off by a
  factor of two, several heads together are another matter, and the sum over heads is not the logit.
- L1 and L2 weights are shares of a layer. They rank heads by how sensitive the logit is, not by what they add.
- Means hold for images like these. Standard errors take {draws} as independent draws, and know
  nothing of other data.
- Heads are measured, not the layers' MLPs. What a head is for, its numbers do not say.
- `prunable_heads` looks at each head alone: measure the pruned model before you use it."""


def _making(settings: Mapping[str, Any]) -> str:
    survey, model = settings["survey"], settings["model"]
    used = [f"{name.replace('_', ' ')} {survey[name]:,}" for name in SURVEY_SETTINGS if survey[name] is not None]
    versions = ", ".join(f"{markdown(name)} {_plain(version)}" for name, version in settings["versions"].items())
    how = "; ".join([f"dtype {markdown(model['dtype'])}", f"attention {markdown(model['attention'])}", *used])
    return f"""## How it was made

- Date: {_plain(settings["date"])}
- Settings: {how}
- Versions: {versions or "not recorded"}

`report.safetensors` holds the numbers; `config.json` holds all of the above, the labels, and the checksum by which
loading knows that both belong together."""


def _dataset(entry: Mapping[str, Any]) -> str:
    parts = [_named(entry, "datasets/")]
    if entry["split"]:
        parts.append(f"split {markdown(entry['split'])}")
    if entry["revision"]:
        parts.append(f"revision {markdown(entry['revision'])}")
    if entry["num_images"] is not None:
        parts.append(quantity(entry["num_images"], "image"))
    return ", ".join(parts)


def _named(entry: Mapping[str, Any], kind: str) -> str:
    """A model or data set; with a link where it is on the Hub, and without the folders it lay in where it is not."""
    if _on_hub(entry):
        return f"[{markdown(entry['id'])}](https://huggingface.co/{kind}{entry['id']})"
    name = re.split(r"[/\\]", entry["id"].rstrip("/\\"))[-1]
    return f"{markdown(name) or 'a local folder'} (not on the Hub)"


def _on_hub(entry: Mapping[str, Any]) -> bool:
    """Whether an entry can have a link: an id that is not a repository's could end it and go on as anything."""
    return not entry["is_local"] and _REPO_ID.fullmatch(entry["id"]) is not None


def _commit(commit: str | None) -> str:
    return f"commit {markdown(commit[:12])}" if commit else ""


def _code(name: str) -> str:
    """A class's name in backticks; what is no name could end them."""
    return f"`{name}`" if name.isidentifier() else markdown(name)


def _plain(text: str) -> str:
    """A version or a date as it is, where no letter of it can be markup; a plus is only where a line begins."""
    return text if _PLAIN.fullmatch(text) else markdown(text)
