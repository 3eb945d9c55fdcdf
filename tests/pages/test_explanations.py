"""The page of explained images: what it holds, that nothing gets out of its quotes, and how much it weighs."""

import base64
import io
import json
import re
import struct
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import gmar_hf
from gmar_hf.errors import ArgumentError
from gmar_hf.pages.small_data import packed_heads
from gmar_hf.plotting import map_layer, overlay, painting
from tests.helpers.browser import CHROMIUM, browsing
from tests.helpers.explainers import make_explainer, photo
from tests.helpers.pages import Page, assert_self_contained

NASTY = [
    "<script>alert(1)</script>", "</script><script>alert(2)</script>", "\"'><img src=x onerror=alert(3)>", "a & b",
    "{{ 7 * 7 }}", "<!-- images -->", "שלום عربى", "\u202egnp.exe", "日本 🦜", "two\nlines",
    "\udcff", "' data-x='", "",
]  # fmt: skip


ATOL = 1 / 254 + 0.0005  # half a level of an int8, and four digits of the scale


def result(label="cat", method="recommended", *, seed=0, grid=(4, 5), heads=(2, 3), box=(0, 0, 60, 40), **more):
    """What the pipeline returns of a target; numbers mean nothing."""
    generator = torch.Generator().manual_seed(seed)
    maps = {} if heads is None else {"head_maps": torch.randn(*heads, *grid, generator=generator)}
    return {
        "label": label, "score": 0.75, "method": method, "box": box,
        "attribution": torch.randn(*grid, generator=generator),
        "head_contribution": None if heads is None else torch.randn(*heads, generator=generator),
        **maps, **more,
    }  # fmt: skip


def page_of(tmp_path, *explained, **settings):
    gmar_hf.pages.write_page(explained, tmp_path / "page.html", **settings)
    page = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert_self_contained(page)
    return page


def data_of(page):
    return [json.loads(text) for _, found, texts in page.elements if found.get("type") == "application/json"
            for text in ["".join(texts)]]  # fmt: skip


def numbers(packed, size, place=0):
    """Numbers of one map, decoded by hand."""
    content = base64.b64decode(packed["values"])[place * size : (place + 1) * size]
    scale = packed["scales"][place] if "scales" in packed else packed["scale"]
    return np.array(struct.unpack(f"{size}b", content)) / 127 * scale


def test_what_a_crop_hid_and_notes_are_told(tmp_path):
    page = page_of(
        tmp_path, ("all", photo(), [result()]), ("half", photo(), [result(box=(15, 0, 45, 40))]), notes=["<b>note"]
    )
    told = page.texts("p")
    assert "The model saw only the middle of this picture, 50% of it; the rest, which is grey, was cropped." in told
    assert len([text for text in told if "only the middle" in text]) == 1
    assert "<b>note" in page.texts("small")


def test_maps_come_back_from_the_page(tmp_path):
    explained = result(box=(6, -4, 54, 44)), result("dog", "gmar", seed=1)
    (data,) = data_of(page_of(tmp_path, ("one", photo(), explained)))
    assert data["labels"] == ["cat", "dog"]
    assert data["box"] == pytest.approx([0.1, -0.1, 0.9, 1.1])
    for shown, expected, label, method in zip(data["maps"], explained, (0, 1), ("recommended", "gmar"), strict=True):
        assert (shown["label"], shown["method"], shown["rows"], shown["cols"]) == (label, method, 4, 5)
        values = expected["attribution"].numpy().flatten()
        np.testing.assert_allclose(numbers(shown, 20), values, atol=abs(values).max() * ATOL)
        heads = data["heads"][shown["heads"]]
        assert (heads["layers"], heads["heads"], heads["coarseness"]) == (2, 3, 1)
        assert heads["contributions"] == pytest.approx(expected["head_contribution"].flatten().tolist(), rel=1e-3)
        for place, values in enumerate(expected["head_maps"].reshape(6, 20).numpy()):
            np.testing.assert_allclose(numbers(heads, 20, place), values, atol=abs(values).max() * ATOL)


