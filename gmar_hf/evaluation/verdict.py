"""Which map to believe, in figures and in sentences."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from gmar_hf.evaluation.maps.map_lookup import shown_name
from gmar_hf.evaluation.maps.map_registry import NAMES_IN_EXPLAIN
from gmar_hf.explanation.methods import METHODS
from gmar_hf.report.certainty import FEW_IMAGES
from gmar_hf.utils.text import listed, quantity

RULE = (
    "How the map to believe is chosen: the one with the highest insertion minus deletion (of the logit, where that "
    "was measured), as a mean over all fillings, which are what hidden patches show. On mosaics for which that was "
    "not measured, the grid pointing game decides. Controls are never chosen. A map that is itself made with one of "
    "the fillings is not judged under that one: it is chosen only if it is ahead, under the others, of every map that "
    "is made with none."
)
LEAST_IMAGES = 8
"""Intervals of fewer images say nothing."""

_NEXT = 3  # maps behind the first that the text names
_CRITERIA = {
    "insertion_minus_deletion_logit": "insertion minus deletion of the logit",
    "insertion_minus_deletion": "insertion minus deletion",
    "grid_pointing_game": "grid pointing game",
}


@dataclass(frozen=True, kw_only=True)
class Lead:
    """How far one map is ahead of another one, image by image, under the fillings that neither was made with.

    Args:
        over (`str`): The other map.
        fillings (`tuple[str, ...]`): What hidden patches showed; the difference is the mean over them.
        mean, low, high (`float`): The difference and its bootstrap interval of 95 % over images.
        num_images (`int`): How many images it is of.
        status (`str`): "ahead" or "behind" where the interval leaves out 0, "level" where the difference is at most
            a tenth of what the interval reaches towards 0, else "open".
        more_images (`int`, *optional*): Of what is open, how many more images would settle it: an interval that
            shrinks by the square root of their number would leave out 0, if the difference stayed as it is.
    """

    over: str
    fillings: tuple[str, ...]
    mean: float
    low: float
    high: float
    num_images: int
    status: Literal["ahead", "behind", "open", "level"]
    more_images: int | None = None


@dataclass(frozen=True, kw_only=True)
class Loss:
    """A figure in which another map is better than the believed one, and the interval leaves out 0.

    Args:
        metric (`str`): The figure's key.
        function (`str`), baseline (`str`, *optional*): Its metric, and what hidden patches showed.
        to (`str`): The best other map there.
        mean, low, high (`float`): By how much that one is better, and the bootstrap interval of 95 % over images.
        made_with_it (`bool`): Whether that one was made with this very filling, under which it shines.
    """

    metric: str
    function: str
    baseline: str | None
    to: str
    mean: float
    low: float
    high: float
    made_with_it: bool


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Which of the measured maps to believe on this model and these data.

    Args:
        map (`str`, *optional*): The one to believe; None where that cannot be said.
        reason (`str`, *optional*): Why it cannot.
        criterion (`str`, *optional*): The metric that decides.
        fillings (`tuple[str, ...]`): What hidden patches showed where the map was judged; none on mosaics.
        num_images (`int`): Images that have all figures of the criterion.
        mean, low, high (`float`, *optional*): The map's figure, mean over the fillings, and its interval of 95 %.
        leads (`tuple` of [`Lead`]): Over every other map, the nearest first; controls are not among them.
        control ([`Lead`], *optional*): Over the control that comes nearest; None without a control.
        losses (`tuple` of [`Loss`]): Where another map is better: of each figure the best other one.
        same_for_all_classes (`dict[str, tuple[str, ...]]`): Maps that are at chance for the class, and what tells so.
        noise (`tuple[str, ...]`): Maps that are not ahead of noise, as far as these images tell.
        made_with (`dict[str, tuple[str, ...]]`): Maps that were made with fillings of the measurement, and these: they
            are not judged under them.

    Example:
        >>> print(Verdict(map=None, reason="there are 4 images, and it takes 8").text)
        Which map to believe cannot be said: there are 4 images, and it takes 8.
    """

    map: str | None
    reason: str | None = None
    criterion: str | None = None
    fillings: tuple[str, ...] = ()
    num_images: int = 0
    mean: float | None = None
    low: float | None = None
    high: float | None = None
    leads: tuple[Lead, ...] = ()
    control: Lead | None = None
    losses: tuple[Loss, ...] = ()
    same_for_all_classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    noise: tuple[str, ...] = ()
    made_with: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def is_settled(self) -> bool:
        """Whether the map is ahead of every other one and of the controls, and each interval leaves out 0."""
        leads = [*self.leads, *([self.control] if self.control else [])]
        return self.map is not None and all(lead.status == "ahead" for lead in leads)

    @property
    def text(self) -> str:
        """The verdict in sentences, a line each; names of maps are spelled so that they cannot steer a terminal."""
        return "\n".join(self.sentences)

    @property
    def sentences(self) -> tuple[str, ...]:
        """The verdict in sentences: which map, by how much, what is open, where it loses, and who is at chance."""
        return tuple(filter(None, [*self._choice(), *self._maps_at_chance()]))

    def as_dict(self) -> dict[str, Any]:
        """Return all of it, with the rule and the text, as plain JSON."""
        return {"text": self.text, "rule": RULE, "is_settled": self.is_settled, **asdict(self)}

    def _choice(self) -> Iterable[str]:
        if self.map is None:
            yield f"Which map to believe cannot be said: {self.reason}."
            return
        yield self._headline()
        name = next((name for name, row in NAMES_IN_EXPLAIN.items() if row == self.map), self.map)
        if name in METHODS:
            yield f'To draw it: method="{name}" of `explain`, the pipeline and `gmar-hf explain`.'
        assert self.criterion is not None
        yield (
            f"Its {_CRITERIA[self.criterion]} is {_interval(vars(self))}, "
            f"{f'mean over {listed(self.fillings)}, ' if self.fillings else ''}{quantity(self.num_images, 'image')}."
        )
        if self.num_images < FEW_IMAGES:
            yield f"These are few images, and the intervals themselves uncertain: take {FEW_IMAGES} at least."
        yield from _said_of_leads(self.leads)
        if self.control is not None:
            yield f"Over {_said(self.control)}, of the controls the nearest."
        losses = [_said_of_loss(loss) for loss in self.losses]
        yield f"It loses {'; '.join(losses)}." if losses else "It loses in no figure by more than chance explains."
        if self.made_with:
            told = "; ".join(f"{shown_name(name)}, made with {listed(own)}" for name, own in self.made_with.items())
            yield f"Not judged under their own filling: {told}."

    def _headline(self) -> str:
        assert self.map is not None
        name = shown_name(self.map)
        if self.map in self.same_for_all_classes:
            name += ", which says nothing about the class,"
        if self.control is not None and self.control.status == "behind":
            return f"Believe none of these maps: {shown_name(self.control.over)}, a control, is ahead of {name}."
        if self.control is not None and self.control.status != "ahead":
            return f"Believe none of these maps yet: {name}, the first, may be ahead of a control by chance."
        behind, unsettled = (
            [shown_name(lead.over) for lead in self.leads if lead.status in statuses]
            for statuses in (("behind",), ("open", "level"))
        )
        but = [f"behind {listed(behind)} where both are judged"] if behind else []
        but += [f"its lead over {listed(unsettled)} may be chance"] if unsettled else []
        if but:
            return f"{name} is the first, but {'; '.join(but)}."
        return f"Believe {name} on this model and these data." if self.leads else f"{name} is the only map."

    def _maps_at_chance(self) -> Iterable[str]:
        if self.same_for_all_classes:
            told = "; ".join(
                f"{shown_name(name)}: {', '.join(why)}" for name, why in self.same_for_all_classes.items()
            )
            yield f"At chance for the class, about which they say nothing: {told}."
        if self.noise:
            yield f"Not ahead of noise, or by no more than chance explains: {listed(map(shown_name, self.noise))}."


