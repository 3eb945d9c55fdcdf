"""What heads are like, and where they add most: merged, in files, on the card."""

import json

import pytest
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save

from gmar_hf.errors import ArgumentError, ArtifactError
from gmar_hf.report.card import write_card
from gmar_hf.report.head_importance_report import HeadImportanceReport
from gmar_hf.report.moments import Moments
from gmar_hf.report.top_images import add_images, empty_top_images, merge_top_images
from gmar_hf.report.traits import TRAITS, HeadTraits
from tests.helpers.reports import assert_same, dataset, make_report
from tests.report.test_card import rows
from tests.report.test_report_files import write_config, write_tensors

VALUES = torch.rand(60, 4, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def traits_of(values, keys=tuple(TRAITS), undefined=None):
    moments = Moments.empty(1, tuple(values.shape[1:]))
    moments.add(values, torch.zeros(len(values), dtype=torch.int64))
    return HeadTraits(keys=keys, moments=moments, undefined=undefined)


def described(traits, **settings):
    report = make_report(**settings)
    return HeadImportanceReport(report.moments, report.weight_sample, report.settings, traits=traits)


def top_images(names="abcdef", k=2):
    contribution = torch.arange(len(names), dtype=torch.float64)[:, None, None] * torch.tensor([[1.0, -1, 2, -2]] * 3)
    return add_images(
        empty_top_images(k, 3, 4), list(names), [number % 5 for number in range(len(names))], contribution
    )


class TestTraits:
    def test_statistics(self):
        report = described(traits_of(VALUES))
        for place, key in enumerate(TRAITS):
            torch.testing.assert_close(report.traits.statistics.mean[key], VALUES[:, place].mean(dim=0))
            torch.testing.assert_close(report.traits.statistics.std[key], VALUES[:, place].std(dim=0, unbiased=False))
            assert list(report.to_pandas()[key]) == report.traits.statistics.mean[key].flatten().tolist()

    def test_merged(self):
        parts = [
            described(traits_of(VALUES[:60] + number), seed=number, datasets=dataset(fingerprint=str(number)))
            for number in range(2)
        ]
        merged = parts[0].merge(parts[1]).traits
        both = traits_of(torch.cat([VALUES, VALUES + 1]))
        torch.testing.assert_close(merged.statistics.mean["direct_effect"], both.statistics.mean["direct_effect"])
        torch.testing.assert_close(merged.statistics.std["direct_effect"], both.statistics.std["direct_effect"])
        fewer = described(
            traits_of(VALUES[:, :3], tuple(TRAITS)[:3], "no reason"), datasets=dataset(fingerprint="third")
        )
        assert parts[0].merge(fewer).traits.keys == tuple(TRAITS)[:3]
        assert parts[0].merge(make_report(seed=1, datasets=dataset(fingerprint="none"))).traits is None

    @pytest.mark.parametrize("traits", [traits_of(VALUES), traits_of(VALUES[:, :3], tuple(TRAITS)[:3], "<why>")])
    def test_files(self, tmp_path, traits):
        report = described(traits)
        report.save_pretrained(tmp_path)
        loaded = HeadImportanceReport.from_pretrained(tmp_path)
        assert_same(loaded, report)
        assert (loaded.traits.keys, loaded.traits.undefined) == (traits.keys, traits.undefined)
        assert torch.equal(loaded.traits.moments.squares, traits.moments.squares)
        loaded.save_pretrained(tmp_path)
        assert_same(HeadImportanceReport.from_pretrained(tmp_path), report)

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            (lambda config: config["traits"].update(keys=["attention_distance"]), "must have one group of shape"),
            (lambda config: config["traits"].update(keys=["distance"] * 4), "`keys` must be different ones of"),
            (lambda config: config["traits"].pop("undefined"), r"must have 'traits\.undefined'; it is missing"),
            (lambda config: config.update(traits=[]), "must have an object as 'traits'"),
        ],
    )
    def test_files_that_are_corrupt(self, tmp_path, change, reason):
        described(traits_of(VALUES)).save_pretrained(tmp_path)
        write_config(tmp_path, change)
        with pytest.raises(ArtifactError, match=reason):
            HeadImportanceReport.from_pretrained(tmp_path)

    def test_tensors_that_are_corrupt(self, tmp_path):
        described(traits_of(VALUES)).save_pretrained(tmp_path)
        tensors = load_tensors((tmp_path / "report.safetensors").read_bytes())
        tensors["traits_mean"][0, 0, 0] = torch.inf
        write_tensors(tmp_path, save(tensors))
        with pytest.raises(ArtifactError, match="must be finite"):
            HeadImportanceReport.from_pretrained(tmp_path)
        with pytest.raises(ArgumentError, match="`traits` must be of 3 layers of 4 heads and 60 explanations"):
            described(traits_of(VALUES[:59]))

    def test_card(self):
        report = described(traits_of(VALUES))
        card = write_card(report.settings, report.moments, report.means, report.traits)
        [table] = rows(card, "What they are like")
        for (layer, head, _), row in zip(report.top_heads(10), table, strict=True):
            mean = {key: float(value[layer, head]) for key, value in report.traits.statistics.mean.items()}
            assert row == [
                str(layer),
                str(head),
                f"{mean['attention_distance']:.2f}",
                f"{mean['attention_entropy']:.2f}",
                f"{mean['prefix_attention']:.1%}",
                f"{mean['direct_effect']:+.3f}",
            ]
        for trait in TRAITS.values():
            assert trait.definition in card
        assert "no direct effect" not in card
        without = described(traits_of(VALUES[:, :3], tuple(TRAITS)[:3], "a <b>reason</b>"))
        card = write_card(without.settings, without.moments, without.means, without.traits)
        assert "There is no direct effect for this model: a &#60;b&#62;reason&#60;/b&#62;." in card
        assert "What they are like" not in write_card(report.settings, report.moments)


