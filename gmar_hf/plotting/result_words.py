"""What is said of one of the pipeline's results: in captions, in figures, in notebooks and on pages."""

from collections.abc import Mapping
from typing import Any

from gmar_hf.images.sight import seen_share, sight_mark

Result = Mapping[str, Any]
ROUGH = "do not read amounts"
_LONGEST = 32  # letters of a label in a caption, which must have room for more than labels


def title_of(result: Result) -> str:
    """Name what was explained, with its scores, and what the model answers, where that is something else.

    Example:
        >>> title_of({"label": "cat", "score": 0.25, "predicted_label": "dog", "predicted_score": 0.5})
        'cat: 0.25 (the model says dog: 0.50)'
    """
    versus = f", not {_short(result['versus'])}" if "versus" in result else ""
    versus += f": {result['versus_score']:z.2f}" if "versus_score" in result else ""
    answer = answer_of(result)
    said = f" (the model says {_short(answer)}: {result['predicted_score']:z.2f})" if answer else ""
    return f"{_short(result['label'])}: {result['score']:z.2f}{versus}{said}"


def answer_of(result: Result) -> str:
    """Return the label that the model answers, where the result names it nowhere else; else nothing."""
    answer: str = result.get("predicted_label", result["label"])  # results of old files do not tell
    return "" if answer in (result["label"], result.get("versus")) else answer


def sides_of(result: Result) -> tuple[str, str]:
    """Say what the values of a map above 0 speak for, and those below.

    Example:
        >>> sides_of({"label": "cat"}), sides_of({"label": "cat", "versus": "dog"})
        (('for cat', 'against it'), ('for cat', 'for dog'))
    """
    if "versus" not in result:
        return f"for {_short(result['label'])}", "against it"
    first, second = map(_short, _names(result))
    return f"for {first}", f"for {second}"


def account_of(result: Result) -> str:
    """Say how much of the explained logit attention adds; nothing of a result that does not know.

    The rest is what the model without any attention gives.

    Example:
        >>> account_of({"explained_logit": 8.25, "attention_contribution": 9.5})
        'logit 8.2 = attention 9.5 + rest -1.3'
        >>> account_of({"explained_logit": -1.5, "attention_contribution": -2.0, "versus": "dog"})
        'lead -1.5 = attention -2.0 + rest 0.5'
    """
    if "attention_contribution" not in result:
        return ""
    whole, part, rest = _parts(result)
    return f"{'lead' if 'versus' in result else 'logit'} {whole:z.1f} = attention {part:z.1f} + rest {rest:z.1f}"


def has_amounts(result: Result) -> bool:
    """Tell whether amounts can be read from a result: on a path, if the heads' contributions sum to nearly what they
    should come to.

    Example:
        >>> has_amounts({"attention_contribution": 5.5, "completeness_gap": 6.5})
        False
        >>> has_amounts({"attention_contribution": 7.0, "completeness_gap": 5.0}), has_amounts({})
        (True, True)
    """
    if "attention_contribution" not in result:
        return "completeness_gap" not in result or "note" not in result  # results of old files do not tell
    part, gap = result["attention_contribution"], result["completeness_gap"]
    return not gap or abs(gap) < min(abs(part + gap), abs(part))


def path_notes(result: Result) -> list[str]:
    """Return what to beware of in a result of a path.

    Args:
        result (`Mapping[str, Any]`): One that has a `completeness_gap`.

    Example:
        >>> print(*path_notes({"explained_logit": 3.0, "attention_contribution": 5.5, "completeness_gap": 6.5}))
        The heads' contributions come to +12.0 logits, where all attention adds +5.5: do not read amounts from this \
map, nor from the heads' numbers. Many points on the path (`num_points`, `--num-points`: 8, or 16) come closer.
        >>> print(*path_notes({"label": "cat", "versus": "dog", "explained_logit": 3.0,
        ...     "attention_contribution": -0.5, "completeness_gap": 0.0}))
        cat is ahead of dog by 3.0 logits, but attention speaks for dog, by 0.5: without any attention cat is ahead \
by 3.5. The map is of attention's part alone.
    """
    notes = []
    whole, part, rest = _parts(result)
    if _is_against(result):
        first, second = _names(result) if whole > 0 else _names(result)[::-1]
        notes.append(
            f"{first} is ahead of {second} by {abs(whole):.1f} logits, but attention speaks for {second}, by "
            f"{abs(part):.1f}: without any attention {first} is ahead by {abs(rest):.1f}. The map is of "
            "attention's part alone."
        )
    if not has_amounts(result):
        total = result["attention_contribution"] + result["completeness_gap"]
        notes.append(
            f"The heads' contributions come to {total:+z.1f} logits, where all attention adds {part:+z.1f}: {ROUGH} "
            "from this map, nor from the heads' numbers. Many points on the path (`num_points`, `--num-points`: 8, or "
            "16) come closer."
        )
    return notes


def caption_of(result: Result, image_size: tuple[int, int]) -> str:
    """Say what a result's map is of, how it was made and what its scale counts; what is amiss, and what a crop left.

    Args:
        result (`Mapping[str, Any]`): The result.
        image_size (`tuple[int, int]`): Width and height of its image.
    """
    parts = [
        title_of(result),
        f"{result['method']}, {result['unit']}",
        account_of(result),
        *marks_of(result),
        sight_mark(seen_share(result["box"], image_size)),
    ]
    return " · ".join(filter(None, parts))


def marks_of(result: Result) -> list[str]:
    """Say in a few words each what to beware of in a result's map.

    Example:
        >>> marks_of({"label": "cat", "versus": "dog", "explained_logit": 3.0, "attention_contribution": -0.5,
        ...     "completeness_gap": 0.5})
        ['do not read amounts', 'attention speaks for dog']
    """
    marks = [] if has_amounts(result) else [ROUGH]
    if _is_against(result):
        marks.append(f"attention speaks {sides_of(result)[result['attention_contribution'] < 0]}")
    return [*marks, *(["nearly the same for both labels"] if is_blind_to_labels(result) else [])]


def is_blind_to_labels(result: Result) -> bool:
    """Tell whether a result compares two labels by a rollout, which can hardly tell any label from another."""
    return "versus" in result and result.get("head_importance") is not None


def _is_against(result: Result) -> bool:
    """Tell whether attention speaks for the other one of two labels than the whole model."""
    if "versus" not in result or "attention_contribution" not in result:
        return False
    whole, part, _ = _parts(result)
    return whole * part < 0


def _parts(result: Result) -> tuple[float, float, float]:
    """Return the explained logit, attention's part and the rest: rounded, so that they add up as they are written."""
    whole, part = round(result["explained_logit"], 1), round(result["attention_contribution"], 1)
    return whole, part, round(whole - part, 1)


def _names(result: Result) -> tuple[str, str]:
    """Return the two labels that are compared, which may have one name: ImageNet has two cranes."""
    first, second = result["label"], result["versus"]
    return first, second if second != first else f"the other {second}"


def _short(label: str) -> str:
    return label if len(label) <= _LONGEST else f"{label[: _LONGEST - 1].rstrip(' ,')}…"
