import math
import warnings

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from gmar_hf.errors import ArgumentError
from gmar_hf.plotting import plot_curves, plot_head_importance, plot_head_maps
from tests.helpers.figures import NASTY, SIGNED, draw, texts

# heads


def test_head_importance(tmp_path):
    for scores in (SIGNED, torch.tensor(SIGNED, requires_grad=True), torch.tensor(SIGNED).bfloat16(), SIGNED.tolist()):
        figure = plot_head_importance(scores, title=NASTY, label=NASTY)
        assert isinstance(figure, Figure)
        ax = figure.axes[0]
        (drawn,) = ax.images
        assert drawn.get_array().shape == (3, 4)
        assert (drawn.norm.vmin, drawn.norm.vcenter, drawn.norm.vmax) == (-2, 0, 2)
        assert (ax.get_xlabel(), ax.get_ylabel()) == ("head", "layer")
        assert draw(ax.figure, tmp_path).std() > 10


def test_numbers_that_are_not_negative_start_at_zero(tmp_path):
    ax = plot_head_importance(np.abs(SIGNED)).axes[0]
    assert (ax.images[0].norm.vmin, ax.images[0].norm.vmax) == (0, 2)
    draw(plot_head_importance(np.zeros((2, 2))).figure, tmp_path)
    draw(plot_head_importance(-np.ones((1, 1))).figure, tmp_path)


def test_axes_and_figures_of_the_user_are_used():
    ax = Figure().subplots()
    assert plot_head_importance(SIGNED, ax=ax) is ax.figure
    assert plot_curves([0, 1], shares=[0, 1], ax=ax) is ax.figure
    assert len(ax.images) == len(ax.lines) == 1
    for figure in (Figure(), Figure().subfigures(1, 2)[1]):
        assert plot_head_maps(np.ones((2, 3, 4, 5)), figure=figure) is figure


def test_head_maps(tmp_path):
    maps = np.random.default_rng(0).normal(size=(3, 4, 5, 7))
    figure = plot_head_maps(maps, title=NASTY, label="logits")
    panels = [ax for ax in figure.axes if ax.images]
    assert len(panels) == 12
    assert len({(ax.images[0].norm.vmin, ax.images[0].norm.vmax) for ax in panels}) == 1
    np.testing.assert_array_equal(panels[5].images[0].get_array(), maps[1, 1])
    assert draw(figure, tmp_path).std() > 10
    assert {"head 3", "layer 2", "logits"} <= set(texts(figure))
    chosen = plot_head_maps(torch.tensor(maps), layers=[2, 0])
    assert {"layer 2", "layer 0"} <= set(texts(chosen))
    np.testing.assert_array_equal(chosen.axes[0].images[0].get_array(), maps[2, 0])


def test_heads_that_a_layer_lacks(tmp_path):
    scores = np.array([[1.0, np.nan, np.nan], [-2.0, 0.5, 1.0]])
    ax = plot_head_importance(scores).axes[0]
    assert (ax.images[0].norm.vmin, ax.images[0].norm.vmax) == (-2, 2)
    assert ax.images[0].get_array().mask.tolist() == [[False, True, True], [False, False, False]]
    assert draw(ax.figure, tmp_path).std() > 10
    figure = plot_head_maps(scores[..., None, None] * np.ones((4, 5)))
    assert [ax.get_visible() for ax in figure.axes if ax.images] == [True, False, False, True, True, True]
    for wrong in ([[np.nan, 1.0], [1.0, 1.0]], [[1.0, np.nan], [1.0, np.nan]], [[1.0, np.inf], [1.0, 1.0]]):
        with pytest.raises(ArgumentError, match=r"^`scores` must be finite; got NaN or infinity\.$"):
            plot_head_importance(wrong)


def test_text_is_never_mathematics(tmp_path):
    ax = plot_head_importance(SIGNED, title="50$ and 60$ \\x").axes[0]
    assert not ax.title._preprocess_math(ax.title.get_text())[1]
    assert ax.title._preprocess_math(ax.title.get_text())[0] == "50$ and 60$ \\x"


@pytest.mark.parametrize("values", [np.ones((2, 3, 4)), np.ones(3), np.ones((0, 4)), 1.0])
def test_shapes_that_are_refused(values):
    with pytest.raises(ArgumentError) as caught:
        plot_head_importance(values)
    shape = np.asarray(values).shape
    assert str(caught.value) == (
        f"`scores` must have shape (layers, heads); got {shape}. Pass what belongs to one image."
    )
    with pytest.raises(ArgumentError, match=r"^`head_maps` must have shape \(layers, heads, rows, cols\); got "):
        plot_head_maps(values)


def test_other_refusals():
    for bad in (math.nan, math.inf):
        with pytest.raises(ArgumentError, match=r"^`scores` must be finite; got NaN or infinity\.$"):
            plot_head_importance([[1.0, bad]])
    for layers in ([3], [-1], []):
        with pytest.raises(ArgumentError) as caught:
            plot_head_maps(np.ones((3, 2, 4, 4)), layers=layers)
        assert str(caught.value) == f"`layers` must name layers in [0, 2]; got {layers}."


def test_pyplot_is_left_alone():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        import matplotlib.pyplot as plt
    before = plt.get_fignums()
    plot_head_importance(SIGNED)
    plot_head_maps(np.ones((1, 1, 2, 2)))
    assert plt.get_fignums() == before
