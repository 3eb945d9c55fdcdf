import math
import warnings

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from gmar_hf.errors import ArgumentError
from gmar_hf.metrics import Curve
from gmar_hf.plotting import overlay, plot_curves, plot_explanation, plot_head_importance, plot_head_maps
from tests.helpers.explainers import make_explainer, photo

NASTY = "a$b^c$ \\alpha \x1b[2J\n_{x}"
SIGNED = np.linspace(-1, 2, 12).reshape(3, 4)


def draw(figure, tmp_path):
    """Renders a figure; matplotlib complains only then."""
    figure.savefig(tmp_path / "figure.png")
    with Image.open(tmp_path / "figure.png") as image:
        return np.asarray(image.convert("RGB"))


def texts(figure):
    return [text.get_text() for text in figure.findobj(matplotlib.text.Text) if text.get_text()]


# overlay


def test_overlay_of_no_heat_is_the_muted_image():
    image = photo()
    laid = overlay(image, Image.new("L", image.size))
    assert (laid.mode, laid.size) == ("RGB", image.size)
    grey = np.asarray(image.convert("L").convert("RGB"), dtype=float)
    np.testing.assert_allclose(np.asarray(laid), (grey + np.asarray(image)) / 2, atol=0.51)


def test_overlay_where_it_is_hottest_is_the_end_of_the_colour_map():
    image = photo()
    heat = Image.new("L", image.size)
    heat.paste(255, (10, 10, 20, 20))
    hot = np.asarray(overlay(image, heat, alpha=1.0, colormap="viridis"))[12, 12]
    np.testing.assert_allclose(hot, np.array(matplotlib.colormaps["viridis"](1.0)[:3]) * 255, atol=1)
    cold = np.asarray(overlay(image, heat, alpha=0.0))
    np.testing.assert_array_equal(cold, np.asarray(overlay(image, Image.new("L", image.size))))


def test_more_heat_means_more_colour():
    black, heats = Image.new("RGB", (4, 1)), Image.fromarray(np.array([[0, 60, 130, 255]], np.uint8))
    brightness = np.asarray(overlay(black, heats), dtype=int).sum(axis=-1)[0]
    assert (np.diff(brightness) > 0).all()


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1"])
def test_overlay_on_images_of_every_mode(mode):
    image = photo().convert(mode)
    before = image.tobytes()
    assert overlay(image, Image.new("L", image.size, 128)).mode == "RGB"
    assert image.tobytes() == before


@pytest.mark.parametrize(
    ("size", "settings", "message"),
    [
        ((40, 60), {}, "`heatmap` must be of the image's size (60, 40); got (40, 60)."),
        ((60, 40), {"alpha": -0.1}, "`alpha` must be in [0, 1]; got -0.1."),
        ((60, 40), {"alpha": 1.1}, "`alpha` must be in [0, 1]; got 1.1."),
        ((60, 40), {"alpha": math.nan}, "`alpha` must be in [0, 1]; got nan."),
        (
            (60, 40),
            {"colormap": "lava"},
            "`colormap` must be one that matplotlib knows, such as 'viridis'; got 'lava'.",
        ),
    ],
)
def test_overlay_refuses(size, settings, message):
    with pytest.raises(ArgumentError) as caught:
        overlay(photo(), Image.new("L", size), **settings)
    assert str(caught.value) == message


# heads


def test_head_importance(tmp_path):
    for scores in (SIGNED, torch.tensor(SIGNED, requires_grad=True), torch.tensor(SIGNED).bfloat16(), SIGNED.tolist()):
        ax = plot_head_importance(scores, title=NASTY, label=NASTY)
        assert isinstance(ax, Axes)
        (drawn,) = ax.images
        assert drawn.get_array().shape == (3, 4)
        assert (drawn.norm.vmin, drawn.norm.vcenter, drawn.norm.vmax) == (-2, 0, 2)
        assert (ax.get_xlabel(), ax.get_ylabel()) == ("head", "layer")
        assert draw(ax.figure, tmp_path).std() > 10


def test_numbers_that_are_not_negative_start_at_zero(tmp_path):
    ax = plot_head_importance(np.abs(SIGNED))
    assert (ax.images[0].norm.vmin, ax.images[0].norm.vmax) == (0, 2)
    draw(plot_head_importance(np.zeros((2, 2))).figure, tmp_path)
    draw(plot_head_importance(-np.ones((1, 1))).figure, tmp_path)


def test_axes_and_figures_of_the_user_are_used():
    ax = Figure().subplots()
    assert plot_head_importance(SIGNED, ax=ax) is ax
    assert plot_curves([0, 1], shares=[0, 1], ax=ax) is ax
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


def test_text_is_never_mathematics(tmp_path):
    ax = plot_head_importance(SIGNED, title="50$ and 60$ \\x")
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