def test_heads_that_a_layer_lacks(tmp_path):
    """They are null, for which the page has no button, and what is finite is as ever."""
    explained = result(), result(method="gmar")
    for each in explained:
        each["head_maps"][0, 1:], each["head_contribution"][0, 1:] = torch.nan, torch.nan
    (data,) = data_of(page_of(tmp_path, ("one", photo(), explained)))
    assert len(data["heads"]) == 1
    (heads,) = data["heads"]
    assert [number is None for number in heads["contributions"]] == [False, True, True, False, False, False]
    assert [scale == 0 for scale in heads["scales"]] == [False, True, True, False, False, False]
    assert [map["heads"] for map in data["maps"]] == [0, 0]


def test_methods_of_one_pass_share_their_head_maps(tmp_path):
    explained = [result(), result(method="gmar"), result(method="rollout", seed=1), result(method="old", heads=None)]
    (data,) = data_of(page_of(tmp_path, ("one", photo(), explained)))
    assert [shown["heads"] for shown in data["maps"]] == [0, 0, 1, None]
    assert len(data["heads"]) == 2


def test_a_label_against_another_one_and_a_note_are_said(tmp_path):
    explained = [result(versus="dog", versus_score=0.2, note="Two patches hold most of it.")]
    page = page_of(tmp_path, ("one", photo(), explained), title="Mine", methods={"gmar": "a < b"})
    (data,) = data_of(page)
    assert (data["labels"], data["sides"]) == (["cat, not dog"], [["for cat", "for dog"]])
    assert data["maps"][0]["note"] == "Two patches hold most of it."
    assert page.texts("h1") == ["Mine"] == page.texts("title")
    assert (page.texts("dt"), page.texts("dd")) == (["gmar"], ["a < b"])
    assert page.texts("button") == ["cat, not dog 0.750 against 0.200", "Back to the whole map"]
    assert "Choose a label:" not in page.texts("p")


@pytest.mark.parametrize(("gap", "is_near"), [(1.0, True), (5.0, False)])
def test_what_attention_adds_is_said(tmp_path, gap, is_near):
    more = {"explained_logit": 3.0, "attention_contribution": 4.0, "completeness_gap": gap}
    (data,) = data_of(page_of(tmp_path, ("one", photo(), [result(**more)])))
    (shown,) = data["maps"]
    assert shown["account"] == "Logit 3.0 = attention 4.0 + rest -1.0."
    assert (shown["amounts"], shown["on_path"], data["sides"]) == (is_near, True, [["for cat", "against it"]])


def test_what_the_model_answers_is_said_where_another_label_is_explained(tmp_path):
    explain = make_explainer()
    (best,) = explain(photo())
    (other,) = explain(photo(), target=(best["target"] + 1) % 5)
    gmar_hf.pages.write_page([("one", photo(), [best]), ("two", photo(), [other])], tmp_path / "page.html")
    first, second = Page((tmp_path / "page.html").read_text(encoding="utf-8")).texts("h2")[:2]
    assert first == f"name: one → label: {best['label']} {best['score']:.3f}"
    assert second == (
        f"name: two → explained label: {other['label']} {other['score']:.3f} "
        f"(the model says {best['label']} {best['score']:.3f})"
    )


def test_text_of_strangers_stays_text(tmp_path):
    explained = [
        (text, photo(), [result(text, text, seed=place), result("dog", text, seed=place)])
        for place, text in enumerate(NASTY)
    ]
    page = page_of(tmp_path, *explained, title=NASTY[1], methods=dict.fromkeys(NASTY, NASTY[1]))
    safe = [text.replace("\u202e", "\\u202e").replace("\n", "\\n").replace("\udcff", "\\udcff") for text in NASTY]
    # The scripts are the data and the page's own, whatever was in the text.
    assert [found for found, _ in page.find("script")] == [{"type": "application/json"}] * len(NASTY) + [{}]
    assert [data["labels"] for data in data_of(page)] == [[text, "dog"] if text else ["", "dog"] for text in safe]
    spaced = [" ".join(text.split()) for text in safe]
    assert page.texts("h2")[: len(NASTY)] == [
        f"name: {t} → label: {t} 0.750" if t else "name: → label: 0.750" for t in spaced
    ]
    assert [text.removesuffix(" 0.750") for text in page.texts("button")[::3]] == [*spaced[:-1], "0.750"]
    assert [found["alt"] for found, _ in page.find("img")] == safe
    assert [json.loads(found["data-methods"]) for found, _ in page.find("article")] == [[text] for text in safe]
    assert {tuple(found) for found, _ in page.find("article")} == {("aria-label", "data-methods")}
    assert page.texts("title") == [NASTY[1]]


