import numpy as np
import pytest

from gmar_hf.errors import ArgumentError, ArgumentTypeError
from gmar_hf.labels import find_label, printable

LABELS = {0: "tench", 1: "tabby, tabby cat", 2: "Persian cat", 3: "crane", 4: "crane", 5: "3", 6: ""}


@pytest.mark.parametrize(
    ("wanted", "index"),
    [
        ("tench", 0),
        ("tabby, tabby cat", 1),
        ("3", 5),
        ("", 6),
        (3, 3),
        (0, 0),
        (np.int64(4), 4),
        (np.str_("tench"), 0),
    ],
)
def test_labels_and_indices_are_found(wanted, index):
    found = find_label(wanted, LABELS)
    assert found == index
    assert type(found) is int


@pytest.mark.parametrize(
    ("wanted", "near"),
    [
        ("cat", "'tabby, tabby cat', 'Persian cat', 'crane'"),  # those that hold the word come first
        ("PERSIAN CAT", "'Persian cat', 'tench', 'tabby, tabby cat'"),
        ("crown", "'crane', 'tench', 'tabby, tabby cat'"),  # spelled alike; each label once
        ("tensh", "'tench', 'tabby, tabby cat', 'Persian cat'"),
        ("\x1b[2J", "'tench', 'tabby, tabby cat', 'Persian cat'"),  # nothing is near: some of what there is
    ],
)
def test_unknown_labels_name_the_nearest(wanted, near):
    with pytest.raises(ArgumentError) as caught:
        find_label(wanted, LABELS, "versus")
    message = f"`versus` must be one of the model's labels or an index; got {wanted!r}. Near it: {near}."
    assert str(caught.value) == message
    assert isinstance(caught.value, ValueError)
    assert message.isprintable()


def test_a_label_of_several_classes():
    with pytest.raises(ArgumentError) as caught:
        find_label("crane", LABELS)
    assert str(caught.value) == (
        "`target` must name one class; got 'crane', the label of classes [3, 4]. Pass an index."
    )


@pytest.mark.parametrize("index", [-1, 7, 10**30, np.int64(-3)])
def test_index_out_of_range(index):
    with pytest.raises(ArgumentError) as caught:
        find_label(index, LABELS)
    assert str(caught.value) == f"`target` must be an index in [0, 6] or a label; got {index}."


@pytest.mark.parametrize("wanted", [None, True, 1.0, b"tench", ["tench"], np.bool_(True)])
def test_other_types(wanted):
    with pytest.raises(ArgumentTypeError) as caught:
        find_label(wanted, LABELS)
    assert str(caught.value) == f"`target` must be a label or an index; got {wanted!r}."
    assert isinstance(caught.value, TypeError)


def test_long_wrong_values_are_cut():
    with pytest.raises(ArgumentTypeError) as caught:
        find_label(list(range(10_000)), LABELS)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("tabby, tabby cat", "tabby, tabby cat"),
        ("日本 Ärger [red]x ' \\", "日本 Ärger [red]x ' \\"),
        ("a\x1b[2J\n\tb\r\0", "a\\x1b[2J\\n\\tb\\r\\x00"),
        ("\u202eevil\u2028", "\\u202eevil\\u2028"),  # written right to left, and a line break
        ("\udcff", "\\udcff"),  # of a file name that is not UTF-8
        (3, "3"),
    ],
)
def test_printable(text, shown):
    assert printable(text) == shown
    assert printable(text).isprintable()
