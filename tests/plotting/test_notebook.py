"""What notebooks show: a notebook is executed, and the pictures in the HTML are looked into."""

import base64
import io
import re
from html.parser import HTMLParser

import nbformat
import numpy as np
import pytest
import torch
from IPython.core.formatters import DisplayFormatter
from nbclient import NotebookClient
from PIL import Image

import gmar_hf
from gmar_hf._pipeline.results import ExplanationResult
from gmar_hf.plotting import overlay, plot_curves, plot_explanation, plot_head_importance, plot_head_maps
from gmar_hf.plotting.notebook import head_text, map_on, matrix, matrix_of_heads, strongest, thumbnail
from gmar_hf.plotting.shown_figure import new_figure
from tests.helpers.explainers import make_explainer, photo
from tests.helpers.reports import make_report

NASTY = "<script>alert('&')</script>\x1b[2J \"x"


class Reader(HTMLParser):
    """Tags, pictures and text of a piece of HTML; refuses what is not closed."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.pictures, self.text, self.open = [], [], "", []
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag == "img":
            kind, content = dict(attributes)["src"].split(",")
            assert kind == "data:image/png;base64"
            self.pictures.append(Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB"))
        else:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def same(one, other):
    return one.size == other.size and one.tobytes() == other.tobytes()


def values_of(cell):
    """The cell's value as it is shown; tqdm says in the first cell on stderr that there are no widgets."""
    return [output for output in cell.outputs if output.output_type != "stream"]


def test_every_figure_is_a_picture_for_ipython():
    result = dict(label="cat", score=0.5, method="gmar", attribution=torch.eye(2), box=(0, 0, 60, 40))
    figures = [
        plot_head_importance(np.eye(3)),
        plot_head_maps(np.ones((1, 2, 3, 3))),
        plot_curves([0.0, 1.0], shares=[0, 1]),
        plot_explanation(photo(), [result]),
        make_report().plot(),
    ]
    for figure in figures:
        shown, _ = DisplayFormatter().format(figure)
        (content,) = (shown[kind] for kind in shown if kind.startswith("image/"))
        with Image.open(io.BytesIO(content)) as picture:
            assert np.asarray(picture.convert("L")).std() > 5
    shown, _ = DisplayFormatter().format(gmar_hf.Explanation(attribution=torch.eye(3)[None]))
    assert shown.keys() == {"text/plain", "text/html"}


def test_a_figure_with_photographs_is_shown_in_few_bytes():
    noise = np.random.default_rng(0).integers(0, 256, (400, 400, 3), dtype=np.uint8)
    figure = new_figure(4, 4)
    figure.figimage(noise)
    shown = figure._repr_mimebundle_()
    assert shown.keys() == {"image/jpeg"}
    with Image.open(io.BytesIO(shown["image/jpeg"])) as picture:
        assert picture.size == (400, 400)
        assert np.corrcoef(np.asarray(picture).ravel(), noise.ravel())[0, 1] > 0.95
    assert new_figure(4, 4)._repr_mimebundle_().keys() == {"image/png"}


