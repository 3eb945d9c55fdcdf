"""Class labels: from what a user types to an index, and safe to show."""

import difflib
import re
from collections.abc import Iterable, Mapping
from numbers import Integral

from .errors import ArgumentError, ArgumentTypeError

# Markup anywhere; underscores but within a word; and what begins a list, an underline or a block of code in a line.
_MARKUP = re.compile(r"[\\`*{}\[\]<>#+|~$&\"!^@]|(?<![^\W_])_|_(?![^\W_])|^[-=\s]|\s$|^\d(?=\d*[.)](?:\s|$))")
# What renderers take for links and mentions after all else, also where it was written as entities.
_LINKS = re.compile(r"(&#64;|&#35;|:(?=[/a-z])|www(?=\.))(?=\S)", re.IGNORECASE)


def find_label(wanted: str | int, id2label: Mapping[int, str], argument: str = "target") -> int:
    """The index of a label.

    Args:
        wanted (`str` or `int`): A label, letter by letter, or an index.
        id2label (`Mapping[int, str]`): The model's labels.
        argument (`str`, defaults to "target"): What the error calls it.

    Raises:
        ArgumentError: If the label is unknown (the nearest are named), borne by several classes, or the index out of
            range.
        ArgumentTypeError: If `wanted` is neither.

    Example:
        >>> find_label("dog", {0: "cat", 1: "dog"})
        1
    """
    if isinstance(wanted, Integral) and not isinstance(wanted, bool):  # NumPy's ints too
        if int(wanted) not in id2label:
            raise ArgumentError(f"`{argument}` must be an index in [0, {len(id2label) - 1}] or a label; got {wanted}.")
        return int(wanted)
    if not isinstance(wanted, str):
        raise ArgumentTypeError(f"`{argument}` must be a label or an index; got {wanted!r:.80}.")
    found = [index for index, label in id2label.items() if label == wanted]
    if len(found) == 1:
        return found[0]
    if found:
        raise ArgumentError(
            f"`{argument}` must name one class; got {wanted!r}, the label of classes {found}. Pass an index."
        )
    near = ", ".join(repr(label) for label in _nearest(wanted, list(id2label.values())))
    raise ArgumentError(
        f"`{argument}` must be one of the model's labels or an index; got {wanted!r}. Near it: {near}."
    )


def did_you_mean(wanted: str, names: Iterable[str]) -> str:
    """The end of an error about an unknown name: those spelled alike, or nothing.

    Example:
        >>> did_you_mean("rolout", ["rollout", "random"])
        " Did you mean 'rollout'?"
    """
    near = difflib.get_close_matches(wanted, list(names), n=2)
    return f" Did you mean {' or '.join(map(repr, near))}?" if near else ""


def quantity(number: int, what: str) -> str:
    """A number of things.

    Example:
        >>> quantity(1, "image"), quantity(2000, "image")
        ('1 image', '2,000 images')
    """
    return f"{number:,} {what}{'s' * (number != 1)}"


def printable(text: object) -> str:
    """Text with control characters spelled out, so that a label or file name cannot steer a terminal.

    Example:
        >>> printable("a\\x1b[2Jb")
        'a\\\\x1b[2Jb'
    """
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in str(text))


def markdown(text: object) -> str:
    """Text as Markdown that shows just this text: no markup, HTML, table cell, formula, link or mention.

    Args:
        text (`object`): Shown as a string; its control characters as [`printable`] spells them.

    Example:
        >>> markdown("*a* | <b>")
        '&#42;a&#42; &#124; &#60;b&#62;'
    """
    entities = _MARKUP.sub(lambda found: f"&#{ord(found[0])};", printable(text))
    return _LINKS.sub("\\1\u200b", entities)  # an invisible space


def _nearest(wanted: str, labels: list[str], count: int = 3) -> list[str]:
    """Labels that hold the word first, then those spelled alike, then simply the first ones."""
    folded = wanted.casefold().strip()
    holding = [label for label in labels if folded and folded in label.casefold()]
    alike = difflib.get_close_matches(folded, [label.casefold() for label in labels], n=count, cutoff=0.4)
    spelled = [label for near in alike for label in labels if label.casefold() == near]
    return list(dict.fromkeys(holding + spelled + labels))[:count]
