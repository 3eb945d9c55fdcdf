"""The figure of an image and its explanations: what stands where."""

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

import gmar_hf
from gmar_hf.errors import ArgumentError, ArgumentTypeError
from gmar_hf.plotting import overlay, plot_explanation, plot_head_importance
from tests.helpers.explainers import make_explainer, photo
from tests.helpers.figures import NASTY, draw, texts

MAP = torch.tensor([[0.25, -0.5], [0.0, 0.125]])


def made_up(label="cat", method="contribution", **entries):
    nothing = dict(head_contribution=None, head_importance=None)
    return dict(label=label, score=0.5, method=method, attribution=MAP, box=(0, 0, 60, 40), **nothing) | entries


def pictures(figure):
    """What is drawn, of every axes that has a picture, from top left to bottom right."""
    return [np.asarray(ax.images[0].get_array()) for ax in figure.axes if ax.images]


def test_labels_are_rows_and_methods_columns(tmp_path):
    image = photo(size=(90, 60))
    results = make_explainer()(image, top_k=2, method=["gmar", "rollout", "contribution"])
    for result in results[:3]:
        result["label"] = NASTY
    figure = plot_explanation(image, results, title=NASTY)
    assert isinstance(figure, Figure)
    # The image once; in each of two rows three maps and the heads.
    drawn = pictures(figure)
    assert len(drawn) == 1 + 2 * (3 + 1)
    np.testing.assert_array_equal(drawn[0], np.asarray(image))
    for place, result in zip((1, 2, 3, 5, 6, 7), results, strict=True):
        expected = overlay(image, result["attribution"], box=result["box"], style="signed", least_side=640)
        np.testing.assert_array_equal(drawn[place], np.asarray(expected))
    np.testing.assert_array_equal(drawn[4], results[0]["head_contribution"].double())
    shown = texts(figure)
    assert [shown.count(text) for text in ("gmar", "rollout", "contribution", "what each head adds\n(gmar)")] == [
        1,
        1,
        1,
        1,
    ]
    label, score, best = (results[3][key] for key in ("label", "score", "predicted_label"))
    assert " ".join(shown).count(f"{label}: {score:.2f}") == 1
    assert best == results[0]["predicted_label"] != label
    assert draw(figure, tmp_path).std() > 10


def test_an_image_of_another_size_is_refused():
    """Boxes are in pixels of the image that was explained; on another the map would lie elsewhere."""
    results = make_explainer()(photo(size=(90, 60)))
    words = r"must be the image that was explained, of 60 x 90 pixels; got one of 30 x 45\. Explain the one"
    with pytest.raises(ArgumentError, match=f"`image` {words}"):
        plot_explanation(photo(size=(45, 30)), results)
    with pytest.raises(ArgumentError, match=f"`explained` {words}"):
        gmar_hf.pages.write_page([("one", photo(size=(45, 30)), results)], "page.html")
    assert results[0].image_size == (90, 60)


def test_a_method_that_one_label_lacks(tmp_path):
    results = [made_up("cat", "a"), made_up("dog", "b"), made_up("dog", "a", versus="cat")]
    figure = plot_explanation(photo(), results)
    assert len(pictures(figure)) == 4
    labels = [ax.get_ylabel() for ax in figure.axes if ax.images]
    assert labels == ["", "cat: 0.50", "dog: 0.50", "dog: 0.50, not cat"]
    assert [ax.get_title() for ax in figure.axes][:3] == ["image", "a", "b"]
    draw(figure, tmp_path)


def test_heads_show_contributions_before_weights():
    weights, contributions = torch.ones(2, 3) / 3, torch.ones(2, 3)
    results = [made_up(method="a", head_importance=weights), made_up(method="b", head_contribution=contributions)]
    figure = plot_explanation(photo(), results)
    np.testing.assert_array_equal(pictures(figure)[-1], contributions)
    assert {"what each head adds\n(b)", "logits"} <= set(texts(figure))
    np.testing.assert_array_equal(pictures(plot_explanation(photo(), results[:1]))[-1], weights.double())


def test_a_figure_says_what_captions_say():
    amounts = {"explained_logit": 2.0, "attention_contribution": -1.0, "completeness_gap": 2.0}
    heads = {"head_contribution": torch.ones(2, 3), "versus": "dog", "versus_score": 0.25}
    figure = plot_explanation(photo(), made_up(unit="logits", method="path", **amounts, **heads))
    maps = [ax for ax in figure.axes if ax.images][1]
    assert maps.get_ylabel() == "cat: 0.50, not dog: 0.25"
    assert maps.get_xlabel() == (
        "red: for cat\nblue stripes: for dog\nlead 2.0 = attention -1.0 + rest 3.0\ndo not read amounts\n"
        "attention speaks for dog"
    )
    assert "logits: do not read amounts" in texts(figure)


