"""The page of a report: the numbers of the report, and text of others as text."""

import re

import pytest
import torch

from gmar_hf.report.figures import FIGURES
from gmar_hf.report.statistics import KEYS
from tests.helpers.browser import CHROMIUM, browsing
from tests.helpers.evaluations import NASTY
from tests.helpers.pages import Page, assert_self_contained
from tests.helpers.reports import dataset, make_report, moments_of, report_on

SPELLED = NASTY.replace("\x1b", "\\x1b").replace("\u202e", "\\u202e")


def page_of(report, tmp_path):
    report.write_page(tmp_path / "index.html")
    page = Page((tmp_path / "index.html").read_text(encoding="utf-8"))
    assert_self_contained(page)
    assert not page.find("script")
    return page


def test_the_page_opens_with_what_matters_most(tmp_path):
    """Sizes 5, 1, 1, 1 and 4, 0, 0, 0: two heads make half of 12, and the first layer two thirds."""
    values = torch.zeros(1, len(KEYS), 2, 4)
    values[0, KEYS.index("contribution_abs")] = torch.tensor([[4.0, 1.0, 2.0, 1.0], [3.0, 0.5, 0.25, 0.25]])
    values[0, :4] = 0.25
    page = page_of(report_on(moments_of(values, [0])), tmp_path)
    assert page.texts("strong") == ["2 of 8 heads make half of all contributions to the logits."]
    assert page.texts("li") == [
        "The strongest is head 0 of layer 0: 4 logits an image, either way.",
        "Of layers 0 to 1, layer 0 has the most: 67% of all.",
        "The model's prediction is right for 1 of 1 images.",
        "This is of 1 image only: the ranking is a first look, and its standard errors are themselves uncertain. Take "
        "30 images at least.",
    ]
    rows = page.texts("td")[: 8 * 4]
    assert page.texts("th", scope="row")[:3] == ["0", "1", "0"]
    assert [rows[place] for place in (0, 4, 8)] == ["0", "0", "2"]  # heads of the three strongest
    assert [rows[place] for place in (1, 5, 9)] == ["4.00", "3.00", "2.00"]


def test_figures_tables_and_facts(tmp_path):
    page = page_of(make_report(num_classes=9), tmp_path)
    assert [found["alt"] for found, _ in page.find("img")] == [
        f"{title} of every head, layers downwards" for title, _ in FIGURES.values()
    ]
    assert page.texts("h1") == ["Which attention heads of somebody/tiny-vit matter"]
    assert page.texts("h2") == [
        "The heads that contribute most", "All heads", "Classes", "Right and wrong predictions", "Limits",
    ]  # fmt: skip
    (text,) = page.texts("body")
    assert re.search(r"\b8 classes were explained\. Shown are the 5 with the most explanations,", text)
    assert "60 images of somebody/pictures; explained is the logit of the predicted class." in text
    first = page_of(make_report(num_classes=9), tmp_path)
    assert first.elements == page.elements  # same report, same page


def test_text_of_strangers_stays_text(tmp_path):
    labels = [f"{NASTY} {number}" for number in range(5)]
    model = {"id": f"/home/me/{NASTY}", "is_local": True, "labels": labels}
    page = page_of(make_report(model=model, datasets=dataset(id=f"/secret/{NASTY}", is_local=True)), tmp_path)
    assert "home" not in "".join(page.texts("html"))
    assert "secret" not in "".join(page.texts("html"))
    assert any(re.fullmatch(re.escape(SPELLED) + r" \d \(\d\)", text) for text in page.texts("th", scope="row"))


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
def test_the_page_fits_narrow_windows(tmp_path):
    page_of(make_report(num_classes=9, layers=12, heads=12), tmp_path)
    with browsing(tmp_path / "browser") as tab:
        for width in (1280, 390):
            tab.open(tmp_path / "index.html", width)
            assert tab.run("document.documentElement.scrollWidth") <= width
            assert tab.complaints() == []
