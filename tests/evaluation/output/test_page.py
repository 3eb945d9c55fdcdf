"""The page of an evaluation, by a parser."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from gmar_hf.evaluation import MAP_METHODS, Evaluation, Metric, Row
from gmar_hf.evaluation.output.page import write_page
from gmar_hf.metrics import registry
from tests.helpers.browser import CHROMIUM, browsing
from tests.helpers.evaluations import CURVES, METHODS, METRICS, NASTY, made, pictures_of
from tests.helpers.pages import Page, assert_self_contained


def page_of(evaluation: Evaluation, pictures, tmp_path) -> Page:
    write_page(evaluation, evaluation.summary(), pictures, tmp_path / "index.html")
    return Page((tmp_path / "index.html").read_text(encoding="utf-8"))


def cells(page: Page) -> list[list[tuple[dict, str]]]:
    """The first table's figures by method."""
    width = len(METRICS) + 2
    found = page.find("td")[: len(METHODS) * width]
    return [found[start : start + width] for start in range(0, len(found), width)]


def test_the_table_has_every_figure(tmp_path):
    evaluation = made()
    page = page_of(evaluation, [], tmp_path)
    summary = evaluation.summary()
    assert page.texts("th", scope="row")[: len(METHODS)] == list(METHODS)
    assert page.texts("th", scope="col")[:8] == [
        "map", "insertion (blur) ↑", "insertion (zero) ↑", "deletion (blur) ↓", "pointing game ↑of 2 classes",
        "sparseness", "cost in forwards", "ms",
    ]  # fmt: skip
    for row, method in zip(cells(page), METHODS, strict=True):
        for (_, text), metric in zip(row, METRICS, strict=False):
            figures = summary[method][metric.key]
            interval = "" if figures["low"] is None else f"{figures['low']:z.3f} to {figures['high']:z.3f}"
            assert text.replace("†", "") == f"{figures['mean']:z.3f}{interval}"
        forwards = METHODS[method][0]
        assert [text for _, text in row[-2:]] == ["?" if forwards is None else f"{forwards:g}", "1.5"]
    assert len(page.find("h1")) == 1


def test_the_page_opens_with_the_verdict(tmp_path):
    evaluation = made(10, metrics=[Metric("srg", "insertion_minus_deletion", "blur", True), *METRICS[1:]])
    evaluation.values[:, :, 0] = [3, 9, 1, 2]
    evaluation.methods[0]["name"] = NASTY
    page = page_of(evaluation, [], tmp_path)
    verdict = evaluation.verdict()
    assert verdict.map == NASTY
    first, *rest = verdict.sentences
    assert page.texts("strong")[0] == first
    assert page.texts("li")[: len(rest)] == list(rest)
    assert page.texts("section")[0].startswith(first)
    assert (
        "How the map to believe is chosen: the one with the highest insertion minus deletion"
        in page.texts("section")[0]
    )
    # The other maps stand below, with how far behind each is.
    assert page.texts("caption")[0].endswith("is ahead in insertion minus deletion, image by image")
    leads = [*verdict.leads, *filter(None, [verdict.control])]
    assert [lead.over for lead in leads] == [
        name.split(", a control")[0] for name in page.texts("th", scope="row")[: len(leads)]
    ]
    shown = page.texts("td")[: 2 * len(leads)]
    assert shown[::2] == [f"{lead.mean:+.2f}{lead.low:+.2f} to {lead.high:+.2f}" for lead in leads]
    assert (
        set(shown[1::2])
        == {"more than chance"}
        == {"more than chance" if lead.status == "ahead" else "" for lead in leads}
    )
    assert not page.find("script")
    assert_self_contained(page)


@pytest.mark.parametrize("has_pictures", [False, True])
def test_links_lead_to_the_parts_that_are_there(has_pictures, tmp_path):
    evaluation = made()
    page = page_of(evaluation, pictures_of(evaluation, 1) if has_pictures else [], tmp_path)
    (_, parts), links = page.find("nav")[0], [attributes["href"] for attributes, _ in page.find("a")]
    places = [f"#{attributes['id']}" for attributes, _ in page.find("h2") if "id" in attributes]
    assert sorted(links) == sorted(places)
    assert ("#images" in links) == parts.startswith("Images on which the maps are furthest apart") == has_pictures


