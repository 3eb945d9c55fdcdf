import warnings

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from gmar_hf.errors import ArgumentError
from gmar_hf.plotting import plot_explanation, plot_head_importance, plot_head_maps
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
