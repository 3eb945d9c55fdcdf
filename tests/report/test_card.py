"""The card says what is so, runs as it stands, and shows strangers' text as text."""

import html
import io
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from PIL import Image

from gmar_hf.report.card import is_unedited, write_card
from gmar_hf.report.figures import FIGURES, png
from gmar_hf.report.head_importance_report import HeadImportanceReport
from gmar_hf.report.statistics import KEYS, strongest_heads
from gmar_hf.utils.text import printable
from tests.helpers.reports import dataset, explanations, make_means, make_report, moments_of, report_on
from tests.helpers.sampling import pick
from tests.models.test_labels import TEXTS, tree
from tests.utils.test_correlation import slow_correlation


def card_of(report):
    return write_card(report.settings, report.moments, report.means)


def metadata(card):
    return yaml.safe_load(card.split("---\n")[1])


def rows(card, heading):
    """The cells of a section's tables, without their headers."""
    section = card.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    tables = re.findall(r"(?:^\|.*\n?)+", section, re.MULTILINE)
    return [
        [[cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines()[2:]] for table in tables
    ]


@pytest.fixture(scope="module")
def card():
    return card_of(make_report())


class TestMetadata:
    def test_of_hosted_model_and_data(self):
        datasets = dataset() + dataset(id="imagenet-1k") + dataset(split="train")
        card = card_of(make_report(license="cc-by-4.0", datasets=datasets))
        tags = metadata(card)["tags"]
        assert metadata(card) == {
            "base_model": "somebody/tiny-vit",
            "datasets": ["somebody/pictures", "imagenet-1k"],
            "library_name": "gmar_hf",
            "license": "cc-by-4.0",
            "tags": tags,
        }
        assert {"gmar", "explainability", "attention", "head-importance"} <= set(tags)
        assert ModelCard(card).data.base_model == "somebody/tiny-vit"

    @pytest.mark.parametrize("local", [True, False])
    @pytest.mark.parametrize(
        "name", ["/home/me/model", "C:\\me\\model", "../model", "a/b/c", "a b", "x](http://e.org)", "a\nb: c"]
    )
    def test_what_is_not_on_the_hub_is_neither_named_there_nor_linked(self, name, local):
        entry = {"id": name, "is_local": local}
        card = card_of(make_report(model=entry, datasets=dataset(**entry)))
        assert set(metadata(card)) == {"library_name", "tags"}
        assert re.findall(r"\]\((.*?)\)", card) == [
            "https://arxiv.org/abs/2504.19414",
            *(f"{key}.png" for key in FIGURES),
        ]
        assert not re.search(r"/(home|root|tmp|work)\b", card)
        assert card.count("(not on the Hub)") == 3
        assert 'model="path/to/the/model"' in card

    def test_a_local_folder_that_looks_like_a_repository(self):
        card = card_of(make_report(model={"id": "me/model", "is_local": True}))
        assert "base_model" not in metadata(card)
        assert "huggingface.co/me/model" not in card
        assert "- **Model:** model (not on the Hub)" in card

    @pytest.mark.parametrize("license", ["a: b", "- x\n---\n# T", "'", "\udcff", "null", "日本"])
    def test_licences_of_any_kind(self, license):
        card = card_of(make_report(license=license))
        assert metadata(card)["license"] == printable(license)
        card.encode()


class TestFacts:
    def test_what_was_measured(self):
        report = make_report(
            layers=12,
            heads=6,
            num_explanations=1500,
            model={"revision": "v1.0"},
            stability={"tolerance": 0.02, "reached": True, "num_images": 1500},
        )
        counts, card = report.settings["counts"], card_of(report)
        for fact in (
            "[somebody/tiny-vit](https://huggingface.co/somebody/tiny-vit), a `ViTForImageClassification` of 12 "
            "layers of 6 heads, 5 classes, revision v1.0, commit 0123456789ab.",
            "[somebody/pictures](https://huggingface.co/datasets/somebody/pictures), split validation, 1,500 images.",
            f"1,500 explained: the prediction is right for {counts['num_correct']:,} and wrong for "
            f"{counts['num_wrong']:,}; {counts['num_unlabelled']:,} have no label.",
            "the logit of the class that the model predicts; 1,500 explanations in all.",
            "after 1,500 images the largest standard error of `contribution_abs` was below 0.02 of its largest mean.",
            "Versions: gmar_hf 0.1.0, torch 2.13.0, transformers 5.23.0",
            "Settings: dtype float32; attention sdpa; batch size 32; max unreadable 0.01",
            "Date: 2026-11-22T10:00:00",
        ):
            assert fact in card
        assert "Unreadable" not in card

    def test_labels_as_targets(self):
        counts = {"num_images": 40, "num_correct": 30, "num_wrong": 10, "num_unlabelled": 1234}
        stability = {"tolerance": 0.5, "reached": False, "num_images": 40}
        card = card_of(make_report(target="label", counts=counts, stability=stability))
        assert "40 explained: the prediction is right for 30 and wrong for 10; 1,234 more have no label." in card
        assert "the logits of the image's labels, one explanation for each; 60 explanations in all." in card
        assert "was still above 0.5 of its largest mean" in card

    def test_a_survey_that_was_limited(self):
        def surveyed(limit, **changed):
            return make_report(datasets=dataset(**{"num_images": 400, **changed}), survey={"limit": limit})

        limited = surveyed(60)
        assert "60 explained (the survey was limited to 60 images): the prediction is right for" in card_of(limited)
        assert "limited" not in card_of(surveyed(400))
        assert "limited" not in card_of(surveyed(None))
        assert "(the survey was limited to 1 image)" in card_of(surveyed(1, num_images=None))
        merged = limited.merge(surveyed(60, fingerprint="others"))
        assert "120 explained (each survey was limited to 60 images)" in card_of(merged)

    def test_images_without_labels(self):
        none = {"num_correct": 0, "num_wrong": 0, "num_unlabelled": 60}
        assert "- **Images:** 60 explained; they have no labels.\n" in card_of(make_report(counts=none))
        card = card_of(report_on(moments_of(torch.rand(1, 6, 2, 2), [2])))
        assert "- **Images:** 1 explained; it has no label.\n" in card
        assert "; 1 explanation in all.\n" in card
        assert ", split validation, 1 image.\n" in card
        single = {"num_correct": 39, "num_wrong": 20, "num_unlabelled": 1}
        assert "is right for 39 and wrong for 20; 1 has no label.\n" in card_of(make_report(counts=single))

    def test_versions_and_dates_are_not_escaped(self):
        versions = {"torch": "2.13.0+cpu", "odd": "2.0+<b>", "other": "+1"}
        card = card_of(make_report(versions=versions, date="2026-11-23T02:39:23+00:00"))
        assert "- Date: 2026-11-23T02:39:23+00:00\n" in card
        for shown in ("torch 2.13.0+cpu, ", "odd 2.0&#43;&#60;b&#62;, ", "other &#43;1\n"):
            assert shown in card

    def test_unreadable_images(self):
        entries = [{"image": f"{index}.jpg", "reason": "`image` must be whole; got half."} for index in range(1000)]
        card = card_of(make_report(counts={"num_unreadable": 2345}, unreadable=entries))
        assert "2,345 images could not be read. The first 1,000 are named in `config.json`." in card
        assert rows(card, "Unreadable images") == [
            [[f"{index}.jpg", "image must be whole; got half."] for index in range(5)]
        ]
        card = card_of(make_report(counts={"num_unreadable": 1}, unreadable=entries[:1]))
        assert "1 image could not be read.\n" in card
        assert "could not be read.\n\n##" in card_of(make_report(counts={"num_unreadable": 1}))


def numbers(cell):
    return [float(number) for number in cell.split(" ± ")]


class TestTables:
    def test_top_heads(self):
        report = make_report(num_explanations=400)
        [table] = rows(card_of(report), "The heads that contribute most")
        assert len(table) == 10
        for (layer, head, *cells), expected in zip(table, report.top_heads(10), strict=True):
            assert (int(layer), int(head)) == expected[:2]
            for cell, key in zip(cells, ("contribution_abs", "contribution", "l1_weight"), strict=True):
                mean, error = numbers(cell)
                place = (int(layer), int(head))
                assert mean == pytest.approx(
                    float(report.mean[key][place]), abs=float(report.standard_error[key][place]) / 10
                )
                assert error == pytest.approx(float(report.standard_error[key][place]), rel=0.05)
                assert cell.startswith(("+", "-")) == (key == "contribution")

    def test_the_centred_score_has_a_column_where_it_is_known(self, card):
        report = make_report()
        centred = HeadImportanceReport(report.moments, report.weight_sample, report.settings, make_means())
        [table] = rows(card_of(centred), "The heads that contribute most")
        for layer, head, _, _, cell, _ in table:
            value = centred.mean["contribution_centred"][int(layer), int(head)]
            assert float(cell) == pytest.approx(float(value), abs=0.01)
            assert cell[0] in "+-"
        assert "what setting it to its mean does" in card_of(centred)
        assert "centred" not in card
        assert "cancel.\n- `contribution_centred`: the same" in card_of(centred)
        assert "beyond its average output.\n- `l1`, `l2`: norms" in card_of(centred)

    def test_fewer_heads_and_one_explanation(self):
        report = make_report(num_classes=1, layers=1, heads=2, num_explanations=1)
        card = card_of(report)
        [table] = rows(card, "The heads that contribute most")
        assert len(table) == 2
        assert "±" not in "".join(table[0] + table[1])  # nothing is known of an error
        assert "nan" not in card
        assert "inf" not in card
        assert "## Classes" not in card

    @pytest.mark.parametrize("scale", [1e-9, 1e-3, 1, 1e6])
    def test_numbers_of_any_size(self, scale):
        values, groups = explanations()
        report = report_on(moments_of(values.double() * scale, groups, num_classes=5))
        [table] = rows(card_of(report), "The heads that contribute most")
        mean, error = numbers(table[0][2])
        assert mean == pytest.approx(report.top_heads(1)[0][2], rel=0.01)
        assert 0 < error < mean
        assert all(len(cell) < 30 for row in table for cell in row)

    def test_classes(self):
        report = make_report(num_classes=12, num_explanations=300)
        values, groups = explanations(num_classes=12, num_explanations=300)
        sizes, unlike = rows(card_of(report), "Classes")
        classes = (groups // 3).tolist()
        often = sorted(set(classes), key=lambda index: (-classes.count(index), index))[:5]
        assert [row[:2] for row in sizes] == [
            [f"label {index} ({index})", str(classes.count(index))] for index in often
        ]
        assert "11 of 12 classes have explanations. Shown are the 5 with the most of them:" in card_of(report)

        def mean(chosen):
            return values[chosen][:, KEYS.index("contribution_abs")].double().numpy().mean(0)

        top = np.dstack(np.unravel_index(np.argsort(-mean(groups // 3 == often[0]), axis=None), (3, 4)))[0][:3]
        assert re.findall(r"\d+\.\d+(?= \()", sizes[0][2]) == [f"{layer}.{head}" for layer, head in top]

        correlation = {
            index: slow_correlation(mean(groups // 3 == index), mean(groups >= 0))
            for index in set(classes)
            if classes.count(index) >= 10
        }
        least = sorted(correlation, key=lambda index: (correlation[index], index))[:5]
        assert 10 not in correlation  # of one explanation, which alone would be the least alike
        assert [row[0] for row in unlike] == [f"label {index} ({index})" for index in least]
        assert [row[3] for row in unlike] == [f"{correlation[index]:.2f}" for index in least]

    def test_few_classes_are_in_one_table(self):
        for num_classes, num_tables in ((6, 1), (7, 1), (8, 2)):  # the last is never explained
            tables = rows(card_of(make_report(num_classes=num_classes, num_explanations=300)), "Classes")
            assert len(tables) == num_tables
            names = [row[0] for row in tables[0]]
            assert len(set(names)) == len(names) == min(num_classes - 1, 6) - (num_tables - 1)
        report = make_report(num_classes=6, num_explanations=300)
        [table] = rows(card_of(report), "Classes")
        for name, number, heads, alike in table:
            index = int(name.split("(")[1].rstrip(")"))
            statistics = report.per_class(index)
            assert int(number) == statistics.num_explanations
            assert heads.startswith("{}.{} (".format(*strongest_heads(statistics.mean, 1, "contribution_abs")[0]))
            expected = slow_correlation(statistics.mean["contribution_abs"], report.mean["contribution_abs"])
            assert alike == ("" if statistics.num_explanations < 10 else f"{expected:.2f}")
        assert [int(row[1]) for row in table] == sorted((int(row[1]) for row in table), reverse=True)
        assert "" in [row[3] for row in table]
        [table] = rows(card_of(make_report(num_classes=4, num_explanations=8)), "Classes")
        assert all(len(row) == 3 for row in table)  # too few for any ranking

    @pytest.mark.parametrize(("num_explanations", "seed"), [(1, 0), (1, 1), (3, 0), (60, 0), (400, 0), (400, 1)])
    def test_decimals_are_the_same_in_a_column(self, num_explanations, seed):
        card = card_of(make_report(num_explanations=num_explanations, seed=seed))
        names = ["The heads that contribute most", "Classes", "Right and wrong predictions"]
        columns = [
            [row[place] for row in table]
            for name in names
            if f"## {name}" in card
            for table in rows(card, name)
            for place in range(2, len(table[0]))
        ]
        assert columns
        for column in columns:
            shown = [re.findall(r"\((\S+)\)" if "(" in cell else r"\d+\.\d+", cell) for cell in column]
            assert len({len(number.partition(".")[2]) for numbers in shown for number in numbers}) <= 1, column

    def test_right_and_wrong(self):
        report = make_report(num_explanations=200)
        [table] = rows(card_of(report), "Right and wrong predictions")
        right, wrong = report.correct, report.wrong
        error = np.hypot(*(statistics.standard_error["contribution"].numpy() for statistics in (right, wrong)))
        distance = np.abs((right.mean["contribution"] - wrong.mean["contribution"]).numpy()) / error
        top = np.dstack(np.unravel_index(np.argsort(-distance, axis=None), (3, 4)))[0][:5]
        assert [(int(row[0]), int(row[1])) for row in table] == [tuple(place) for place in top.tolist()]
        for layer, head, *cells in table:
            for cell, statistics in zip(cells, (right, wrong), strict=True):
                mean = float(statistics.mean["contribution"][int(layer), int(head)])
                assert numbers(cell)[0] == pytest.approx(mean, abs=5e-3)
        assert f"{right.num_explanations} explanations are of images that the model gets right" in card_of(report)

    def test_outcomes_that_are_not_there(self):
        for outcome, words in (
            (0, "All predictions with a label were correct."),
            (1, "All predictions with a label were wrong."),
            (2, "The images came without labels, so nothing is known"),
        ):
            assert words in card_of(report_on(moments_of(torch.rand(5, 6, 2, 2), [outcome] * 5)))

    @pytest.mark.parametrize(
        ("each", "said"),
        [
            ((12, 9), "1 of the classes below has fewer than 10"),
            ((4, 9), "2 of the classes below have fewer than 10"),
            ((10, 10), ""),
        ],
    )
    def test_classes_of_few_explanations(self, each, said):
        groups = [3 * index for index, number in enumerate(each) for _ in range(number)]
        card = card_of(report_on(moments_of(torch.rand(len(groups), 6, 2, 2), groups, num_classes=2)))
        assert said in card
        assert ("fewer than 10 explanations: other images" in card) == bool(said)

    def test_all_heads_alike(self):
        card = card_of(report_on(moments_of(torch.full((60, 6, 2, 2), 0.5), torch.arange(60) % 6, num_classes=2)))
        assert "nan" not in card
        assert "correlate" not in card


@pytest.mark.parametrize("text", pick([*TEXTS, "{{ 7 * 7 }} {% raw %}"], 8))
def test_text_of_others_is_shown_as_text(text):
    """Wherever a stranger's text stands, the rest of the card stays as it is with an innocent text."""

    def card_with(word):
        texts = dict.fromkeys(("id", "revision", "commit", "dtype", "attention"), word)
        return card_of(
            make_report(
                model={**texts, "is_local": True, "class": f"{word}!", "labels": [word] * 5},
                datasets=dataset(id=word, is_local=True, split=word, revision=word),
                counts={"num_unreadable": 1},
                unreadable=[{"image": word, "reason": word}],
                versions={word: word},
                date=word,
            )
        )

    def body(card):
        return card.split("---\n", 2)[2].rpartition("<!--")[0]

    kinds, seen = tree(body(card_with(text)))
    plain_kinds, _ = tree(body(card_with("LABEL")))
    structure = [kind for kind in kinds if kind not in ("text", "text_special")]
    assert structure == [kind for kind in plain_kinds if kind != "text"] or not text.strip()
    assert "html_inline" not in kinds
    assert "html_block" not in kinds
    start = "".join(printable(text).split())[:20].rpartition("/")[2].rpartition("\\")[2]
    assert start in "".join(seen.split())
    raw = body(card_with(text))
    assert not re.search(r"<|https?://(?!arxiv)|@\w", raw)
    rendered = html.unescape(MarkdownIt("commonmark").enable("table").render(raw))
    for address in re.findall(r"https?://\S+|www\.\S+", re.sub(r'href="[^"]*"', "", rendered)):
        pytest.fail(f"a renderer would make a link of {address}")


class TestMarker:
    def test_written_and_edited(self, card):
        for same in (card, card.replace("\n", "\r\n"), card.rstrip("\n"), card + "\n \n"):
            assert is_unedited(same)
        for edited in (
            "", "# Mine", card[1:], card + "more", "more\n" + card, card + card, card.rpartition("<!--")[0],
            card.replace("Limits", "limits"), card.replace("0", "1"), card.replace("sha256 of", "sha256: of"),
            re.sub("[0-9a-f]{64}", "0" * 64, card),
        ):  # fmt: skip
            assert not is_unedited(edited)

    def test_a_label_cannot_forge_it(self, card):
        labels = [card.splitlines()[-1]] * 5
        assert card_of(make_report(model={"labels": labels})).count("<!--") == 1

    def test_the_same_report_gives_the_same_card(self, card):
        assert card_of(make_report()) == card
        assert card_of(make_report(seed=1)) != card


class TestFigures:
    def test_the_card_shows_those_that_are_saved(self, tmp_path):
        report = make_report()
        report.save_pretrained(tmp_path)
        shown = re.findall(r"!\[[^\]]+\]\((.*?)\)", (tmp_path / "README.md").read_text())
        assert sorted(shown) == sorted(path.name for path in tmp_path.glob("*.png"))

    @pytest.mark.parametrize("score", FIGURES)
    def test_the_same_bytes_every_time(self, score):
        picture = png(make_report().overall, score)
        assert png(make_report().overall, score) == picture
        image = Image.open(io.BytesIO(picture))
        assert min(image.size) > 100
        assert image.info["Software"] == "gmar_hf"  # no version of matplotlib: the same report gives the same bytes

    @pytest.mark.campaign
    @pytest.mark.slow
    def test_the_same_bytes_in_another_process(self):
        code = (
            "import sys; from tests.helpers.reports import make_report; from gmar_hf.report.figures import png\n"
            "sys.stdout.buffer.write(png(make_report().overall, 'contribution'))"
        )
        path = str(Path(__file__).parents[2])
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, env={"PYTHONPATH": path})
        assert done.stdout == png(make_report().overall, "contribution")


def test_the_cards_python_runs(tmp_path, monkeypatch):
    report = make_report()
    report.save_pretrained(tmp_path / "user" / "this-repository")
    monkeypatch.chdir(tmp_path)
    loading, explaining = re.findall(r"```python\n(.*?)```", card_of(report), re.DOTALL)
    pytest.importorskip("pandas")
    exec(compile(loading, "card", "exec"), {})
    compile(explaining, "card", "exec")
    assert 'head_weights="user/this-repository"' in explaining
