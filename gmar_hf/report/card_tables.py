"""The tables of a report's card: heads, classes, right and wrong predictions."""

import math
from collections.abc import Iterable, Mapping, Sequence
from textwrap import shorten
from typing import Any

from gmar_hf.report.comparison import difference_in_errors
from gmar_hf.report.moments import Moments
from gmar_hf.report.statistics import (
    MIN_CLASS_EXPLANATIONS,
    RANKED_BY,
    HeadStatistics,
    class_counts,
    class_groups,
    outcome_groups,
    rank_correlation,
    strongest_heads,
    summarize,
)
from gmar_hf.utils.text import markdown

_SHOWN_HEADS, _SHOWN_CLASSES, _SHOWN_DIFFERENCES = 10, 5, 5
_ONE_TABLE = 6  # classes: so few are all shown, once


def heads_section(overall: HeadStatistics) -> str:
    """The heads with the largest contributions."""
    keys = (RANKED_BY, "contribution", "l1_weight")
    heads = strongest_heads(overall.mean, min(_SHOWN_HEADS, overall.mean["l1"].numel()), RANKED_BY)
    columns = [_with_errors([(overall, layer, head) for layer, head, _ in heads], key) for key in keys]
    rows = [[str(layer), str(head), *cells] for (layer, head, _), *cells in zip(heads, *columns, strict=True)]
    table = _table(["layer", "head", *(f"`{key}`" for key in keys)], rows)
    return f"""## The heads that contribute most

Means of all explanations ± their standard errors, in logits and in shares of the layer. Layers and heads count from 0.

{table}

![Mean size of every head's contribution, layers downwards](contribution_abs.png)

![Mean signed contribution of every head, layers downwards](contribution.png)

![Mean L1 weight of every head, layers downwards](l1_weight.png)"""


def classes_section(settings: Mapping[str, Any], moments: Moments, overall: HeadStatistics) -> str | None:
    """The classes with most explanations, and those whose heads rank otherwise; None for a single class."""
    counts = class_counts(moments)
    seen = counts.nonzero().flatten().tolist()
    if len(seen) < 2:
        return None
    labels = settings["model"]["labels"]
    header = ["class (index)", "explanations", f"heads with the largest `{RANKED_BY}`, as layer.head"]
    alike = {
        index: rank_correlation(summarize(moments, class_groups(index)).mean[RANKED_BY], overall.mean[RANKED_BY])
        for index in seen
        if counts[index] >= MIN_CLASS_EXPLANATIONS
    }
    alike = {index: value for index, value in alike.items() if not math.isnan(value)}

    def rows(indices: list[int], *, with_correlation: bool) -> list[list[str]]:
        heads = _strongest([summarize(moments, class_groups(index)) for index in indices])
        cells = [
            [_label(labels, index), f"{int(counts[index]):,}", strongest]
            for index, strongest in zip(indices, heads, strict=True)
        ]
        if with_correlation:
            for index, row in zip(indices, cells, strict=True):
                row.append(f"{alike[index]:.2f}" if index in alike else "")
        return cells

    often = sorted(seen, key=lambda index: (-int(counts[index]), index))
    start = f"## Classes\n\n{len(seen):,} of {len(labels):,} classes have explanations."
    if len(seen) <= _ONE_TABLE:
        if not alike:
            return f"{start}\n\n{_table(header, rows(often, with_correlation=False))}"
        return f"""{start} The rank correlation is that of a class's ranking of heads by
`{RANKED_BY}` with that of all explanations; there is none for fewer than {MIN_CLASS_EXPLANATIONS} explanations.

{_table([*header, "rank correlation"], rows(often, with_correlation=True))}"""
    text = f"""{start} Those with the most of them:

{_table(header, rows(often[:_SHOWN_CLASSES], with_correlation=False))}"""
    if len(alike) < 2:
        return text
    unlike = sorted(alike, key=lambda index: (alike[index], index))[:_SHOWN_CLASSES]
    return f"""{text}

The classes whose ranking of heads by `{RANKED_BY}` is least like that of all explanations, of those with
{MIN_CLASS_EXPLANATIONS} explanations or more (few explanations alone make a ranking differ):

{_table([*header, "rank correlation"], rows(unlike, with_correlation=True))}"""