# curves

SHARES = [0.0, 0.25, 1.0]


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_curves_are_drawn_with_their_areas(tmp_path):
    curves = {
        "low": np.array([0.0, 0.4, 0.8]),
        "high": torch.tensor([1.0, 0.8, 0.6]).bfloat16(),
        "list": [0.25, 0.25, 0.25],
    }
    ax = plot_curves(curves, shares=SHARES, title=NASTY, label=NASTY)
    assert isinstance(ax, Axes)
    # By hand: 0.25 * 0.2 + 0.75 * 0.6; 0.25 * 0.9 + 0.75 * 0.7.
    assert legend(ax) == ["0.75  high", "0.50  low", "0.25  list"]
    by_name = {line.get_label().split()[-1]: line for line in ax.lines}
    np.testing.assert_allclose(by_name["low"].get_xydata(), np.transpose([SHARES, curves["low"]]))
    assert not ax.collections  # no band without a batch
    assert ax.get_ylabel() == "score"
    assert draw(ax.figure, tmp_path).std() > 10


def test_the_area_is_over_the_range_of_the_shares():
    assert legend(plot_curves({"a": [1.0, 3.0]}, shares=[0.5, 0.75])) == ["2.00  a"]
    assert legend(plot_curves([-0.001, 0.0], shares=[0, 1])) == ["0.00"]


def test_a_batch_is_a_mean_in_a_band_of_its_standard_error():
    scores = np.array([[0.0, 0.2], [0.0, 0.4], [0.0, 0.9]])
    (line,), (band,) = (lambda ax: (ax.lines, ax.collections))(plot_curves({"a": scores}, shares=[0, 1]))
    np.testing.assert_allclose(line.get_ydata(), [0, 0.5])
    error = math.sqrt((0.3**2 + 0.1**2 + 0.4**2) / 2 / 3)
    heights = band.get_paths()[0].vertices
    at_end = heights[heights[:, 0] == 1, 1]
    np.testing.assert_allclose([at_end.min(), at_end.max()], [0.5 - error, 0.5 + error])
    assert not plot_curves({"a": scores[:1]}, shares=[0, 1]).collections  # one curve has no error


def test_curves_bring_their_own_shares():
    curve = Curve(torch.tensor([0.0, 0.5, 1.0]), torch.tensor([[1.0, 0.5, 0.0], [0.0, 0.5, 1.0]]))
    ax = plot_curves(curve, shares=[0, 1])  # which are not asked for
    assert legend(ax) == ["0.50"]
    np.testing.assert_allclose(ax.lines[0].get_xydata(), [[0, 0.5], [0.5, 0.5], [1, 0.5]])
    mixed = plot_curves({"curve": curve, "plain": [0.0, 1.0]}, shares=[0, 1])
    assert sorted(len(line.get_xdata()) for line in mixed.lines) == [2, 3]


def test_seventeen_curves_can_be_told_apart(tmp_path):
    """By colour and dashes, which stay those of a name in the next figure, where the order is another."""
    names = [f"method-{number}" for number in range(17)]
    looks = []
    for sign in (1, -1):
        ax = plot_curves({name: [0.5, 0.5 + sign * k / 40] for k, name in enumerate(names)}, shares=[0, 1])
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
    ax = plot_curves({"_hidden": [0, 1], "$x$ \x1b": [0, 0]}, shares=[0, 1])
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


# explanations


@pytest.mark.parametrize("method", ["gmar", "rollout"])
def test_explanations_as_the_pipeline_gives_them(method, tmp_path):
    image = photo(size=(90, 60))
    results = make_explainer()(image, top_k=2, method=method)
    results[0]["label"] = NASTY
    figure = plot_explanation(image, results, title=NASTY)
    assert isinstance(figure, Figure)
    assert len([ax for ax in figure.axes if ax.images]) == 6
    assert draw(figure, tmp_path).std() > 10
    heads = "head weights" if method == "rollout" else "head contributions"
    assert texts(figure).count(heads) == 2


def test_explanations_without_head_scores(tmp_path):
    result = dict(
        label="cat", score=0.5, heatmap=Image.new("L", (60, 40)), head_contribution=None, head_importance=None
    )
    draw(plot_explanation(photo(), [result]), tmp_path)


def test_no_explanations():
    with pytest.raises(ArgumentError) as caught:
        plot_explanation(photo(), [])
    assert str(caught.value) == "`results` must hold at least one explained target; got none."


def test_pyplot_is_left_alone():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        import matplotlib.pyplot as plt
    before = plt.get_fignums()
    plot_head_importance(SIGNED)
    plot_head_maps(np.ones((1, 1, 2, 2)))
    assert plt.get_fignums() == before
