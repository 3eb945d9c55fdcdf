"""How an evaluation's figures decide which map to believe."""

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gmar_hf.evaluation.bootstrap import Bootstrap
from gmar_hf.evaluation.rows_and_columns import Metric, is_made_with
from gmar_hf.evaluation.verdict import LEAST_IMAGES, Lead, Loss, Verdict
from gmar_hf.utils.text import quantity

if TYPE_CHECKING:
    from gmar_hf.evaluation.results import Evaluation

# The first that was measured decides.
_CRITERIA = ("insertion_minus_deletion_logit", "insertion_minus_deletion", "grid_pointing_game")
_NOISE = "random"  # the control that every map is compared with
_SAME = 0.9  # correlation of the maps for two classes from which they count as the same
_HOPELESS = 10.0  # times the difference that the interval reaches towards 0, from which two maps are level
_OF_MOSAICS = ("grid_pointing_game", "right_quadrant")  # by chance one over the cells
# Parts of the criterion; and of the class correlation a low figure alone is no merit.
_NO_LOSSES = ("insertion", "deletion", "class_sensitivity")


def judge(evaluation: "Evaluation") -> Verdict:
    """Find out which map to believe, as [`Evaluation.verdict`] says."""
    return _Judge(evaluation).verdict()


class _Judge:
    """Compares the maps of an evaluation by one criterion.

    Args:
        evaluation ([`Evaluation`]): The figures.
    """

    def __init__(self, evaluation: "Evaluation") -> None:
        self.evaluation = evaluation
        self.places = {method["name"]: place for place, method in enumerate(evaluation.methods)}
        self.controls = [method["name"] for method in evaluation.methods if method.get("is_control", False)]
        self.maps = [name for name in self.places if name not in self.controls]
        self.bootstrap = Bootstrap([row.index for row in evaluation.rows])
        self.chance = 1 / (evaluation.settings.get("mosaics") or 2) ** 2  # photos a side

        # The criterion's columns by filling, which on mosaics is None; a column without any figure is none.
        measured = [
            (metric, place)
            for place, metric in enumerate(evaluation.metrics)
            if np.isfinite(evaluation.values[:, :, place]).any()
        ]
        functions = {metric.function for metric, _ in measured}
        self.criterion = next((name for name in _CRITERIA if name in functions), None)
        self.columns = {metric.baseline: place for metric, place in measured if metric.function == self.criterion}
        self.made_with = {
            method["name"]: _named(filling for filling in self.columns if is_made_with(method, filling))
            for method in evaluation.methods
        }
        # Only rows that have all figures count, lest maps be compared on different images.
        values = evaluation.values[:, :, list(self.columns.values())]
        self.is_whole = np.isfinite(values).all(axis=(1, 2))
        self.num_images = len({row.index for row, whole in zip(evaluation.rows, self.is_whole, strict=True) if whole})

    def verdict(self) -> Verdict:
        if self.criterion is None:
            return self._without("neither insertion_minus_deletion nor, on mosaics, grid_pointing_game was measured")
        if self.num_images < LEAST_IMAGES:
            return self._without(
                f"figures are of {quantity(self.num_images, 'image')}, and it takes {LEAST_IMAGES} at least"
            )
        if len(self.places) < 2 or not self.maps:
            return self._without("it takes a map and another one, or a control, to compare")
        chosen = self._choose()
        if chosen is None:
            return self._without("every filling is one that some map was made with")
        fillings = self._fair(chosen)
        rivals = filter(None, (self._lead(chosen, name) for name in self.maps if name != chosen))
        controls = filter(None, (self._lead(chosen, name) for name in self.controls))
        own: dict[str, Any] = self.bootstrap.interval(self._rows(chosen, fillings))
        return Verdict(
            map=chosen,
            criterion=self.criterion,
            fillings=_named(fillings),
            num_images=self.num_images,
            **{name: own[name] for name in ("mean", "low", "high")},
            leads=tuple(sorted(rivals, key=_mean)),
            control=min(controls, key=_mean, default=None),
            losses=tuple(self._losses(chosen)),
            same_for_all_classes=self._same_for_all_classes(),
            noise=tuple(name for name in self.maps if not self._is_ahead_of_noise(name)),
            made_with={name: fillings for name, fillings in self.made_with.items() if fillings},
        )

    def _without(self, reason: str) -> Verdict:
        return Verdict(
            map=None,
            reason=reason,
            criterion=self.criterion,
            num_images=self.num_images,
            same_for_all_classes=self._same_for_all_classes() if self.num_images >= LEAST_IMAGES else {},
        )

    def _choose(self) -> str | None:
        """Return the map to believe; None where all were made with fillings, and no filling is left.

        The best of those that were made with none, unless one of the others is ahead of all of these under the
        fillings that it was not made with.
        """
        plain = [name for name in self.maps if not self.made_with[name]]
        if not plain:
            fillings = self._fair(*self.maps)
            return max(self.maps, key=lambda name: self._mean_over(name, fillings)) if fillings else None
        best = max(plain, key=lambda name: self._mean_over(name, self._fair()))
        ahead = {}
        for name in self.maps:
            fillings = self._fair(name)
            if name not in plain and fillings:
                highest = max(self._mean_over(other, fillings) for other in plain)
                ahead[name] = self._mean_over(name, fillings) - highest
        first = max(ahead, key=lambda name: ahead[name], default=best)
        return first if ahead.get(first, 0) > 0 else best

    def _fair(self, *maps: str) -> tuple[str | None, ...]:
        """Return the fillings that none of the maps was made with."""
        made_with = {filling for name in maps for filling in self.made_with[name]}
        return tuple(filling for filling in self.columns if filling not in made_with)

    def _rows(self, name: str, fillings: Sequence[str | None]) -> np.ndarray:
        """Return a map's figures (rows,), mean over the fillings; NaN in rows that do not have all of them."""
        places = [self.columns[filling] for filling in fillings]
        means = self.evaluation.values[:, self.places[name], places].mean(axis=1)
        return np.where(self.is_whole, means, np.nan)

    def _mean_over(self, name: str, fillings: Sequence[str | None]) -> float:
        return float(np.nanmean(self._rows(name, fillings)))

    def _lead(self, name: str, over: str) -> Lead | None:
        """Compare two maps; None where every filling is one that either was made with."""
        fillings = self._fair(name, over)
        if not fillings:
            return None
        figures = self.bootstrap.interval(self._rows(name, fillings) - self._rows(over, fillings))
        return lead_of(figures, over=over, fillings=_named(fillings), num_images=self.num_images)

    def _is_ahead_of_noise(self, name: str) -> bool:
        """Tell whether a map is ahead, beyond chance, of the random control, or without it of what noise has."""
        if _NOISE in self.places:
            lead = self._lead(name, _NOISE)
            return lead is None or lead.status == "ahead"
        low = self.bootstrap.interval(self._rows(name, self._fair(name)))["low"] if self._fair(name) else None
        return low is None or low > (self.chance if self.criterion in _OF_MOSAICS else 0)

    def _losses(self, chosen: str) -> Iterable[Loss]:
        """Find in every figure with a better end the map that is furthest ahead of the chosen one, beyond chance."""
        for place, metric in enumerate(self.evaluation.metrics):
            if metric.higher_is_better is None or metric.function in _NO_LOSSES:
                continue
            sign = 1 if metric.higher_is_better else -1
            values = sign * self.evaluation.values[:, :, place]
            losses = [
                self._loss(metric, name, values[:, self.places[name]] - values[:, self.places[chosen]])
                for name in self.maps
                if name != chosen
            ]
            yield from sorted(filter(None, losses), key=_mean)[-1:]

    def _loss(self, metric: Metric, to: str, differences: np.ndarray) -> Loss | None:
        figures: dict[str, Any] = self.bootstrap.interval(differences)
        if figures["low"] is None or figures["low"] <= 0:
            return None
        return Loss(
            metric=metric.key,
            function=metric.function,
            baseline=metric.baseline,
            to=to,
            **{name: figures[name] for name in ("mean", "low", "high")},
            made_with_it=is_made_with(self.evaluation.methods[self.places[to]], metric.baseline),
        )

    def _same_for_all_classes(self) -> dict[str, tuple[str, ...]]:
        """Return the maps that do not tell one class from another, and which figures say so."""
        found: dict[str, list[str]] = {}
        for metric in self.evaluation.metrics:
            for name in self.maps:
                figures = self.bootstrap.interval(self.evaluation.of(name, metric.key))
                mean, low = figures["mean"], figures["low"]
                if mean is None or low is None:  # as of too few images
                    continue
                if metric.function == "class_sensitivity" and mean >= _SAME:
                    found.setdefault(name, []).append(f"correlation with another class's map {mean:z.2f}")
                if metric.function in _OF_MOSAICS and low <= self.chance:
                    title = metric.function.replace("_", " ")
                    found.setdefault(name, []).append(f"{title} {mean:z.2f}, by chance {self.chance:.2f}")
        return {name: tuple(reasons) for name, reasons in found.items()}


