"""Made-up head-importance reports from seeded numbers, for tests of whatever reads, shows or shares a report."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from transformers import PreTrainedModel

from gmar_hf.images.own_pictures import save_picture
from gmar_hf.models.weight_sample import weight_sample
from gmar_hf.report.head_importance_report import OUTCOMES, HeadImportanceReport
from gmar_hf.report.head_means import HeadMeans
from gmar_hf.report.moments import Moments
from tests.helpers import zoo


def small_figure(statistics: Any, score: str) -> bytes:
    """Return a PNG of one pixel that stands for a score's figure: another colour for other numbers."""
    content = score.encode() + statistics.mean[score].float().numpy().tobytes()
    picture = io.BytesIO()
    save_picture(Image.new("RGB", (1, 1), tuple(hashlib.sha256(content).digest()[:3])), picture)
    return picture.getvalue()


def explanations(
    num_classes: int = 5, layers: int = 3, heads: int = 4, num_explanations: int = 60, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores (explanations, 6, layers, heads) float32 as a survey would find them, and their groups (explanations,).

    The last class is never explained, and the one before it once, so that both are there to be tested.
    """
    generator = torch.Generator().manual_seed(seed)
    strength = torch.rand(layers, heads, generator=generator) + 0.1  # heads differ, and images around that
    norms = strength * (0.5 + torch.rand(num_explanations, 2, layers, heads, generator=generator))
    contribution = (strength - 0.4) + 0.3 * torch.randn(num_explanations, layers, heads, generator=generator)
    shares = norms / norms.sum(-1, keepdim=True)
    values = torch.cat([norms, shares, contribution[:, None], contribution.abs()[:, None]], dim=1)
    classes = torch.randint(max(num_classes - 2, 1), (num_explanations,), generator=generator)
    if num_classes > 2:
        classes[0] = num_classes - 2
    outcomes = torch.randint(len(OUTCOMES), (num_explanations,), generator=generator)
    return values, classes * len(OUTCOMES) + outcomes


def dataset(**changed: Any) -> list[dict[str, Any]]:
    """The `datasets` of a report on one data set, of which some entries are to be others."""
    return [
        {
            "id": "somebody/pictures",
            "is_local": False,
            "revision": None,
            "split": "validation",
            "num_images": 60,
            "fingerprint": "0011223344556677",
            **changed,
        }
    ]


def made_settings(moments: Moments, **changed: Any) -> dict[str, Any]:
    """Settings that fit the moments; what is changed replaces an entry, or goes into one that is a dict."""
    by_outcome = dict(zip(OUTCOMES, moments.count.unflatten(0, (-1, len(OUTCOMES))).sum(0).tolist(), strict=True))
    settings = {
        "model": {
            "id": "somebody/tiny-vit",
            "is_local": False,
            "revision": None,
            "commit": "0123456789abcdef0123456789abcdef01234567",
            "class": "ViTForImageClassification",
            "num_layers": moments.shape[1],
            "num_heads": moments.shape[2],
            "labels": [f"label {index}" for index in range(moments.num_groups // len(OUTCOMES))],
            "dtype": "float32",
            "attention": "sdpa",
        },
        "datasets": dataset(num_images=sum(by_outcome.values())),
        "target": "predicted",
        "survey": {
            "batch_size": 32,
            "limit": None,
            "shuffle_seed": None,
            "until_stable": None,
            "max_unreadable": 0.01,
        },
        "counts": {
            "num_images": sum(by_outcome.values()),
            "num_explanations": sum(by_outcome.values()),
            **{f"num_{outcome}": count for outcome, count in by_outcome.items()},
            "num_unreadable": 0,
        },
        "unreadable": [],
        "stability": None,
        "license": None,
        "versions": {"gmar_hf": "0.1.0", "torch": "2.13.0", "transformers": "5.23.0"},
        "date": "2026-11-22T10:00:00+00:00",
    }
    for key, value in changed.items():
        settings[key] = {**settings[key], **value} if isinstance(settings.get(key), dict) and value else value
    return settings


def moments_of(values: torch.Tensor, groups: Sequence[int] | torch.Tensor, num_classes: int = 1) -> Moments:
    """Moments of scores (explanations, 6, layers, heads) whose groups, class * 3 + outcome, are these."""
    moments = Moments.empty(num_classes * len(OUTCOMES), tuple(values.shape[1:]))
    moments.add(values, torch.as_tensor(groups))
    return moments


def make_means(layers: int = 3, heads: int = 4, prefix: int = 1, count: int = 60, seed: int = 0) -> HeadMeans:
    """Made-up mean outputs of the heads and gradients by them, heads of two numbers."""
    generator = torch.Generator().manual_seed(seed)
    shape = (2, layers, heads, prefix + 1, 2)
    return HeadMeans(count, *torch.randn(*shape, generator=generator, dtype=torch.float64))


def report_on(moments: Moments, **settings: Any) -> HeadImportanceReport:
    """A report on these moments of a made-up model, whose weights depend on its shape alone."""
    _, layers, heads = moments.shape
    weights = torch.randn(7 * layers, generator=torch.Generator().manual_seed(layers * heads))
    return HeadImportanceReport(moments, weights, made_settings(moments, **settings))


def make_moments(
    num_classes: int = 5, layers: int = 3, heads: int = 4, num_explanations: int = 60, seed: int = 0
) -> Moments:
    return moments_of(*explanations(num_classes, layers, heads, num_explanations, seed), num_classes)


def make_report(
    num_classes: int = 5,
    layers: int = 3,
    heads: int = 4,
    num_explanations: int = 60,
    seed: int = 0,
    **settings: Any,
) -> HeadImportanceReport:
    """A report on made-up explanations of a made-up model.

    Args:
        num_classes, layers, heads (`int`): Of the model.
        num_explanations (`int`): One an image.
        seed (`int`): Of the explanations.
        settings: Entries of `settings` that are to be others: `license="mit"`, `model={"id": "a/b"}`.
    """
    return report_on(make_moments(num_classes, layers, heads, num_explanations, seed), **settings)


def assert_same(report: HeadImportanceReport, expected: HeadImportanceReport) -> None:
    """Compare two reports bit by bit."""
    assert report.settings == expected.settings
    for name in ("count", "mean", "squares"):
        assert torch.equal(getattr(report.moments, name), getattr(expected.moments, name))
    assert torch.equal(report.weight_sample, expected.weight_sample)
    assert (report.means is None) == (expected.means is None)
    if report.means is not None and expected.means is not None:
        assert torch.equal(report.means.output, expected.means.output)
        assert torch.equal(report.means.gradient, expected.means.gradient)


def report_of(model: PreTrainedModel, num_explanations: int = 60, seed: int = 0) -> HeadImportanceReport:
    """A report on made-up explanations that fits a model of the zoo: its shape, class, labels and weights."""
    config = zoo.vision_config(model)
    shape = (config.num_hidden_layers, config.num_attention_heads)
    moments = make_moments(zoo.NUM_LABELS, *shape, num_explanations, seed)
    labels = [model.config.id2label[index] for index in range(zoo.NUM_LABELS)]
    settings = made_settings(moments, model={"class": type(model).__name__, "labels": labels})
    return HeadImportanceReport(moments, weight_sample(model), settings)