class TestTopImages:
    def test_the_largest_first(self):
        report = make_report(top_images=top_images())
        assert report.top_images(2, 0) == [
            {"image": "f", "class": 0, "contribution": 5.0},
            {"image": "e", "class": 4, "contribution": 4.0},
        ]
        assert [entry["image"] for entry in report.top_images(0, 1)] == ["a", "b"]
        with pytest.raises(ArgumentError, match="`head` must be"):
            report.top_images(0, 4)
        with pytest.raises(ArgumentError, match="`top_images` of a survey must be given"):
            make_report().top_images(0, 0)

    def test_merged(self):
        parts = [top_images("abc"), top_images("defghi"), empty_top_images(2, 3, 4)]
        assert [entry["image"] for entry in merge_top_images(parts)["heads"][0][0]] == ["i", "h"]
        assert merge_top_images([*parts, None]) is None
        assert merge_top_images([]) is None
        assert merge_top_images([parts[0], top_images("xyz", k=1)])["k"] == 1
        first = make_report(top_images=parts[0])
        second = make_report(datasets=dataset(fingerprint="second"), top_images=parts[1])
        assert [entry["image"] for entry in first.merge(second).top_images(0, 2)] == ["i", "h"]
        assert "top_images" not in first.merge(make_report(datasets=dataset(fingerprint="none"))).settings

    def test_names_are_shown_as_text(self, tmp_path):
        top = top_images(["<script>", "a|b", "[x](http://e.org)", "d\n", "e", "`f`"], k=3)
        report = make_report(top_images=top)
        report.save_pretrained(tmp_path)
        assert json.loads((tmp_path / "config.json").read_text())["top_images"] == top
        card = (tmp_path / "README.md").read_text()
        [table] = rows(card, "Where they add most")
        assert len(table) == 10
        assert all(len(row) == 3 for row in table)
        assert "<script>" not in card
        assert "](http://e.org)" not in card
        assert "&#96;f&#96; (label 0, +5.00), e (label 4, +4.00), d (label 3, +3.00)" in card

    @pytest.mark.parametrize(
        ("top", "reason"),
        [
            ({"k": 1, "heads": [[[]] * 4] * 2}, "of the model's heads and classes"),
            (top_images("abcdef") | {"k": -1}, "a whole number of 0 or more as 'top_images.k'"),
            (
                {"k": 1, "heads": [[[{"image": "a", "class": 5, "contribution": 1.0}]] * 4] * 3},
                "of the model's heads and classes",
            ),
            ({"k": 1, "heads": [[[{"image": "a", "class": 1}]] * 4] * 3}, r"contribution'; it is missing"),
        ],
    )
    def test_what_cannot_be(self, top, reason):
        with pytest.raises(ArgumentError, match=reason):
            make_report(top_images=top)