def outcomes_section(moments: Moments) -> str:
    """How heads differ between right and wrong predictions."""
    correct, wrong = (summarize(moments, outcome_groups(moments.num_groups, one)) for one in ("correct", "wrong"))
    title = "## Right and wrong predictions"
    if not correct.num_explanations and not wrong.num_explanations:
        return f"{title}\n\nThe images came without labels, so nothing is known of right and wrong predictions."
    if not (correct.num_explanations and wrong.num_explanations):
        return f"{title}\n\nAll predictions with a label were {'wrong' if wrong.num_explanations else 'correct'}."
    alike = rank_correlation(correct.mean[RANKED_BY], wrong.mean[RANKED_BY])
    distance = difference_in_errors(correct, wrong, "contribution").abs().flatten()
    heads = distance.argsort(descending=True, stable=True)[: min(_SHOWN_DIFFERENCES, len(distance))].tolist()
    places = [divmod(place, correct.mean["l1"].shape[1]) for place in heads]
    columns = [
        _with_errors([(one, layer, head) for layer, head in places], "contribution") for one in (correct, wrong)
    ]
    rows = [[str(layer), str(head), *cells] for (layer, head), *cells in zip(places, *columns, strict=True)]
    agreement = "" if math.isnan(alike) else f" Rankings by `{RANKED_BY}` correlate by {alike:.2f} (Spearman)."
    return f"""{title}

{correct.num_explanations:,} explanations are of images that the model gets right (its prediction is one of their
labels), {wrong.num_explanations:,} of others.{agreement} The heads whose mean `contribution` differs most,
in standard errors:

{_table(["layer", "head", "right", "wrong"], rows)}

The largest of many differences always looks large: take these as what to look at, not as findings."""


def unreadable_section(settings: Mapping[str, Any]) -> str | None:
    """How many images could not be read, and some of them; None where all could."""
    count = settings["counts"]["num_unreadable"]
    if not count:
        return None
    entries = settings["unreadable"]
    # Backticks would come as entities; without them a reason reads as well.
    rows = [[_short(one["image"]), _short(one["reason"].replace("`", ""), 300)] for one in entries[:_SHOWN_CLASSES]]
    more = f" The first {len(entries):,} are named in `config.json`." if len(entries) > len(rows) else ""
    text = f"## Unreadable images\n\n{count:,} {'image' if count == 1 else 'images'} could not be read.{more}"
    return f"{text}\n\n{_table(['image', 'reason'], rows)}" if rows else text


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _with_errors(places: Sequence[tuple[HeadStatistics, int, int]], key: str) -> list[str]:
    """A column of means and their standard errors, with as many decimals as the smallest error has two digits."""
    pairs = [
        (float(one.mean[key][layer, head]), float(one.standard_error[key][layer, head])) for one, layer, head in places
    ]
    sign = "+" if key == "contribution" else ""
    errors = [error for _, error in pairs if error > 0 and math.isfinite(error)]
    kind = _format(min(errors), 2) if errors else _format(max(abs(mean) for mean, _ in pairs), 3)
    return [
        f"{mean:{sign}{kind}}" + (f" ± {error:{kind}}" if error > 0 and math.isfinite(error) else "")
        for mean, error in pairs
    ]


def _format(number: float, digits: int) -> str:
    """A format for a column, in which this number of it shows so many digits."""
    decimals = digits - 1 - math.floor(math.log10(number)) if number else 0
    return f".{max(decimals, 0)}f" if decimals <= 6 else ".2e"


def _strongest(column: Sequence[HeadStatistics]) -> list[str]:
    """A column of the heads with the largest contributions."""
    found = [strongest_heads(one.mean, min(3, one.mean["l1"].numel()), RANKED_BY) for one in column]
    kind = _format(max(value for heads in found for _, _, value in heads), 3)
    return [", ".join(f"{layer}.{head} ({value:{kind}})" for layer, head, value in heads) for heads in found]


def _label(labels: Sequence[str], index: int) -> str:
    return f"{_short(labels[index])} ({index})"


def _short(text: str, length: int = 80) -> str:
    return markdown(shorten(text, length, placeholder=" ..."))