def test_many_figures_stand_in_several_tables(tmp_path):
    """Twelve, eight and four of them, each map's in both; what a map costs stands once."""
    evaluation = made(
        10,
        metrics=[Metric(f"key {number}", f"figure_{number}", None, True) for number in range(12)],
        values=np.random.default_rng(1).uniform(1, 2, (20, len(METHODS), 12)),
    )
    page = page_of(evaluation, [], tmp_path)
    columns = page.texts("th", scope="col")
    assert columns[:16] == [
        "map", *(f"figure {number} ↑" for number in range(8)), "cost in forwards", "ms",
        "map", *(f"figure {number} ↑" for number in range(8, 12)),
    ]  # fmt: skip
    assert page.texts("th", scope="row")[: 2 * len(METHODS)] == [*METHODS, *METHODS]
    means = evaluation.values.mean(axis=0)
    found = page.texts("td")
    assert len(found) == len(METHODS) * (12 + 2) + (len(METHODS) - 1) * 12  # and the differences to rollout
    first, second = found[: len(METHODS) * 10], found[len(METHODS) * 10 : len(METHODS) * 14]
    for place in range(len(METHODS)):
        shown = [*first[place * 10 : place * 10 + 8], *second[place * 4 : place * 4 + 4]]
        assert [text[:5] for text in shown] == [f"{mean:.3f}"[:5] for mean in means[place]]


def test_the_columns_that_decide_come_first(tmp_path):
    evaluation = made(10, metrics=[*METRICS[:4], Metric("srg", "insertion_minus_deletion", "blur", True)])
    page = page_of(evaluation, [], tmp_path)
    assert evaluation.verdict().criterion == "insertion_minus_deletion"
    titles = [text for text in page.texts("th", scope="col") if "insertion" in text]
    assert titles[:2] == ["insertion minus deletion (blur) ↑", "insertion (blur) ↑"]
    rows = page.texts("td")[-3 * len(METRICS) :]  # differences to rollout, of three maps
    expected = evaluation.summary()["contribution"]["srg"]["minus_rollout"]["mean"]
    assert rows[0].startswith(f"{expected:+z.3f}")
    assert page.texts("dt")[0] == "insertion minus deletion"


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
def test_the_page_fits_narrow_windows(tmp_path):
    evaluation = made(10, metrics=[Metric("srg", "insertion_minus_deletion", "blur", True), *METRICS[1:]], label=NASTY)
    page_of(evaluation, pictures_of(evaluation, 2), tmp_path)
    with browsing(tmp_path / "browser") as tab:
        for width in (1280, 390):
            tab.open(tmp_path / "index.html", width)
            assert tab.run("document.documentElement.scrollWidth") <= width
            assert tab.run("document.querySelector('.verdict').scrollWidth") <= width
            assert tab.complaints() == []


def test_differences_to_rollout_and_gmar_are_paired(tmp_path):
    evaluation = made()
    page = page_of(evaluation, [], tmp_path)
    summary = evaluation.summary()
    assert page.texts("h2") == ["Figures", "Difference to rollout", "The maps"]
    others = [name for name in METHODS if name != "rollout"]
    assert page.texts("th", scope="row")[len(METHODS) :] == others
    found = page.find("td")[len(METHODS) * (len(METRICS) + 2) :]
    assert len(found) == len(others) * len(METRICS)
    wanted = [(summary[name][metric.key]["minus_rollout"], metric) for name in others for metric in METRICS]
    for (attributes, text), (figures, metric) in zip(found, wanted, strict=True):
        interval = "" if figures["low"] is None else f"{figures['low']:+z.3f} to {figures['high']:+z.3f}"
        assert text == f"{figures['mean']:+z.3f}{interval}"
        is_better = metric.higher_is_better is not None and figures["low"] is not None
        is_better = is_better and (figures["low"] > 0 if metric.higher_is_better else figures["high"] < 0)
        assert (attributes.get("class") == "bold") is is_better
    sure = np.zeros((20, len(METHODS), len(METRICS)))
    sure[:, 0] = np.linspace(1, 2, 20)[:, None]  # against rollout's 0: better where high figures are
    sure[:, 3] = -1
    rows = [Row(f"item {number}", 0, "cat", 0.5, True, number) for number in range(20)]
    methods = made().methods
    methods[3]["name"] = "gmar-l1"
    page = page_of(made(rows=rows, values=sure, methods=methods), [], tmp_path)
    assert page.texts("h2")[1:3] == ["Difference to rollout", "Difference to gmar-l1 (gmar)"]
    bold = ["bold" in found.get("class", "") for found, _ in page.find("td")[len(METHODS) * (len(METRICS) + 2) :]]
    to_rollout, to_gmar = np.array(bold).reshape(2, 3, len(METRICS)).tolist()
    assert to_rollout == [[True, True, False, True, False], [False] * 5, [False, False, True, False, False]]
    assert to_gmar == [[True, True, False, True, False]] * 3
    alone = made(methods=made().methods[:1], values=made().values[:, :1])
    assert page_of(alone, [], tmp_path).texts("h2") == ["Figures", "The maps"]