def test_a_single_result_is_drawn_as_a_list_of_it():
    alone, listed = (pictures(plot_explanation(photo(), results)) for results in (made_up(), [made_up()]))
    assert len(alone) == 2
    np.testing.assert_array_equal(alone[1], listed[1])


def test_scales_stand_below_the_maps(tmp_path):
    signed, unsigned = made_up(method="a", unit="logits"), made_up(method="b", attribution=MAP.abs(), unit="share")
    for style, expected in (
        ("signed", ["red: for cat\nblue stripes: against it\n±0.5 logits", "magenta: looks here\n0 to 0.5 share"]),
        ("positive", ["red: for cat\n0 to 0.25 logits", "magenta: looks here\n0 to 0.5 share"]),
    ):
        figure = plot_explanation(photo(), [signed, unsigned], style=style, grid=True)
        assert [ax.get_xlabel() for ax in figure.axes if ax.images][1:] == expected
        drawn = overlay(photo(), MAP, box=(0, 0, 60, 40), style=style, grid=True, least_side=640)
        np.testing.assert_array_equal(pictures(figure)[1], np.asarray(drawn))
    draw(figure, tmp_path)


def test_the_strongest_patches_share_the_full_colour_and_the_scale_says_so():
    # Sizes are 0, 0.125, 0.25 and 0.5: a third of the way down lies 0.25.
    box, signed = (0, 0, 60, 40), made_up(unit="logits")
    figure = plot_explanation(photo(), [signed], saturated=1 / 3)
    assert [ax.get_xlabel() for ax in figure.axes if ax.images][1].endswith("\nfull colour from ±0.25 logits")
    expected = overlay(photo(), MAP.clip(-0.25, 0.25), box=box, style="signed", least_side=640)
    drawn = pictures(figure)[1]
    # Of a smooth map it is not the same to cut it before it is drawn; at the patches' centres it is.
    centres = (
        slice(drawn.shape[0] // 4, None, drawn.shape[0] // 2),
        slice(drawn.shape[1] // 4, None, drawn.shape[1] // 2),
    )
    np.testing.assert_allclose(drawn[centres].astype(int), np.asarray(expected)[centres].astype(int), atol=3)
    nothing = made_up(attribution=torch.tensor([[0.5, 0.0], [0.0, 0.0]]))
    (_, ax) = [ax for ax in plot_explanation(photo(), [nothing], saturated=0.5).axes if ax.images]
    assert ax.get_xlabel() == "magenta: looks here\n0 to 0.5"  # where fewer patches than that are drawn at all
    with pytest.raises(ArgumentError, match=r"^`saturated` must be a share in \[0, 1\]; got 1.5"):
        plot_explanation(photo(), [signed], saturated=1.5)


def test_files_and_figures_of_the_user(tmp_path):
    photo().save(tmp_path / "photo.png")
    for figure in (Figure(), Figure().subfigures(1, 2)[1]):
        assert plot_explanation(tmp_path / "photo.png", [made_up()], figure=figure) is figure
        np.testing.assert_array_equal(pictures(figure)[0], np.asarray(photo()))


def test_refusals():
    with pytest.raises(ArgumentError) as caught:
        plot_explanation(photo(), [])
    assert str(caught.value) == "`results` must hold at least one explained target; got none."
    with pytest.raises(ArgumentError, match=r"^`style` must be one of "):
        plot_explanation(photo(), [made_up()], style="both")


@pytest.mark.parametrize(
    ("results", "words"),
    [
        (torch.zeros(4, 4), "got Tensor. Draw a map with `gmar_hf.plotting.overlay`."),
        (torch.zeros(0), "got Tensor. "),
        (np.zeros((4, 4)), "got ndarray. "),
        (gmar_hf.Explanation(torch.zeros(1, 2)), "got Explanation. "),
        ({"score": 0.5, "label": "cat"}, "got dict. "),
        ("text", "got str. "),
        (None, "got NoneType. "),
        ([torch.zeros(4, 4)], "got list. "),
        ([{"score": 0.5, "label": "cat"}], "got list. "),  # of `image-classification`
        ([[made_up()], [made_up()]], "got those of several images. Draw one after the other."),
    ],
)
def test_what_is_no_list_of_results(results, words):
    with pytest.raises(ArgumentTypeError) as caught:
        plot_explanation(photo(), results)
    start = "`results` must be the list of dicts that the pipeline gives for one image; "
    assert str(caught.value).startswith(start + words)


@pytest.mark.parametrize("values", ["text", {"a": 1}, [[1.0], [1.0, 2.0]], [[object()]]])
def test_what_holds_no_numbers(values):
    with pytest.raises(ArgumentTypeError, match=r"^`scores` must be a tensor or array \(layers, heads\); got "):
        plot_head_importance(values)
    with pytest.raises(ArgumentTypeError, match=r"^`attribution` must be a map of shape \(rows, cols\); got "):
        overlay(photo(), values)
