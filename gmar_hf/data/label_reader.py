"""Reading labels: from what a data set calls a class to the model's index of it."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

from gmar_hf.errors import ArgumentError, ArgumentTypeError
from gmar_hf.models.labels import find_label
from gmar_hf.utils.checks import is_whole

_NAMED = 20  # classes, of those that are wrong

_ADVICE = (
    "Classes are matched by name, letter by letter, never by position: say in `label_map` (`--label-map FILE` on the "
    "command line) which label a name stands for, or leave labels out with `use_labels=False` (`--no-labels`)."
)


class LabelReader:
    """Reads a data set's labels as the model's indices. It can be pickled.

    Args:
        id2label (`Mapping[int, str]`): The model's labels.
        label_map (`Mapping[str, str | int]`, *optional*): From the data set's names to the model's labels or indices.
            Numbers of the data set go through it too, as text, and must all be there.
        names (`Sequence[str]`, *optional*): What the data set's class numbers mean; without them they are the model's.
        what (`str`, defaults to "label"): What errors call a label.

    Raises:
        ArgumentError: If the model has not all labels of `label_map`.
        ArgumentTypeError: If `label_map` is no mapping.
    """

    def __init__(
        self,
        id2label: Mapping[int, str],
        label_map: Mapping[str, str | int] | None = None,
        names: Sequence[str] | None = None,
        what: str = "label",
    ) -> None:
        if label_map is not None and not isinstance(label_map, Mapping):
            raise ArgumentTypeError(
                f"`label_map` must be a mapping from names to labels or indices; got {type(label_map).__name__}."
            )
        self._id2label, self._names, self._what = dict(id2label), names, what
        self._indices: dict[str, list[int]] = {}  # found at once: data and model may have 20,000 classes each
        for index, label in self._id2label.items():
            self._indices.setdefault(label, []).append(index)
        self._map: dict[str, int] | None = None
        if label_map is not None:
            self._map = {str(name): self._known(label) for name, label in label_map.items()}

    def read(self, value: Any, item: str = "") -> tuple[int, ...] | None:
        """The model's indices, each once.

        Args:
            value: A label (int or str), several of them (also as an array or a tensor), or None; -1 is none, too.
            item (`str`, defaults to ""): What it is the label of, such as "item 3": errors begin with it.

        Raises:
            ArgumentError: If one of them is none of the model's.
            ArgumentTypeError: If it is something else.
        """
        try:
            return self._read(value)
        except (ArgumentError, ArgumentTypeError) as error:
            if not item:
                raise
            raise type(error)(f"{item}: {error}") from error

    def _read(self, value: Any) -> tuple[int, ...] | None:
        if hasattr(value, "tolist"):
            value = value.tolist()
        if isinstance(value, list | tuple | set | frozenset):
            self._check_no_indicators(value)
            indices = [index for label in value if (index := self._index(label)) is not None]
            return tuple(dict.fromkeys(indices)) or None
        index = self._index(value)
        return None if index is None else (index,)

    def check(self, values: Iterable[Any]) -> None:
        """Refuse labels that are none of the model's, all at once, and a `label_map` that says nothing of any of them.

        Args:
            values (`Iterable`): Labels as a data set has them, not lists of them.

        Raises:
            ArgumentError: If there are any; the labels nearest to the first are named. Or if `label_map` has entries,
                and none is of the data: a map for more classes than occur is fine.
            ArgumentTypeError: If the first of them is neither int nor str.
        """
        # First what is unknown, then whether the label map is of these data at all.
        known = [value for value in values if not _is_none(value)]
        unknown = [value for value in known if self._find(value) is None]
        if unknown:
            more = ""
            if len(unknown) > 1:
                more = f" In all, {len(unknown)} are unknown: {self._shown(unknown)}."
            raise self._error(unknown[0], more)
        if self._map and known and not any(self._name(value) in self._map for value in known):
            raise ArgumentError(
                f"`label_map` (`--label-map`) must name at least one {self._what} of the data; got "
                f"{_listed(self._map)}, and the data have {self._shown(known)}. Mend the names, or leave it out."
            )

    def _shown(self, values: Iterable[Any]) -> str:
        return _listed(list(dict.fromkeys(map(self._name, values))))

    def _name(self, value: Any) -> str:
        """Return what a data set calls a class, as `label_map` has it."""
        if is_whole(value) and self._names is not None and 0 <= value < len(self._names):
            return self._names[value]
        return str(value)

    def _index(self, value: Any) -> int | None:
        if _is_none(value):
            return None
        index = self._find(value)
        if index is None:
            raise self._error(value)
        return index

    def _find(self, value: Any) -> int | None:
        """Return the model's index of a label; None if the label is none of the model's."""
        if isinstance(value, str):
            return self._find_name(value)
        return self._find_number(value) if is_whole(value) else None

    def _find_name(self, name: str) -> int | None:
        """Return the index of a class by its name: the label map's where it has the name, else the model's own."""
        if self._map is not None and name in self._map:
            return self._map[name]
        indices = self._indices.get(name, [])
        return indices[0] if len(indices) == 1 else None  # a label of several classes means none of them

    def _find_number(self, number: int) -> int | None:
        """Return the index of a class by its number: the place of a name, a key of the label map, or the index."""
        if self._names is not None:
            return self._find_name(self._names[number]) if 0 <= number < len(self._names) else None
        if self._map is not None:
            return self._map.get(str(number))
        return int(number) if number in self._id2label else None

    def _error(self, value: Any, more: str = "") -> ArgumentError | ArgumentTypeError:
        if not isinstance(value, str) and not is_whole(value):
            return ArgumentTypeError(
                f"`{self._what}` must be an int, a str or a list of them; got {value!r:.80}. "
                "Convert the labels, or leave them out with `use_labels=False` (`--no-labels`)."
            )
        # A number with names stands for its name; with a label map alone it must be a key of it.
        if is_whole(value) and self._names is not None:
            if not 0 <= value < len(self._names):
                return ArgumentError(
                    f"`{self._what}` must be a position among the data set's {len(self._names)} class names; got "
                    f"{value}. Mend the data set, or leave labels out with `use_labels=False` (`--no-labels`).{more}"
                )
            value = self._names[value]
        if is_whole(value) and self._map is not None:
            return ArgumentError(
                f"`label_map` must say which label each of the data's numbers stands for; got none for '{value}'. "
                f"Add it, or leave `label_map` out if they are the model's indices.{more}"
            )
        # What is left is none of the model's labels, which `find_label` says best.
        advice = ""
        if isinstance(value, str):
            number = ' A number as a name is no index until it says so, as in {"0": 0}.' if value.isdecimal() else ""
            advice = f" {_ADVICE}{number}"
        try:
            find_label(value, self._id2label, self._what)
        except ArgumentError as error:
            return ArgumentError(f"{error}{advice}{more}")
        raise AssertionError(f"{value!r} is a label")

    def _check_no_indicators(self, values: Iterable[Any]) -> None:
        """Refuse a 0 or 1 for every class, which as indices would mean the first two classes.

        Of two classes, 0 and 1 in this order may be the indices of both.
        """
        listed = list(values)
        are_indicators = len(listed) == len(self._id2label) > 1 and all(value in (0, 1) for value in listed)
        if are_indicators and listed != [0, 1]:
            raise ArgumentError(
                f"`{self._what}` must list the indices of an image's classes; got {len(listed)} zeros and ones, as "
                "many as the model has classes. Pass `[index for index, value in enumerate(values) if value]`."
            )

    def _known(self, label: Any) -> int:
        indices = self._indices.get(label, ()) if isinstance(label, str) else ()
        return indices[0] if len(indices) == 1 else find_label(label, self._id2label, "label_map")


def _listed(names: Collection[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(map(repr, islice(names, _NAMED))) + (f" and {more:,} more" if more > 0 else "")


def _is_none(value: Any) -> bool:
    return value is None or (is_whole(value) and value == -1)