@pytest.mark.slow
def test_figures_and_results_show_themselves_in_a_notebook(tmp_path):
    """By a kernel of its own, without a magic and without pyplot."""
    cells = [
        "import numpy as np, torch\nfrom gmar_hf.plotting import *\nplot_head_importance(np.eye(3))",
        "plot_head_maps(np.ones((1, 2, 3, 3)))",
        "plot_curves([0.0, 1.0], shares=[0, 1])",
        "from PIL import Image\nresult = dict(label='cat', score=0.5, method='gmar', attribution=torch.eye(2),\n"
        "    box=(0, 0, 8, 8), head_contribution=None, head_importance=None)\n"
        "plot_explanation(Image.new('RGB', (8, 8)), [result])",
        "from gmar_hf import Explanation\nExplanation(head_importance=torch.ones(1, 2, 3) / 3)",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    NotebookClient(notebook, timeout=300, kernel_name="python3").execute(cwd=str(tmp_path))
    for cell in notebook.cells[:4]:
        (output,) = values_of(cell)
        (content,) = (output.data[kind] for kind in output.data if kind.startswith("image/"))
        with Image.open(io.BytesIO(base64.b64decode(content))) as picture:
            assert np.asarray(picture.convert("L")).std() > 5
    (output,) = values_of(notebook.cells[4])
    assert len(Reader(output.data["text/html"]).pictures) == 1
    assert output.data["text/plain"].startswith("Explanation(")


@pytest.mark.parametrize("size", [(1000, 500), (10, 20), (3000, 1), (224, 224)])
def test_thumbnails(size):
    small = thumbnail(photo(size=size).convert("L"))
    assert small.mode == "RGB"
    assert max(small.size) == 224
    assert min(small.size) == max(1, round(224 * min(size) / max(size)))


def test_a_map_lies_on_the_small_picture_as_on_the_large_one():
    image, box, values = photo(size=(448, 224)), (112, 0, 336, 224), torch.tensor([[1.0, -0.5], [0.2, 0.0]])
    small = thumbnail(image)
    expected = overlay(small, values, box=(56, 0, 168, 112), style="signed")
    result = {"attribution": values, "box": box, "unit": "logits"}
    assert same(map_on(small, result, image.size), expected)


def test_maps_without_a_sign_are_not_in_the_colour_of_what_speaks_for_a_label():
    small = thumbnail(Image.new("RGB", (64, 64), "white"))
    result = {"attribution": torch.ones(1, 1), "box": (0, 0, 64, 64)}
    red, looks = (
        np.asarray(map_on(small, {**result, "unit": unit}, (64, 64)))[32, 32].astype(int)
        for unit in ("logits", "share of attention")
    )
    assert red[0] > 150 > red[2] + 60
    assert looks[2] > 100 > looks[1]
    for unit, words in (("logits", "red: for"), ("share of attention", "magenta: looks here")):
        nothing = dict.fromkeys(("head_contribution", "head_importance"))
        entries = {**result, **nothing, "unit": unit, "label": "cat", "score": 0.5, "method": "some"}
        shown = ExplanationResult(entries, small, (64, 64))._repr_html_()
        assert f"some, {words}" in shown
        assert "cropped" not in shown
        assert "was cropped" in ExplanationResult(entries, small, (128, 64))._repr_html_()


def test_the_matrix_shows_every_head_where_it_is():
    values = torch.tensor([[1.0, 0.0, -1.0], [0.0, 0.3, 0.0]])
    pixels = np.asarray(matrix(values)).astype(int)
    means = pixels.reshape(2, 12, 3, 12, 3)[:, 3:-3, :, 3:-3].mean(axis=(1, 3))
    red_over_blue = means[..., 0] - means[..., 2]
    assert (
        np.sign(red_over_blue) == values.numpy()[:, :].round(1).clip(-1, 1).astype(int) + (values == 0.3).numpy()
    ).all()


def test_the_strongest_heads():
    values = torch.tensor([[0.1, -3.0], [2.0, 0.0]])
    assert [place[:2] for place in strongest(values, 3)] == [(0, 1), (1, 0), (0, 0)]
    assert head_text(values, is_signed=True, k=2) == "heads: 0.1 -3.00, 1.0 +2.00 logits"
    assert head_text(torch.tensor([[0.25, 0.75]]), is_signed=False) == "heads: 0.1 75%, 0.0 25% of the layer"


def test_heads_that_a_layer_lacks():
    values = torch.tensor([[0.1, torch.nan], [2.0, -3.0]])
    assert [place[:2] for place in strongest(values, 5)] == [(1, 1), (1, 0), (0, 0)]
    pixels = np.asarray(matrix(values))
    assert (pixels[3:9, 15:21] == 211).all()  # light grey
    assert head_text(values, is_signed=True, k=1) == "heads: 1.1 -3.00 logits"


def test_results_show_map_heads_and_labels_escaped():
    image = photo(size=(90, 60))
    results = make_explainer()(image, target=["cat", "dog"], versus="bird", method="contribution")
    results[0]["label"] = NASTY
    shown = Reader(results._repr_html_())
    assert not {"script", "a", "iframe"} & set(shown.tags)
    assert len(shown.pictures) == 4
    expected = [
        map_on(thumbnail(image), results[0], image.size),
        matrix_of_heads(results[0]["head_contribution"], is_signed=True),
    ]
    assert all(same(*pair) for pair in zip(shown.pictures[:2], expected, strict=True))
    assert "\x1b" not in shown.text
    assert r"<script>alert('&')</script>\x1b[2J" in shown.text
    assert f"dog: {results[1]['score']:.2f}, not bird: {results[1]['versus_score']:.2f}" in shown.text
    assert head_text(results[1]["head_contribution"], is_signed=True) in shown.text


def test_lists_of_images_and_results_without_heads():
    explainer = make_explainer()
    of_images = explainer([photo(seed) for seed in range(14)], method="gradient-rollout", batch_size=14)
    shown = Reader(of_images._repr_html_())
    assert "... and 2 more" in shown.text
    weights = explainer(photo(), method="rollout")[0]
    weights["head_contribution"] = None
    assert re.search(r"heads: \d\.\d 33%", Reader(weights._repr_html_()).text)
    weights["head_importance"] = None
    assert len(Reader(weights._repr_html_()).pictures) == 1


def test_explanations_show_the_first_targets():
    model = make_explainer().model
    pixel_values = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    single = gmar_hf.explain(model, pixel_values, target=1, method="contribution")
    shown = Reader(single._repr_html_())
    assert same(shown.pictures[2], matrix(single.attribution[1]))
    assert same(shown.pictures[3], matrix_of_heads(single.head_contribution[1], is_signed=True))
    assert "image 3: class 1" in shown.text
    assert head_text(single.head_contribution[3], is_signed=True) in shown.text
    explanation = make_explainer()(photo(), target=["cat", "dog"], return_explanation=True)[0]["explanation"]
    named = gmar_hf.Explanation(**explanation.tensors(), settings={"labels": ["a cat", NASTY]})
    shown = Reader(named._repr_html_())
    assert len(shown.pictures) == 4
    assert same(shown.pictures[2], matrix(explanation.attribution[0, 1]))
    assert "image 0: a cat" in shown.text
    assert not {"script"} & set(shown.tags)
    only = gmar_hf.Explanation(attribution=torch.eye(3)[None], settings={"labels": "none"})
    assert "image 0: a score" in Reader(only._repr_html_()).text
    assert not Reader(gmar_hf.Explanation(logits=torch.zeros(1, 3))._repr_html_()).pictures
    many = gmar_hf.Explanation(attribution=torch.eye(3).expand(99, 3, 3))
    assert len(Reader(many._repr_html_()).pictures) == 6


def test_reports_show_their_heads():
    report = make_report()
    shown = Reader(report._repr_html_())
    assert same(shown.pictures[0], matrix_of_heads(report.mean["contribution_abs"], is_signed=False))
    assert same(shown.pictures[1], matrix_of_heads(report.mean["contribution"], is_signed=True))
    ((layer, head, value), *_) = report.top_heads(3)
    assert f"heads: {layer}.{head} {value:+.2f}" in shown.text
    for text in (report.settings["model"]["id"], f"{report.num_images} images", report.labels[0]):
        assert text in shown.text