def noise(size):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


@pytest.mark.parametrize(
    ("layers_heads", "grid", "coarsest"), [((12, 12), (14, 14), 1), ((24, 16), (37, 37), 8)], ids=["base", "large"]
)
def test_an_image_takes_at_most_300_kb(tmp_path, layers_heads, grid, coarsest):
    explained = [
        result(label, method, seed=place, grid=grid, heads=layers_heads)
        for place, (label, method) in enumerate((label, method) for label in "abc" for method in ("gmar", "path"))
    ]
    explained = explained if coarsest > 1 else explained[:2]
    (data,) = data_of(page_of(tmp_path, ("noise", noise((1500, 1000)), explained)))
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    (article,) = re.findall("<article.*</article>\n?", text, re.DOTALL)
    assert len(article.encode()) <= 300_000
    assert {heads["coarseness"] for heads in data["heads"]} == {coarsest}
    assert len(text) - len(article) < 25_000


def test_coarse_head_maps_are_means_over_patches():
    maps = np.arange(12.0).reshape(1, 1, 3, 4)
    packed = packed_heads(maps, np.ones((1, 1)), 28 + 200 + 8)  # of three patches, the middle one counts twice
    assert (packed["rows"], packed["cols"], packed["coarseness"]) == (2, 2, 2)
    expected = [np.mean([0, 1, 4, 5]), np.mean([2, 3, 6, 7]), np.mean([4, 5, 8, 9]), np.mean([6, 7, 10, 11])]
    np.testing.assert_allclose(numbers(packed, 4), expected, atol=8.5 / 253)
    assert packed_heads(maps, np.ones((1, 1)), 100) is None


def test_the_photograph_is_small_upright_and_tells_nothing_else(tmp_path):
    image = photo(size=(1280, 640))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    exif[0x010E] = "at home"
    image.save(tmp_path / "image.jpg", exif=exif, comment=b"secret")
    page = page_of(tmp_path, ("one", str(tmp_path / "image.jpg"), [result()]))
    ((found, _),) = page.find("img")
    content = base64.b64decode(found["src"].removeprefix("data:image/jpeg;base64,"))
    with Image.open(io.BytesIO(content)) as shown:
        assert shown.size == (320, 640) == (int(found["width"]), int(found["height"]))
        assert not shown.getexif()
    assert b"secret" not in content
    assert b"at home" not in content


def test_images_are_taken_one_at_a_time(tmp_path):
    alive = []  # images cannot be hashed, as a WeakSet wants

    def explained():
        for number in range(6):
            image = photo(number)
            alive.append(weakref.ref(image))
            assert sum(one() is not None for one in alive) <= 2  # the loop still holds the one before
            yield str(number), image, [result()]
            del image

    gmar_hf.pages.write_page(explained(), tmp_path / "page.html")
    assert len(Page((tmp_path / "page.html").read_text(encoding="utf-8")).find("article")) == 6