def test_maps_and_figures_are_explained(tmp_path):
    page = page_of(made(), [], tmp_path)
    assert page.texts("dt") == ["insertion", "deletion", "pointing game", "sparseness", *METHODS]
    assert page.texts("dd")[2] == "how often the map's maximum is on the object"
    assert page.texts("dd")[4:] == [f"it is {name}" for name in METHODS]
    unknown = made(methods=[{**method, "about": ""} for method in made().methods])
    assert "The maps" not in page_of(unknown, [], tmp_path).texts("h2")
    assert all(entry.about for entry in registry.METRICS.values())
    assert all(method.about for method in MAP_METHODS.values())


def test_the_best_is_bold_at_the_better_end(tmp_path):
    values = np.zeros((1, len(METHODS), len(METRICS)))
    values[0] = np.arange(len(METHODS))[:, None] - 1.5
    evaluation = made(1, rows=made(1).rows[:1], values=values)
    best = [["bold" in found.get("class", "") for found, _ in row] for row in cells(page_of(evaluation, [], tmp_path))]
    assert np.array(best).argmax(axis=0)[:4].tolist() == [3, 3, 0, 3]
    assert np.array(best).sum(axis=0).tolist() == [1, 1, 1, 1, 0, 0, 0]  # sparseness has no better end
    values[0, :, 1] = [1, 0, 1, 0]
    values[0, :, 3] = np.nan
    best = [["bold" in found.get("class", "") for found, _ in row] for row in cells(page_of(evaluation, [], tmp_path))]
    assert np.array(best)[:, [1, 3]].T.tolist() == [[True, False, True, False], [False] * 4]


def test_a_figure_that_there_is_not_is_a_dash(tmp_path):
    values = np.full((1, len(METHODS), len(METRICS)), np.nan)
    values[:, :, 0] = -0.0001
    evaluation = made(1, rows=made(1).rows[:1], values=values)
    for row in cells(page_of(evaluation, [], tmp_path)):
        assert [text.strip("†") for _, text in row[:5]] == ["0.000", "–", "–", "–", "–"]  # noqa: RUF001 (as the page)


def test_figures_under_their_own_filling_are_marked(tmp_path):
    page = page_of(made(), [], tmp_path)
    marks = [["†" in text for _, text in row[:5]] for row in cells(page)]
    assert np.argwhere(marks).tolist() == [[1, 0], [1, 2]]  # "masked" under blur, in insertion and deletion
    assert any(text.startswith("†: this map was made with this very filling") for text in page.texts("li"))
    plain = made(methods=[{**method, "baseline": None} for method in made().methods])
    assert "†" not in "".join(page_of(plain, [], tmp_path).texts("body"))


def test_how_it_was_measured_is_said(tmp_path):
    evaluation = made()
    (text,) = page_of(evaluation, [], tmp_path).texts("body")
    for words in (
        "me/model on me/data", "6 images, 12 explained classes (each image's labels)", "sigmoid of the class's logit",
        "For 6 of 12 of them the model ranks", "in 4 steps", "blur, zero (blur: a Gaussian of 8 pixels)",
        "intervals of 95 % over images", "A map made of gradients says what a small change would do",
        "Measured 2025-01-02 with gmar_hf 0.1.",
    ):  # fmt: skip
        assert words in text
    assert "could not be read" not in text
    settings = {**evaluation.settings, "target": "predicted", "counts": {"num_unreadable": 3}}
    rows = [Row(row.image, row.target, row.label, row.score, None, row.index) for row in evaluation.rows]
    (text,) = page_of(made(settings=settings, rows=rows), [], tmp_path).texts("body")
    assert "(each image's predicted class)" in text
    assert "3 images could not be read" in text
    assert "the model ranks" not in text
    assert "the image before it in its batch of 3" not in text
    settings = {**evaluation.settings, "baselines": ["blur", "other"]}
    (text,) = page_of(made(settings=settings), [], tmp_path).texts("body")
    assert "blur, other (blur: a Gaussian of 8 pixels; other: the image before it in its batch of 3, so" in text
    only = made(metrics=METRICS[3:], values=evaluation.values[:, :, 3:])
    (text,) = page_of(only, [], tmp_path).texts("body")
    assert "Gaussian" not in text  # nothing was hidden