def _named(fillings: Iterable[str | None]) -> tuple[str, ...]:
    return tuple(filling for filling in fillings if filling is not None)


def lead_of(figures: dict[str, Any], *, over: str, fillings: tuple[str, ...], num_images: int) -> Lead:
    """Make a lead of a difference and its interval: what it tells, and how many more images would settle it.

    An interval of n images that reaches r from the mean m towards 0 reaches `r sqrt(n / n')` with n' of them, which is
    less than |m| from `n' > n (r / m)^2` on.

    Args:
        figures (`dict`): "mean", "low" and "high", as [`Bootstrap.interval`] makes them.
        over (`str`): The other map.
        fillings (`tuple[str, ...]`): What hidden patches showed; the difference is the mean over them.
        num_images (`int`): How many images it is of.

    Example:
        >>> lead = lead_of({"mean": 1.0, "low": -1.0, "high": 3.0}, over="b", fillings=("blur",), num_images=10)
        >>> lead.status, lead.more_images  # the interval must become half as wide: four times as many, and one
        ('open', 31)
    """
    mean, low, high = (figures[name] for name in ("mean", "low", "high"))
    settings: dict[str, Any] = dict(over=over, fillings=fillings, mean=mean, low=low, high=high, num_images=num_images)
    if low > 0 or high < 0:
        return Lead(**settings, status="ahead" if low > 0 else "behind")
    reach = mean - low if mean > 0 else high - mean
    if reach >= _HOPELESS * abs(mean):
        return Lead(**settings, status="level")
    needed = math.floor(num_images * (reach / mean) ** 2) + 1
    return Lead(**settings, status="open", more_images=max(needed - num_images, 1))


def _mean(figures: Lead | Loss) -> float:
    return figures.mean
