"""What a user is told when something does not work: one sentence, without anything of this machine."""

import html
import logging
import re

from gmar_hf.errors import GMARError

_LONGEST = 400  # letters
_UNKNOWN = "Something went wrong here, and it is written to the log. Try again, or take another picture or model."
# Absolute paths, of both kinds; not what stands inside of words, addresses and fractions.
_PATH = re.compile(r"file:/[^\s'\"`,;)]+|(?<![\w/.:\\])(?:[A-Za-z]:(?=[/\\]))?(?:[/\\]+[^\s/\\'\"`,;:()]+)+[/\\]?")


class Refusal(Exception):
    """Something that the app does not do, in the words that the user reads."""


def told(error: Exception) -> str:
    """Return what a user reads of an error, as HTML: our own sentences, and nothing of errors that nobody foresaw.

    Args:
        error (`Exception`): What was raised; if it is neither a refusal nor gmar_hf's own, it goes to the log.

    Example:
        >>> told(Refusal("The file /home/me/cat.jpg holds <b>."))
        'The file … holds &lt;b&gt;.'
    """
    if not isinstance(error, Refusal | GMARError):
        logging.getLogger(__name__).error("An error that nobody foresaw", exc_info=error)
        return _UNKNOWN
    text = _PATH.sub("…", " ".join(str(error).split()))
    return html.escape(text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…")
