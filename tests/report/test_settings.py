"""Every entry that a report needs is asked for, by name and kind."""

import copy

import pytest
import torch

from gmar_hf.errors import ArgumentError
from gmar_hf.report.moments import Moments
from gmar_hf.report.settings import check_moments, plain_settings
from tests.helpers.reports import made_settings, make_moments

MOMENTS = make_moments()
FULL = made_settings(
    MOMENTS,
    stability={"tolerance": 0.01, "reached": False, "num_images": 60},
    counts={"num_unreadable": 1},
    unreadable=[{"image": "a.jpg", "reason": "broken"}],
)


def places(value, path=()):
    """The paths of all entries, those in lists too."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, entry in entries:
        yield (*path, key)
        yield from places(entry, (*path, key))


def at(settings, path):
    for key in path:
        settings = settings[key]
    return settings


PLACES = [path for path in places(FULL) if path[:2] != ("model", "labels") or path[2:] in ((), (0,))]


@pytest.mark.parametrize("path", PLACES, ids=lambda path: ".".join(map(str, path)))
def test_an_entry_is_missing_or_of_another_kind(path):
    if path[0] != "versions" and isinstance(path[-1], str):
        settings = copy.deepcopy(FULL)
        del at(settings, path[:-1])[path[-1]]
        with pytest.raises(ArgumentError, match=rf"`settings` must have '.*{path[-1]}'; it is missing\."):
            plain_settings(settings)
    # No entry is all of these kinds, and nothing but an ArgumentError may come of any.
    refused = 0
    for wrong in (None, True, -1, 3, 0.5, "text", [], {}, [1], {"a": [2]}, 10**30, 10**400, [None], [[]]):
        settings = copy.deepcopy(FULL)
        at(settings, path[:-1])[path[-1]] = wrong
        try:
            check_moments(plain_settings(settings), MOMENTS)
        except ArgumentError as error:
            refused += 1
            assert str(error).startswith(("`settings` must ", "`moments` must "))  # noqa: PT017
            assert len(str(error)) < 300  # noqa: PT017
    assert refused >= 8


def test_what_is_more_is_kept():
    settings = {**copy.deepcopy(FULL), "remark": {"by": ["me", 1, None]}}
    settings["model"]["nickname"] = "Tiny"
    assert plain_settings(settings) == settings
    assert plain_settings(settings) is not settings


RING = []
RING.append(RING)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), torch.zeros(1), {1, 2}, object(), RING])
def test_no_json(value):
    with pytest.raises(ArgumentError, match="`settings` must hold plain JSON values; got others"):
        plain_settings({**FULL, "remark": value})


def test_targets_and_data_sets():
    with pytest.raises(ArgumentError, match="must have \"predicted\" or \"label\" as 'target'; got 'top'"):
        plain_settings({**FULL, "target": "top"})
    with pytest.raises(ArgumentError, match="must name at least one data set"):
        plain_settings({**FULL, "datasets": []})


def changed_counts(**counts):
    return {**FULL, "counts": {**FULL["counts"], **counts}}


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({**FULL, "model": {**FULL["model"], "num_layers": 4}}, r"must have 15 groups .* of shape \(6, 4, 4\)"),
        ({**FULL, "model": {**FULL["model"], "num_heads": 3}}, r"of shape \(6, 3, 3\)"),
        ({**FULL, "model": {**FULL["model"], "labels": ["a"]}}, r"must have 3 groups .*; got 15 of \(6, 3, 4\)"),
        (changed_counts(num_explanations=61), "must be of the 61 explanations that `settings` count.*; got 60"),
        (changed_counts(num_images=59), "must count each explained image once"),
        (changed_counts(num_correct=FULL["counts"]["num_correct"] + 1), "must count each explained image once"),
        (changed_counts(num_unreadable=0), "must name at most the 0 unreadable images"),
    ],
)
def test_settings_of_other_numbers(settings, reason):
    with pytest.raises(ArgumentError, match=reason):
        check_moments(settings, MOMENTS)


def test_with_labels_as_target_images_without_one_are_not_explained():
    counts = FULL["counts"]
    known = {"num_correct": counts["num_correct"] + counts["num_unlabelled"], "num_unlabelled": 17}
    check_moments({**changed_counts(**known), "target": "label"}, MOMENTS)
    with pytest.raises(ArgumentError, match="must count each explained image once"):
        check_moments({**changed_counts(**known), "target": "predicted"}, MOMENTS)
    # Several labels an image: more explanations than images, never fewer.
    check_moments({**changed_counts(num_images=40, num_correct=40, num_wrong=0), "target": "label"}, MOMENTS)
    with pytest.raises(ArgumentError, match="at least one explanation of it"):
        check_moments({**changed_counts(num_images=70, num_correct=70, num_wrong=0), "target": "label"}, MOMENTS)


def test_numbers_that_are_none():
    empty = Moments.empty(15, (6, 3, 4))
    with pytest.raises(ArgumentError, match="at least one; got 0"):
        check_moments(made_settings(empty), empty)
    for name in ("mean", "squares"):
        broken = make_moments()
        getattr(broken, name)[0, 0, 0, 0] = torch.inf
        with pytest.raises(ArgumentError, match="`moments` must be finite"):
            check_moments(FULL, broken)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"numbers": []}, "must have ascending numbers in"),
        ({"numbers": [2, 1]}, "must have ascending numbers in"),
        ({"numbers": [1, 1]}, "must have ascending numbers in"),
        ({"numbers": [0]}, "must have ascending numbers in"),
        ({"numbers": [4]}, r"must have ascending numbers in \[1, 3\] as 'datasets\[0\]\.parts\.numbers'"),
        ({"numbers": ["1"]}, r"must have a whole number of 0 or more as 'datasets\[0\]\.parts\.numbers\[0\]'"),
        ({"count": None}, r"as 'datasets\[0\]\.parts\.count'"),
    ],
)
def test_parts_that_cannot_be(changed, reason):
    settings = copy.deepcopy(FULL)
    parts = {"count": 3, "numbers": [1], "limit": None, "shuffle_seed": None}
    settings["datasets"][0]["parts"] = parts
    assert plain_settings(settings)["datasets"][0]["parts"] == parts
    settings["datasets"][0]["parts"] = parts | changed
    with pytest.raises(ArgumentError, match=f"`settings` .*{reason}"):
        plain_settings(settings)
