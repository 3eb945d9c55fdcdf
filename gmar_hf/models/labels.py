"""From a label that a user types to its index."""

import difflib
from collections.abc import Mapping

from gmar_hf.errors import ArgumentError, ArgumentTypeError
from gmar_hf.utils.checks import is_whole


def find_label(wanted: str | int, id2label: Mapping[int, str], argument: str = "target") -> int:
    """Find the index of a label.

    Args:
        wanted (`str` or `int`): A label, letter by letter, or an index.
        id2label (`Mapping[int, str]`): The model's labels.
        argument (`str`, defaults to "target"): The argument's name, which the error shows.

    Raises:
        ArgumentError: If the label is unknown (the nearest are named), borne by several classes, or the index out of
            range.
        ArgumentTypeError: If `wanted` is neither.

    Example:
        >>> find_label("dog", {0: "cat", 1: "dog"})
        1
    """
    if is_whole(wanted):
        if int(wanted) not in id2label:
            raise ArgumentError(f"`{argument}` must be an index in [0, {len(id2label) - 1}] or a label; got {wanted}.")
        return int(wanted)
    if not isinstance(wanted, str):
        raise ArgumentTypeError(f"`{argument}` must be a label or an index; got {wanted!r:.80}.")
    # A label of one class; others share theirs, or are unknown.
    indices = [index for index, label in id2label.items() if label == wanted]
    if len(indices) == 1:
        return indices[0]
    if indices:
        raise ArgumentError(
            f"`{argument}` must name one class; got {wanted!r}, the label of classes {indices}. Pass an index."
        )
    near = ", ".join(repr(label) for label in _nearest(wanted, list(id2label.values())))
    raise ArgumentError(
        f"`{argument}` must be one of the model's labels or an index; got {wanted!r}. Near it: {near}."
    )


def _nearest(wanted: str, labels: list[str], count: int = 3) -> list[str]:
    """Return labels that hold the word first, then those spelled alike, then simply the first ones."""
    # Case and spaces at the ends are not told apart.
    folded = wanted.casefold().strip()
    holding = [label for label in labels if folded and folded in label.casefold()]
    alike = difflib.get_close_matches(folded, [label.casefold() for label in labels], n=count, cutoff=0.4)
    spelled = [label for near in alike for label in labels if label.casefold() == near]
    return list(dict.fromkeys(holding + spelled + labels))[:count]