def test_an_old_page_stays_where_the_new_one_fails(tmp_path):
    path = tmp_path / "page.html"
    path.write_text("old")

    def explained():
        yield "one", photo(), [result()]
        raise RuntimeError("gone")

    with pytest.raises(RuntimeError, match="gone"):
        gmar_hf.pages.write_page(explained(), path)
    assert [file.name for file in tmp_path.iterdir()] == ["page.html"]
    assert path.read_text() == "old"


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ([], "`explained` must have results for each image; got none for 'one'"),
        ([3], "`explained` must hold the pipeline's results, with label, score, method, attribution, box; got int"),
        ([{"label": "cat"}], "got a dict of 'label'"),
        ([result(attribution=torch.tensor([[torch.nan]]))], "`attribution` must be finite, of shape"),
        ([result(head_maps=torch.zeros(2, 3))], "`head_maps` must be finite, of shape"),
    ],
)
def test_what_is_no_result_is_refused(tmp_path, results, message):
    with pytest.raises(ArgumentError, match=re.escape(message)):
        gmar_hf.pages.write_page([("one", photo(), results)], tmp_path / "page.html")


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
def test_the_page_in_a_browser(tmp_path):
    """A click on a label and a head shows just their maps, by mouse and by keys, on wide and narrow windows."""
    white = Image.new("RGB", (40, 20), "white")
    left = dict(
        attribution=torch.tensor([[1.0, 0.0]]), box=(0, 0, 40, 20), head_contribution=torch.tensor([[1.0, -2.0]])
    )
    left["head_maps"] = torch.tensor([[[[0.0, -1.0]], [[-0.25, 0.0]]]])
    right = {**left, "attribution": torch.tensor([[0.5, -1.0]])}
    explained = [result("cat", "gmar", **left), result("<b>dog", "gmar", **right)]
    others = [(text, white, [result(text, "gmar", **left)]) for text in NASTY]
    gmar_hf.pages.write_page([("one", white, explained), *others], tmp_path / "page.html")
    # The commonest colour of a small square, since stripes run through what speaks against.
    pixel = (
        "(() => {{ const all = document.querySelector('canvas').getContext('2d').getImageData({}, 240, 24, 24).data;"
        "const seen = {{}}; for (let at = 0; at < all.length; at += 4) {{ const key = [...all.slice(at, at + 4)];"
        "seen[key] = (seen[key] ?? 0) + 1; }}"
        "return Object.keys(seen).sort((a, b) => seen[b] - seen[a])[0].split(',').map(Number); }})()"
    )
    with browsing(tmp_path / "browser") as tab:
        for width in (1280, 390):
            tab.open(tmp_path / "page.html", width)
            assert tab.run("document.documentElement.scrollWidth") <= width
            # No photo is stretched: on the page it has the proportions of the file.
            stretch = "(i => Math.abs(i.clientWidth / i.clientHeight - i.naturalWidth / i.naturalHeight))"
            assert tab.run(f"{stretch}(document.querySelector('.photo img'))") < 0.02
            assert tab.run("document.querySelectorAll('script:not([type])').length") == 1
            tab.run("document.querySelector('#opacity').value = 100")
            tab.run("document.querySelector('#patches').click()")
            assert tab.run(pixel.format(240)) == [150, 0, 130, 255]  # a map without a sign, where it is largest
            assert tab.run(pixel.format(720)) == [0, 0, 0, 0]  # and where it is 0, nothing
            tab.run("document.querySelectorAll('.labels button')[1].click()")
            red, _, blue, opacity = tab.run(pixel.format(240))
            assert red > blue
            assert opacity == pytest.approx(255 * 64 / 127, abs=1)
            assert tab.run(pixel.format(720)) == [16, 66, 160, 255]
            assert tab.run("document.querySelector('.legend').textContent").startswith("for <b>dogagainst it")
            # The first head by a click, the second by a key, and back.
            tab.run("document.querySelector('.heads button').focus()")
            tab.run("document.querySelector('.heads button').click()")
            assert tab.run("document.querySelector('.said').textContent") == (
                "Layer 0, head 0 alone: it adds 1.0 logits."
            )
            assert tab.run("document.querySelector('.strongest').textContent") == (
                "The strongest: layer 0, head 1: \u22122.0; layer 0, head 0: +1.0."
            )
            assert (tab.run(pixel.format(240)), tab.run(pixel.format(720))) == ([0, 0, 0, 0], [16, 66, 160, 255])
            tab.press("ArrowRight")
            assert tab.run("document.activeElement.getAttribute('aria-label')") == "layer 0, head 1: \u22122.0 logits"
            assert tab.run(pixel.format(720)) == [0, 0, 0, 0]
            assert tab.run(pixel.format(240))[3] == pytest.approx(64, abs=1)  # on the scale of the strongest's map
            tab.press("Escape")
            assert tab.run(pixel.format(720)) == [16, 66, 160, 255]
            # Whoever uses no keys has a button, there while a head is shown; another map lets go of the head.
            back = "document.querySelector('.back')"
            shows = f"{back}.offsetParent !== null"
            head = "document.querySelector('.heads button')"
            let_go = ".dispatchEvent(new Event('input'))"
            for leave in (f"{back}.click()", f"{head}.click()", f"document.querySelector('#method'){let_go}"):
                assert tab.run(shows) is False
                tab.run(f"{head}.click()")
                assert (tab.run(shows), tab.run(f"{head}.ariaPressed")) == (True, "true")
                tab.run(leave)
                assert (tab.run(shows), tab.run(f"{head}.ariaPressed")) == (False, "false")
                assert tab.run(pixel.format(720)) == [16, 66, 160, 255]
            # Where there is one label there is nothing to choose.
            choices = "[...document.querySelectorAll('.labels')].map(one => one.offsetParent !== null)"
            assert tab.run(choices) == [True] + [False] * len(NASTY)
            # A search leaves what it finds.
            tab.run("document.querySelector('#search').value = 'ALERT(2)'")
            tab.run("document.querySelector('#search').dispatchEvent(new Event('input'))")
            assert tab.run("document.querySelector('#found').textContent") == f"1 of {len(NASTY) + 1} images"
            assert tab.run("[...document.querySelectorAll('article')].map(one => one.hidden)").index(False) == 2
            assert tab.complaints() == []


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
def test_the_part_that_a_crop_hides_is_as_in_overlays(tmp_path):
    """Over whole rows and columns of pixels, through both edges of the box: the same as an overlay over black."""
    black, box = Image.new("RGB", (960, 300)), (300, 100, 600, 250)
    explained = result("cat", "gmar", attribution=torch.ones(2, 3), heads=None, box=box)
    gmar_hf.pages.write_page([("one", black, [explained])], tmp_path / "page.html")
    # The photo on the page has 640 x 200 pixels, the canvas twice as many.
    line = (
        "[...document.querySelector('canvas').getContext('2d').getImageData({}, {}, {}, {}).data]"
        ".map((value, place, all) => place % 4 == 3 ? value : value * all[place - place % 4 + 3] / 255)"
        ".filter((_, place) => place % 4 < 3)"
    )
    canvas_box = (400, 400 / 3, 800, 1000 / 3)
    whole = np.asarray(overlay(black.resize((1280, 400)), torch.ones(2, 3), box=canvas_box, alpha=1.0)).astype(int)
    layer = np.asarray(map_layer(torch.ones(2, 3), (1280, 400), box=canvas_box, alpha=1.0))
    is_line = (layer[..., 3] > 0) & (layer[..., :3] == 255).all(axis=-1)  # the page has none around what is strong
    whole[is_line] = (150, 0, 130)
    with browsing(tmp_path / "browser") as tab:
        tab.open(tmp_path / "page.html", 1280)
        tab.run("document.querySelector('#opacity').value = 100")
        for patches in (True, False):
            tab.run("document.querySelector('#patches').click()")
            for place in (20, 132, 200, 334, 350):
                drawn = np.reshape(tab.run(line.format(0, place, 1280, 1)), (1280, 3))
                np.testing.assert_allclose(drawn, whole[place], atol=2, err_msg=f"row {place} {patches}")
            for place in (20, 397, 399, 400, 799, 800, 802):
                drawn = np.reshape(tab.run(line.format(place, 0, 1, 400)), (400, 3))
                np.testing.assert_allclose(drawn, whole[:, place], atol=2, err_msg=f"column {place} {patches}")
        # It fades with the map, but for its lines.
        tab.run("document.querySelector('#opacity').value = 50")
        tab.run("document.querySelector('#patches').click()")
        assert tab.run(line.format(20, 20, 1, 1)) == pytest.approx([160 * 0.45 / 2] * 3, abs=2)
        assert tab.run(line.format(399, 200, 1, 1)) == [60, 60, 60]
        assert tab.complaints() == []


def test_the_colours_are_those_of_overlays():
    css = (Path(gmar_hf.pages.__file__).parent / "dress.css").read_text()
    for name, ramp in (("for", painting._FOR), ("against", painting._AGAINST), ("plain", painting._LOOKS)):
        assert f"--{name}: {' '.join(str(part) for colour in ramp for part in colour)};" in css


def test_which_maps_have_a_sign_is_told_to_the_page(tmp_path):
    """Contributions have one even where all are above 0, and what has no unit where something is below."""
    ones = torch.ones(2, 2)
    cases = [("logits", ones, True), ("share of attention", ones, False), ("", ones, False), ("", -ones, True)]
    results = [result(str(place), unit=unit, attribution=m, heads=None) for place, (unit, m, _) in enumerate(cases)]
    page = page_of(tmp_path, ("one", photo(), results))
    (data,) = data_of(page)
    assert [one["signed"] for one in data["maps"]] == [case[2] for case in cases]
