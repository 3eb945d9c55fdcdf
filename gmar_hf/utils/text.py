"""Text that people read: names of the user's made harmless, lists, and numbers of things."""

import difflib
import re
from collections.abc import Iterable


def shown(text: object, length: int = 200) -> str:
    """Return somebody else's text, safe to show: on one line, without control characters, cut.

    Example:
        >>> shown("two\\nlines \\x1b[2J")
        'two lines \\\\x1b[2J'
    """
    line = printable(" ".join(str(text).split()))
    return line if len(line) <= length else f"{line[:length]}..."


# Markup anywhere; underscores but within a word; and what begins a list, an underline or a block of code in a line.
_MARKUP = re.compile(r"[\\`*{}\[\]<>#+|~$&\"!^@]|(?<![^\W_])_|_(?![^\W_])|^[-=\s]|\s$|^\d(?=\d*[.)](?:\s|$))")
# What renderers take for links and mentions after all else, also where it was written as entities.
_LINKS = re.compile(r"(&#64;|&#35;|:(?=[/a-z])|www(?=\.))(?=\S)", re.IGNORECASE)

_WEB_PAGE = re.compile(r"(?:\ufeff|\s|<\?xml[^>]*>|<!--.*?-->)*<(?:!doctype html|html|head|body)\b", re.I | re.S)


def did_you_mean(wanted: str, names: Iterable[str]) -> str:
    """Return the end of an error about an unknown name: those spelled alike, or nothing.

    Example:
        >>> did_you_mean("rolout", ["rollout", "random"])
        " Did you mean 'rollout'?"
        >>> did_you_mean("GMAR", ["gmar", "rollout"])
        " Did you mean 'gmar'?"
    """
    folded = {name.casefold(): name for name in names}
    near = [folded[name] for name in difflib.get_close_matches(wanted.casefold(), folded, n=2)]
    return f" Did you mean {' or '.join(map(repr, near))}?" if near else ""


def quoted(names: Iterable[str]) -> str:
    """List names as errors show them.

    Example:
        >>> quoted(["l1", "l2"])
        '"l1", "l2"'
    """
    return ", ".join(f'"{name}"' for name in names)


def listed(names: Iterable[str]) -> str:
    """List names in a sentence.

    Example:
        >>> listed(["a"]), listed(["a", "b", "c"])
        ('a', 'a, b and c')
    """
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def quantity(number: int, what: str) -> str:
    """Return a number with what it counts.

    Example:
        >>> quantity(1, "image"), quantity(2000, "image")
        ('1 image', '2,000 images')
    """
    return f"{number:,} {what}{'s' * (number != 1)}"


def printable(text: object) -> str:
    """Return text with control characters spelled out, so that a label or file name cannot steer a terminal.

    Example:
        >>> printable("a\\x1b[2Jb")
        'a\\\\x1b[2Jb'
    """
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in str(text))


def is_web_page(content: bytes | str) -> bool:
    """Tell whether what should be something else begins like HTML: what a login or an error page is.

    Example:
        >>> is_web_page(b"\\n<!doctype html><title>Log in"), is_web_page("<svg>")
        (True, False)
    """
    start = content[:1000].decode(errors="replace") if isinstance(content, bytes) else content
    return bool(_WEB_PAGE.match(start[:1000]))


def markdown(text: object) -> str:
    """Return Markdown that shows just this text: no markup, HTML, table cell, formula, link or mention.

    Example:
        >>> markdown("*a* | <b>")
        '&#42;a&#42; &#124; &#60;b&#62;'
    """
    entities = _MARKUP.sub(lambda match: f"&#{ord(match[0])};", printable(text))
    return _LINKS.sub("\\1\u200b", entities)  # an invisible space
