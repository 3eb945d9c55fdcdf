"""The tables of a report's card: heads, classes, right and wrong predictions. Cells are Markdown, or plain."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from textwrap import shorten
from typing import Any

from gmar_hf.report.certainty import shown_heads
from gmar_hf.report.comparison import difference_in_errors
from gmar_hf.report.moments import Moments
from gmar_hf.report.statistics import (
    CENTRED,
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
from gmar_hf.utils.missing_heads import rank_heads
from gmar_hf.utils.text import markdown

_SHOWN_CLASSES, _SHOWN_DIFFERENCES, _SHOWN_UNREADABLE = 5, 5, 5
_ONE_TABLE = 6  # classes: so few are all shown, once

Rows = list[list[str]]
Spell = Callable[[str], str]


@dataclass(frozen=True)
class ClassTables:
    """What the card says of classes.

    Args:
        num_explained (`int`): How many classes have explanations.
        commonest (`Rows`): The classes with most explanations: label, explanations, strongest heads.
        num_few (`int`): How many of `commonest` have too few explanations to tell.
        are_all_shown (`bool`): Whether `commonest` holds every class with explanations.
        all_correlated (`Rows`): The same for every class, with the rank correlation of its heads' ranking with that
            of all explanations; empty where there are many classes, or no correlation.
        least_alike (`Rows`): The classes whose rank correlation is smallest; empty where there are few classes.
    """

    num_explained: int
    commonest: Rows
    num_few: int
    are_all_shown: bool
    all_correlated: Rows
    least_alike: Rows


@dataclass(frozen=True)
class OutcomeTable:
    """How heads differ between right and wrong predictions.

    Args:
        num_correct, num_wrong (`int`): How many explanations are of each.
        correlation (`float`, *optional*): The rank correlation of the heads' two rankings; None where it is undefined.
        differences (`Rows`): The heads that differ most: layer, head, mean when right, mean when wrong; empty unless
            there are explanations of both.
    """

    num_correct: int
    num_wrong: int
    correlation: float | None
    differences: Rows


def strongest_places(overall: HeadStatistics) -> list[tuple[int, int]]:
    """Return layer and head of those that the card names: with the largest contributions."""
    return [(layer, head) for layer, head, _ in shown_heads(overall)]


def shown_scores(overall: HeadStatistics) -> list[str]:
    """Return which scores tables of heads show, by the names that they have everywhere."""
    return [RANKED_BY, "contribution", *([CENTRED] if CENTRED in overall.mean else []), "l1_weight"]


def strongest_rows(overall: HeadStatistics) -> Rows:
    """Return layer, head and the shown mean scores of the heads with the largest contributions."""
    places = strongest_places(overall)
    columns = [
        _signed([float(overall.mean[CENTRED][place]) for place in places])  # whose errors nobody knows
        if key == CENTRED
        else _with_errors(overall, places, key)
        for key in shown_scores(overall)
    ]
    return _head_rows(places, columns)


def class_tables(
    labels: Sequence[str], moments: Moments, overall: HeadStatistics, spell: Spell = markdown
) -> ClassTables | None:
    """Return the classes with most explanations, and those whose heads rank otherwise; None for a single class.

    Args:
        labels (`Sequence[str]`): By class index.
        moments ([`Moments`]), overall ([`HeadStatistics`]): The statistics of every class, and of all explanations.
        spell (`Callable`, defaults to `markdown`): What makes text of others harmless.
    """
    counts = class_counts(moments)
    explained = counts.nonzero().flatten().tolist()
    if len(explained) < 2:
        return None
    alike = {
        index: rank_correlation(summarize(moments, class_groups(index)).mean[RANKED_BY], overall.mean[RANKED_BY])
        for index in explained
        if counts[index] >= MIN_CLASS_EXPLANATIONS
    }
    alike = {index: value for index, value in alike.items() if not math.isnan(value)}

    def rows(indices: list[int]) -> Rows:
        strongest = _strongest_cells([summarize(moments, class_groups(index)) for index in indices])
        return [
            [f"{short(labels[index], spell=spell)} ({index})", f"{int(counts[index]):,}", heads]
            for index, heads in zip(indices, strongest, strict=True)
        ]

    def correlated_rows(indices: list[int]) -> Rows:
        cells = [f"{alike[index]:z.2f}" if index in alike else "" for index in indices]
        return [[*row, cell] for row, cell in zip(rows(indices), cells, strict=True)]

    by_count = sorted(explained, key=lambda index: (-int(counts[index]), index))
    by_likeness = sorted(alike, key=lambda index: (alike[index], index))
    are_few = len(explained) <= _ONE_TABLE
    shown = by_count if are_few else by_count[:_SHOWN_CLASSES]
    return ClassTables(
        num_explained=len(explained),
        commonest=rows(shown),
        num_few=sum(int(counts[index]) < MIN_CLASS_EXPLANATIONS for index in shown),
        are_all_shown=are_few,
        all_correlated=correlated_rows(by_count) if are_few and alike else [],
        least_alike=correlated_rows(by_likeness[:_SHOWN_CLASSES]) if len(alike) >= 2 and not are_few else [],
    )


def outcome_table(moments: Moments) -> OutcomeTable:
    """Return the heads whose contributions differ most between right and wrong predictions, in standard errors."""
    correct, wrong = (
        summarize(moments, outcome_groups(moments.num_groups, outcome)) for outcome in ("correct", "wrong")
    )
    if not (correct.num_explanations and wrong.num_explanations):
        return OutcomeTable(correct.num_explanations, wrong.num_explanations, None, [])
    correlation = rank_correlation(correct.mean[RANKED_BY], wrong.mean[RANKED_BY])
    distance = difference_in_errors(correct, wrong, "contribution").abs()
    places = rank_heads(distance)[: min(_SHOWN_DIFFERENCES, correct.num_heads)]
    return OutcomeTable(
        correct.num_explanations,
        wrong.num_explanations,
        None if math.isnan(correlation) else correlation,
        _head_rows(places, [_with_errors(statistics, places, "contribution") for statistics in (correct, wrong)]),
    )


def unreadable_rows(entries: Sequence[Mapping[str, Any]]) -> Rows:
    """Return the names of the first unreadable images, and why they could not be read."""
    # Backticks would come as entities; without them a reason reads as well.
    return [
        [short(entry["image"]), short(entry["reason"].replace("`", ""), 300)] for entry in entries[:_SHOWN_UNREADABLE]
    ]


def _head_rows(places: Sequence[tuple[int, int]], columns: Sequence[list[str]]) -> Rows:
    return [[str(layer), str(head), *cells] for (layer, head), *cells in zip(places, *columns, strict=True)]


def _with_errors(statistics: HeadStatistics, places: Iterable[tuple[int, int]], key: str) -> list[str]:
    """Return a column of means and standard errors, with two digits of the smallest error."""
    pairs = [(float(statistics.mean[key][place]), float(statistics.standard_error[key][place])) for place in places]
    sign = "+" if key == "contribution" else ""
    errors = [error for _, error in pairs if error > 0 and math.isfinite(error)]
    decimals = _decimals(min(errors), 2) if errors else _decimals(max(abs(mean) for mean, _ in pairs), 3)
    return [
        f"{mean:{sign}{decimals}}" + (f" ± {error:{decimals}}" if error > 0 and math.isfinite(error) else "")
        for mean, error in pairs
    ]


def _signed(values: Sequence[float]) -> list[str]:
    """Return a column of signed numbers, with three digits of the largest."""
    decimals = _decimals(max(map(abs, values)), 3)
    return [f"{value:+{decimals}}" for value in values]


def _decimals(number: float, digits: int) -> str:
    """Return a format for a column, in which this number of it shows so many digits."""
    decimals = digits - 1 - math.floor(math.log10(number)) if number else 0
    return f".{max(decimals, 0)}f" if decimals <= 6 else ".2e"


def _strongest_cells(column: Iterable[HeadStatistics]) -> list[str]:
    """Return a column of the three heads with the largest contributions."""
    cells = [strongest_heads(row.mean, min(3, row.num_heads), RANKED_BY) for row in column]
    decimals = _decimals(max(value for heads in cells for _, _, value in heads), 3)
    return [", ".join(f"{layer}.{head} ({value:{decimals}})" for layer, head, value in heads) for heads in cells]


def short(text: str, length: int = 80, spell: Spell = markdown) -> str:
    """Return text of others, cut, by default as Markdown that shows just this text."""
    return spell(shorten(text, length, placeholder=" ..."))