def test_curves_are_pictures_that_say_what_they_are(tmp_path):
    images = [found for found, _ in page_of(made(curves=CURVES), [], tmp_path).find("img")]
    titles = [found["alt"].split(":")[0] for found in images]
    assert titles == ["insertion (blur)", "insertion (zero)", "deletion (blur)"]
    sources = [found["src"] for found in images]
    assert len(set(sources)) == 3
    for source in sources:
        with Image.open(io.BytesIO(base64.b64decode(source.removeprefix("data:image/png;base64,")))) as image:
            assert np.asarray(image.convert("L")).std() > 10
    assert "Curves" not in page_of(made(), [], tmp_path).texts("h2")


def test_pictures_are_shown_with_their_figures(tmp_path):
    evaluation = made()
    pictures = pictures_of(evaluation, 2)
    pictures[1].figures.update({"masked": float("nan"), "mine": -0.001})
    del pictures[1].figures["rollout"]
    page = page_of(evaluation, pictures, tmp_path)
    first, second = page.texts("article")
    assert first.startswith("cat (0.25) in item 0")
    captions = page.texts("figcaption")
    assert captions[:5] == ["image", "contribution: 0.50", "masked: 0.50", "rollout: 0.50", "mine: 0.50"]
    assert captions[5:] == ["image", "contribution: 0.50", "masked", "rollout", "mine: 0.00"]
    assert "item 1" in second
    shown = [found for found, _ in page.find("img")]
    assert [found["alt"] for found in shown[:2]] == ["the image item 0", "map of contribution for cat"]
    with Image.open(io.BytesIO(base64.b64decode(shown[1]["src"].split(",")[1]))) as image:
        assert image.tobytes() == pictures[0].overlays["contribution"].tobytes()
    assert not [text for text in page_of(evaluation, [], tmp_path).texts("h2") if "images" in text]


def test_names_are_never_markup(tmp_path):
    """Of models, data, labels, images and methods, which strangers may have chosen."""
    evaluation = made(2, model_id=NASTY, label=NASTY, image=NASTY.replace("{", "{{").replace("}", "}}") + " {}")
    evaluation.settings["datasets"] = [{"id": NASTY}, {"id": "b"}]
    evaluation.methods[0]["name"] = NASTY
    page = page_of(evaluation, pictures_of(evaluation, 2), tmp_path)
    assert not page.find("script")
    shown = NASTY.replace("\x1b", "\\x1b").replace("\u202e", "\\u202e")
    (title,) = page.texts("h1")
    assert title == f"Which map to believe: {shown} on {shown} and b"
    assert page.texts("strong")[-1] == shown
    assert any(found["alt"] == f"map of {shown} for {shown}" for found, _ in page.find("img"))
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert not re.search("[\x00-\x09\x0b-\x1f\u202e]", text)


def test_names_of_files_need_not_be_utf_8(tmp_path):
    evaluation = made(1, image="caf\udce9 {}")
    assert "caf\\udce9 0" in page_of(evaluation, pictures_of(evaluation, 1), tmp_path).texts("article")[0]


def test_the_page_needs_nothing_else(tmp_path):
    evaluation = made()
    page = page_of(evaluation, pictures_of(evaluation, 3), tmp_path)
    tags = {tag for tag, _, _ in page.elements}
    assert not tags & {"script", "link", "iframe", "object", "form"}
    for tag, attributes, _ in page.elements:
        assert not [name for name in attributes if name.startswith("on") or name == "srcset"]
        assert attributes.get("href", "#").startswith("#")
        if tag == "img":
            assert attributes["src"].startswith("data:image/png;base64,")
            assert attributes["alt"]
    (style,) = page.texts("style")
    assert "url(" not in style
    assert "@import" not in style
    assert "http" not in (tmp_path / "index.html").read_text(encoding="utf-8").replace("http-equiv", "")


@pytest.mark.slow
def test_many_methods_and_metrics(tmp_path):
    """All methods there are under three baselines, and some pictures: the page is no monster."""
    columns = [
        Metric(f"{name}_{baseline}", name, baseline, True)
        for name in ("insertion", "saco", "average_drop", "iou", "sparseness")
        for baseline in ("blur", "zero", "other")
    ]
    methods = [{**made().methods[0], "name": f"method-{number}"} for number in range(17)]
    rows = [Row(f"item {number}", 0, "cat", 0.5, True, number) for number in range(30)]
    generator = np.random.default_rng(1)
    curves = {metric.key: generator.uniform(size=(17, 17)) for metric in columns[:1]}
    evaluation = made(
        metrics=columns,
        methods=methods,
        rows=rows,
        values=generator.uniform(size=(30, 17, 15)),
        curves=curves | {"shares": np.arange(17) / 16},
    )
    page = page_of(evaluation, pictures_of(evaluation, 3), tmp_path)
    assert len(page.find("td")) == 17 * (15 + 2)
    assert len(page.find("article")) == 3
    assert (tmp_path / "index.html").stat().st_size < 2e6
