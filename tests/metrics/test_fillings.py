"""What becomes of hidden patches, through the metrics."""

import pytest
import torch

from gmar_hf import ArgumentError, ArgumentTypeError, metrics
from gmar_hf.models.token_removal import without_patches

MAPS = torch.rand(2, 4, 4, generator=torch.Generator().manual_seed(0))


def test_curves_of_removed_tokens(vit):
    """Each step by itself, with the very patches that the order says."""
    model, images = vit
    removal, target = metrics.TokenRemoval(model), [0, 3]
    score = metrics.score_function(model, target, "logit")
    options = dict(num_steps=4, baseline=removal, max_rows=5)
    shown = metrics.insertion(score, images, MAPS, **options).scores
    left = metrics.deletion(score, images, MAPS, **options).scores
    order = MAPS.flatten(1).argsort(dim=1, descending=True)
    for step in range(5):
        hidden = torch.zeros(2, 16, dtype=torch.bool).scatter(1, order[:, : 4 * step], True).view(2, 4, 4)
        for mask, scores in ((hidden, left), (~hidden, shown)):
            with without_patches(model, images, mask):
                torch.testing.assert_close(scores[:, step], score(images), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(left[:, 0], metrics.score_function(model, target, "logit")(images))
    assert left[0, 0] != left[0, 1]


@pytest.mark.parametrize("metric", [metrics.positive_perturbation, metrics.negative_perturbation, metrics.saco])
def test_every_metric_that_hides_patches_takes_a_filling(vit, metric):
    model, images = vit
    score = metrics.score_function(model, [0, 3], "logit")
    asked = []

    def asking(rows):
        asked.append(rows)
        return score(rows)

    figures = metric(asking, images, MAPS, baseline=metrics.TokenRemoval(model))
    figures = getattr(figures, "scores", figures)
    assert figures.isfinite().all()
    assert all(torch.equal(rows, images.repeat(len(rows) // 2, 1, 1, 1)) for rows in asked)
    zero = metric(score, images, MAPS, baseline="zero")
    assert not torch.equal(figures, getattr(zero, "scores", zero))


def test_what_cannot_be_removed(vit):
    model, images = vit
    score = metrics.score_function(model, [0, 3])
    with pytest.raises(ArgumentError, match=r"got \"removed\". Pass `gmar_hf.metrics.TokenRemoval\(model\)`"):
        metrics.insertion(score, images, MAPS, baseline="removed")
    with pytest.raises(ArgumentTypeError, match="`model` must be an image classifier"):
        metrics.TokenRemoval("vit")
    with pytest.raises(ArgumentError, match="a bool for each of the model's patches"):
        metrics.insertion(score, images, MAPS[:, :2, :2], baseline=metrics.TokenRemoval(model))
    with pytest.raises(ArgumentTypeError, match="`baseline` must be one of"):
        metrics.insertion(score, images, MAPS, baseline=0.5)