def _said_of_leads(leads: Iterable[Lead]) -> Iterable[str]:
    """Say the nearest of the maps that are behind, and all of those whose lead may be chance."""
    by_status: dict[str, list[str]] = {"ahead": [], "behind": [], "open": [], "level": []}
    for lead in leads:
        by_status[lead.status].append(_said(lead))
    if by_status["ahead"]:
        yield f"Ahead of {'; of '.join(by_status['ahead'][:_NEXT])}."
    if by_status["open"]:
        yield f"Open: over {'; over '.join(by_status['open'])}."
    if by_status["level"]:
        yield f"Level with {'; with '.join(by_status['level'])}."
    if by_status["behind"]:
        yield f"Behind {'; behind '.join(by_status['behind'])}."


def _said(lead: Lead) -> str:
    """Such as "rollout by 0.50 (0.40 to 0.60)"."""
    more = "" if lead.more_images is None else f", about {_about(lead.more_images)} would settle it"
    return f"{shown_name(lead.over)} by {_interval(vars(lead))}{more}"


def _said_of_loss(loss: Loss) -> str:
    where = f"in {loss.function.replace('_', ' ')}" + (f" under {loss.baseline}" if loss.baseline else "")
    why = ", which is made with that filling" if loss.made_with_it else ""
    return f"{where} to {shown_name(loss.to)} by {_interval(vars(loss))}{why}"


def _about(number: int) -> str:
    """Round a number of images to two digits, since more would be pretence.

    Example:
        >>> _about(1), _about(97), _about(1234)
        ('1 more image', '97 more images', '1,200 more images')
    """
    return quantity(number if number < 100 else round(number, 2 - len(str(number))), "more image")


def _interval(figures: Mapping[str, Any]) -> str:
    return f"{figures['mean']:z.2f} ({figures['low']:z.2f} to {figures['high']:z.2f})"
