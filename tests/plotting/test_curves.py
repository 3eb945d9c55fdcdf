import math

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from gmar_hf.errors import ArgumentError
from gmar_hf.metrics import Curve
from gmar_hf.plotting import plot_curves
from tests.helpers.figures import NASTY, draw

# curves

SHARES = [0.0, 0.25, 1.0]


def draw_curves(*args, **settings):
    (ax,) = plot_curves(*args, **settings).axes
    return ax


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_curves_are_drawn_with_their_areas(tmp_path):
    curves = {
        "low": np.array([0.0, 0.4, 0.8]),
        "high": torch.tensor([1.0, 0.8, 0.6]).bfloat16(),
        "list": [0.25, 0.25, 0.25],
    }
    figure = plot_curves(curves, shares=SHARES, title=NASTY, label=NASTY)
    assert isinstance(figure, Figure)
    (ax,) = figure.axes
    # By hand: 0.25 * 0.2 + 0.75 * 0.6; 0.25 * 0.9 + 0.75 * 0.7.
    assert legend(ax) == ["0.75  high", "0.50  low", "0.25  list"]
    by_name = {line.get_label().split()[-1]: line for line in ax.lines}
    np.testing.assert_allclose(by_name["low"].get_xydata(), np.transpose([SHARES, curves["low"]]))
    assert not ax.collections  # no band without a batch
    assert ax.get_ylabel() == "score"
    assert draw(ax.figure, tmp_path).std() > 10


def test_the_area_is_over_the_range_of_the_shares():
    assert legend(draw_curves({"a": [1.0, 3.0]}, shares=[0.5, 0.75])) == ["2.00  a"]
    assert legend(draw_curves([-0.001, 0.0], shares=[0, 1])) == ["0.00"]


def test_a_batch_is_a_mean_in_a_band_of_its_standard_error():
    scores = np.array([[0.0, 0.2], [0.0, 0.4], [0.0, 0.9]])
    (line,), (band,) = (lambda ax: (ax.lines, ax.collections))(draw_curves({"a": scores}, shares=[0, 1]))
    np.testing.assert_allclose(line.get_ydata(), [0, 0.5])
    error = math.sqrt((0.3**2 + 0.1**2 + 0.4**2) / 2 / 3)
    heights = band.get_paths()[0].vertices
    at_end = heights[heights[:, 0] == 1, 1]
    np.testing.assert_allclose([at_end.min(), at_end.max()], [0.5 - error, 0.5 + error])
    assert not draw_curves({"a": scores[:1]}, shares=[0, 1]).collections  # one curve has no error


def test_curves_bring_their_own_shares():
    curve = Curve(torch.tensor([0.0, 0.5, 1.0]), torch.tensor([[1.0, 0.5, 0.0], [0.0, 0.5, 1.0]]))
    ax = draw_curves(curve, shares=[0, 1])  # which are not asked for
    assert legend(ax) == ["0.50"]
    np.testing.assert_allclose(ax.lines[0].get_xydata(), [[0, 0.5], [0.5, 0.5], [1, 0.5]])
    mixed = draw_curves({"curve": curve, "plain": [0.0, 1.0]}, shares=[0, 1])
    assert sorted(len(line.get_xdata()) for line in mixed.lines) == [2, 3]


def test_seventeen_curves_can_be_told_apart(tmp_path):
    """By colour and dashes, which stay those of a name in the next figure, where the order is another."""
    names = [f"method-{number}" for number in range(17)]
    looks = []
    for sign in (1, -1):
        ax = draw_curves({name: [0.5, 0.5 + sign * k / 40] for k, name in enumerate(names)}, shares=[0, 1])
        order = [entry.split()[1] for entry in legend(ax)]
        assert order == (names[::-1] if sign == 1 else names)
        looks.append({line.get_label().split()[1]: (line.get_color(), line.get_linestyle()) for line in ax.lines})
        picture = draw(ax.figure, tmp_path)
    assert looks[0] == looks[1]
    assert len(set(looks[0].values())) == 17
    box = ax.get_legend().get_window_extent()  # after it was drawn
    assert 0 <= box.x0 < box.x1 <= picture.shape[1]
    assert 0 <= box.y0 < box.y1 <= picture.shape[0]
    assert box.x0 >= ax.get_window_extent().x1  # beside the curves, not over them


def test_no_name_is_lost_or_mathematics(tmp_path):
    """matplotlib leaves out names that begin with an underscore, and sets what stands between dollars."""
    ax = draw_curves({"_hidden": [0, 1], "$x$ \x1b": [0, 0]}, shares=[0, 1])
    assert legend(ax) == ["0.50  _hidden", r"0.00  \$x\$ \x1b"]
    draw(ax.figure, tmp_path)


@pytest.mark.parametrize(
    ("curves", "shares", "words"),
    [
        ({}, [0, 1], "`curves` must hold at least one curve; got none."),
        ({"a": [0, 1]}, None, "`shares` must be given for curves that are plain scores; got None."),
        ({"a": [0, 1, 1]}, [0, 1], "`shares` must be one a point, 3; got 2."),
        ({"a": [0, math.nan]}, [0, 1], "`curves` must be finite; got NaN or infinity."),
        ({"a": [0, 1]}, [0, math.inf], "`shares` must be finite; got NaN or infinity."),
        ({"a": [0, 1]}, [[0, 1]], "`shares` must have shape (points); got (1, 2). Pass what belongs to one image."),
        ({"a": np.ones((2, 2, 2))}, [0, 1], "`curves` must have shape (batch, points); got (2, 2, 2)."),
        ({"a": 0.5}, [0], "`curves` must have shape (batch, points); got ()."),
        ({"a": []}, [], "`curves` must have shape (points); got (0,)."),
    ],
)
def test_curves_that_are_refused(curves, shares, words):
    with pytest.raises(ArgumentError) as caught:
        plot_curves(curves, shares=shares)
    assert str(caught.value).startswith(words)
