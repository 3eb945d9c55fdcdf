"""Text below pictures: all of it where it fits, and dots where something is missing."""

from itertools import pairwise

import numpy as np
import pytest
from PIL import Image, ImageFont

from gmar_hf.plotting import overlay, side_by_side
from gmar_hf.plotting.captions import _font, _line_height, _wrapped

FONT = _font((640, 480))


def width_of(text):
    return ImageFont.truetype(FONT.path, FONT.size).getlength(text)


@pytest.mark.parametrize("width", [280, 330, 640])
def test_captions_are_wrapped_between_words(width):
    text = "flamingo head: 0.43 · recommended, logits · middle 57% seen"
    lines = _wrapped(text, width, FONT)
    assert " ".join(lines) == text
    assert all(width_of(line) <= width for line in lines)
    assert not any(line.startswith("·") for line in lines)
    for line, following in pairwise(lines):  # no line is broken too early
        word = " ".join(following.split(" ")[: 2 if following.split(" ")[1:2] == ["·"] else 1])
        assert width_of(f"{line} {word}") > width


def test_what_does_not_fit_ends_in_dots():
    assert [line[-1] for line in _wrapped("short " + "x" * 200, 300, FONT)] == ["t", "…"]
    lines = _wrapped("several words " * 40, 300, FONT)
    assert len(lines) == 6
    assert [line.endswith("…") for line in lines] == [False] * 5 + [True]


def test_a_longer_caption_makes_the_picture_higher():
    image, values = Image.new("RGB", (300, 200)), np.array([[0.5, 0.1]])
    short, long = (overlay(image, values, caption=text) for text in ("a", "several words and more of them " * 2))
    lines = len(_wrapped("several words and more of them " * 2, 300 - 2 * 3, _font(image.size)))
    assert long.height - short.height == (lines - 1) * _line_height(_font(image.size)) > 0
    # Beside each other, whichever comes first.
    for row in ({"a": short, "b": long}, {"b": long, "a": short}):
        drawn = np.asarray(side_by_side(row))
        left, right = drawn[:, :300], drawn[:, -300:]
        for part, picture in zip((left, right), row.values(), strict=True):
            top = drawn.shape[0] - long.height
            np.testing.assert_array_equal(part[top : top + picture.height], np.asarray(picture))
            assert (part[top + picture.height :] == 255).all()
