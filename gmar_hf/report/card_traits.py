"""The tables of a report's card that surveys make only when asked: what heads are like, and where they add most."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gmar_hf.report.card_tables import Rows, Spell, short, strongest_places
from gmar_hf.report.statistics import HeadStatistics
from gmar_hf.report.traits import TRAITS, HeadTraits
from gmar_hf.utils.text import markdown

_SHOWN_IMAGES = 3  # a head
_FORMATS = {"prefix_attention": ".1%", "direct_effect": "+.3f"}


@dataclass(frozen=True)
class TraitTable:
    """What the card says of the heads' traits; all of it is Markdown.

    Args:
        definitions (`list[tuple[str, str]]`): Names and definitions.
        header (`list[str]`), rows (`Rows`): The table of the strongest heads.
        undefined (`str`, *optional*): Why there is no direct effect.
    """

    definitions: list[tuple[str, str]]
    header: list[str]
    rows: Rows
    undefined: str | None


def trait_table(traits: HeadTraits, overall: HeadStatistics) -> TraitTable:
    """Return the traits of the heads with the largest contributions."""
    mean = traits.statistics.mean
    rows = [
        [
            str(layer),
            str(head),
            *(f"{float(mean[key][layer, head]):{_FORMATS.get(key, '.2f')}}" for key in traits.keys),
        ]
        for layer, head in strongest_places(overall)
    ]
    return TraitTable(
        definitions=[(key, TRAITS[key].definition) for key in traits.keys],
        header=["layer", "head", *(TRAITS[key].heading for key in traits.keys)],
        rows=rows,
        undefined=None if traits.undefined is None else markdown(traits.undefined),
    )


def top_image_rows(
    top: Mapping[str, Any] | None, labels: Sequence[str], overall: HeadStatistics, spell: Spell = markdown
) -> Rows:
    """Return the images on which the heads with the largest contributions add most; none where none were kept."""
    if top is None:
        return []
    return [
        [
            str(layer),
            str(head),
            ", ".join(
                f"{short(entry['image'], spell=spell)} ({short(labels[entry['class']], 40, spell)}, "
                f"{entry['contribution']:+z.2f})"
                for entry in top["heads"][layer][head][:_SHOWN_IMAGES]
            ),
        ]
        for layer, head in strongest_places(overall)
    ]
