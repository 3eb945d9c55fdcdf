"""Mean outputs and gradients of the heads: by position, merged, in a report's files, and what follows from them."""

import pytest
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save

from gmar_hf.errors import ArgumentError, ArtifactError
from gmar_hf.report.head_importance_report import HeadImportanceReport
from gmar_hf.report.head_means import HeadMeans, by_position, merge_all
from tests.helpers.reports import assert_same, dataset, make_means, make_report
from tests.report.test_report_files import write_tensors


def test_positions():
    tensor = torch.arange(12.0).reshape(1, 6, 2)  # six tokens of two numbers; two stand before the patches
    assert by_position(tensor, 2, is_mean=True).tolist() == [[[0, 1], [2, 3], [7, 8]]]
    assert by_position(tensor, 2, is_mean=False).tolist() == [[[0, 1], [2, 3], [28, 32]]]
    assert by_position(tensor, 0, is_mean=True).tolist() == [[[5, 6]]]


def test_the_means_go_back_to_their_tokens():
    means = make_means(prefix=2)
    at_tokens = means.at_tokens(5)
    assert at_tokens.shape == (3, 4, 5, 2)
    assert torch.equal(at_tokens[:, :, :2], means.output[:, :, :2])
    for token in (2, 3, 4):
        assert torch.equal(at_tokens[:, :, token], means.output[:, :, 2])


def test_merged_means_are_those_of_all_explanations():
    values = torch.randn(7, 2, 3, 4, 2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def means_of(part):
        return HeadMeans(len(part), *part.mean(dim=0))

    whole = means_of(values)
    merged = merge_all([None, means_of(values[:1]), means_of(values[1:5]), None, means_of(values[5:])])
    assert merged.count == 7
    torch.testing.assert_close(merged.output, whole.output, rtol=0, atol=1e-14)
    torch.testing.assert_close(merged.gradient, whole.gradient, rtol=0, atol=1e-14)
    assert merge_all([None]) is None
    with pytest.raises(ArgumentError, match="`other` must have means of shape"):
        make_means(prefix=1).merge(make_means(prefix=2))


def test_habit_by_hand():
    output = torch.tensor([[[[1.0, 2.0], [3.0, 0.0]]]], dtype=torch.float64)
    gradient = torch.tensor([[[[5.0, -1.0], [2.0, 9.0]]]], dtype=torch.float64)
    assert HeadMeans(1, output, gradient).habit.tolist() == [[5 - 2 + 6 + 0]]


class TestInAReport:
    def test_the_centred_score(self):
        report, means = make_report(), make_means()
        centred = HeadImportanceReport(report.moments, report.weight_sample, report.settings, means)
        expected = report.mean["contribution"] - (means.output * means.gradient).sum(dim=(2, 3))
        assert torch.equal(centred.mean["contribution_centred"], expected)
        best = int(expected.argmax())
        assert centred.top_heads(1, "contribution_centred") == [(best // 4, best % 4, float(expected.flatten()[best]))]
        assert "contribution_centred" not in centred.std
        assert "contribution_centred" not in centred.per_class(0).mean
        assert centred.compare(centred).rank_correlation["contribution_centred"] == pytest.approx(1)
        assert "contribution_centred" not in report.mean
        assert "contribution_centred" not in report.compare(centred).rank_correlation
        assert list(centred.to_pandas()["contribution_centred"]) == expected.flatten().tolist()

    def test_files(self, tmp_path):
        report = make_report()
        centred = HeadImportanceReport(report.moments, report.weight_sample, report.settings, make_means())
        centred.save_pretrained(tmp_path / "centred")
        loaded = HeadImportanceReport.from_pretrained(tmp_path / "centred")
        assert_same(loaded, centred)
        assert loaded.means.count == 60
        # An older report has none of it.
        report.save_pretrained(tmp_path / "older")
        assert HeadImportanceReport.from_pretrained(tmp_path / "older").means is None

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            (lambda tensors: tensors.pop("gradient_mean"), "gradient_mean"),
            (lambda tensors: tensors["output_mean"].fill_(torch.nan), "must be finite"),
            (lambda tensors: tensors.update(output_mean=tensors["output_mean"].float()), "must be float64"),
            (
                lambda tensors: tensors.update(gradient_mean=tensors["gradient_mean"][:, :, :1].clone()),
                "must both have",
            ),
            (
                lambda tensors: tensors.update(
                    {name: tensors[name][:2].clone() for name in tensors if "_mean" in name}
                ),
                "must be of 3 layers of 4 heads",
            ),
        ],
    )
    def test_files_that_are_corrupt(self, tmp_path, change, reason):
        report = make_report()
        report = HeadImportanceReport(report.moments, report.weight_sample, report.settings, make_means())
        report.save_pretrained(tmp_path)
        tensors = load_tensors((tmp_path / "report.safetensors").read_bytes())
        change(tensors)
        write_tensors(tmp_path, save(tensors))
        with pytest.raises(ArtifactError, match=reason):
            HeadImportanceReport.from_pretrained(tmp_path)

    def test_merged_reports(self):
        parts = [make_report(seed=seed, datasets=dataset(fingerprint=str(seed))) for seed in range(2)]
        means = [make_means(seed=seed) for seed in range(2)]
        centred = [
            HeadImportanceReport(report.moments, report.weight_sample, report.settings, mean)
            for report, mean in zip(parts, means, strict=True)
        ]
        merged = centred[0].merge(centred[1])
        output, gradient = ((getattr(means[0], name) + getattr(means[1], name)) / 2 for name in ("output", "gradient"))
        expected = merged.mean["contribution"] - (output * gradient).sum(dim=(2, 3))
        torch.testing.assert_close(merged.mean["contribution_centred"], expected)
        assert centred[0].merge(parts[1]).means is None
        assert parts[0].merge(centred[1]).means is None

    def test_means_of_other_explanations_are_refused(self):
        report = make_report()
        with pytest.raises(
            ArgumentError, match="`means` must be of 3 layers of 4 heads and 60 explanations; got 3 of 4 and 59"
        ):
            HeadImportanceReport(report.moments, report.weight_sample, report.settings, make_means(count=59))
