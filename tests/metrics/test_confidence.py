"""Average drop, increase and gain: by hand, in a slow loop, and beside torchcam."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gmar_hf import ArgumentError, metrics
from tests.helpers.metric_peers import COLS, HEIGHT, ROWS, WIDTH, GivenMap, TinyClassifier, example, torchcam_metrics

ALL = [metrics.average_drop, metrics.average_increase, metrics.average_gain]


def slow_mask(attribution):
    """The soft mask (12, 20) of one map, pixel by pixel: bilinear between the patches' centres."""
    positive = np.maximum(attribution, 0)
    positive = positive / positive.max() if positive.max() > 0 else positive
    mask = np.zeros((HEIGHT, WIDTH))
    for row in range(HEIGHT):
        for col in range(WIDTH):
            down = min(max((row + 0.5) * ROWS / HEIGHT - 0.5, 0), ROWS - 1)
            right = min(max((col + 0.5) * COLS / WIDTH - 0.5, 0), COLS - 1)
            top, left = int(down), int(right)
            bottom, further = min(top + 1, ROWS - 1), min(left + 1, COLS - 1)
            above = positive[top, left] * (1 - right + left) + positive[top, further] * (right - left)
            below = positive[bottom, left] * (1 - right + left) + positive[bottom, further] * (right - left)
            mask[row, col] = above * (1 - down + top) + below * (down - top)
    return mask


def scores_in_turn(*values):
    """A `score_fn` for one image that says the first number of the image and the second of the masked one."""

    def score(rows):
        assert len(rows) == len(values)
        return torch.tensor(values)

    return score


@pytest.mark.parametrize(
    ("whole", "masked", "drop", "increase", "gain"),
    [
        (0.8, 0.6, 0.25, 0, 0),
        (0.6, 0.8, 0, 1, 0.5),
        (0.5, 0.5, 0, 0, 0),
        (0.0, 0.0, 0, 0, 0),  # nothing to lose
        (1.0, 1.0, 0, 0, 0),  # nothing to win
        (0.0, 0.25, 0, 1, 0.25),
        (1.0, 0.25, 0.75, 0, 0),
    ],
)
def test_by_hand(whole, masked, drop, increase, gain):
    image, attribution = torch.ones(1, 1, 2, 2), torch.ones(1, 1, 1)
    found = [metric(scores_in_turn(whole, masked), image, attribution) for metric in ALL]
    torch.testing.assert_close(torch.stack(found), torch.tensor([[drop], [increase], [gain]], dtype=torch.float32))


def test_the_mask_by_hand():
    # Divided by 4; the negative patch counts as 0. Between the centres at 1 and 3 a quarter and three quarters.
    attribution = torch.tensor([[[4.0, -2.0]]])
    seen = []

    def score(rows):
        seen.append(rows.clone())
        return torch.full((len(rows),), 0.5)

    metrics.average_drop(score, torch.full((1, 1, 1, 4), 2.0), attribution)
    whole, masked = seen[0][:, 0, 0].tolist()
    assert whole == [2, 2, 2, 2]
    assert masked == [2, 1.5, 0.5, 0]


def test_a_map_without_a_positive_part_shows_nothing():
    images = torch.ones(2, 1, 4, 4)
    attribution = torch.tensor([[[-1.0, 0.0], [-3.0, -1.0]], [[1.0, 1.0], [1.0, 1.0]]])
    drop = metrics.average_drop(lambda rows: rows.mean((1, 2, 3)), images, attribution)
    assert drop.tolist() == [1, 0]


@pytest.mark.parametrize("max_rows", [1, 5, 6, 256])
def test_slow_loop(max_rows):
    model, (images, attribution), target = TinyClassifier(), example(), [0, 3, 1]
    sizes = []

    def score(rows):
        sizes.append(len(rows))
        return model.score(target)(rows)

    found = [metric(score, images, attribution, max_rows=max_rows) for metric in ALL]
    assert sizes == [6] * 3 if max_rows >= 6 else [3] * 6
    for index, wanted in enumerate(target):
        masked_image = images[index : index + 1] * torch.from_numpy(slow_mask(attribution[index].numpy()))
        whole = model.score([wanted])(images[index : index + 1]).item()
        masked = model.score([wanted])(masked_image).item()
        expected = max(0, whole - masked) / whole, float(masked > whole), max(0, masked - whole) / (1 - whole)
        assert [values[index].item() for values in found] == pytest.approx(expected, abs=1e-6)
    assert found[1].min() == 0  # both cases are there
    assert found[1].max() == 1


def test_torchcam():
    peers = torchcam_metrics()
    model, (images, attribution), target = TinyClassifier(), example(batch=5, seed=2), [0, 3, 1, 2, 0]
    drop, increase, _ = (metric(model.score(target), images, attribution) for metric in ALL)
    positive = attribution.relu() / attribution.amax((1, 2), keepdim=True)
    for index, wanted in enumerate(target):
        part = slice(index, index + 1)
        peer = peers.ClassificationMetric(GivenMap(model, positive[part]), lambda logits: logits.softmax(-1))
        peer.update(images[part], wanted)
        found = peer.summary()
        assert drop[index].item() == pytest.approx(found["avg_drop"], abs=1e-5)  # it adds 1e-7 to the denominator
        assert increase[index].item() == found["conf_increase"]


@pytest.mark.parametrize("metric", ALL)
def test_logits_are_no_probabilities(metric):
    image, attribution = torch.ones(1, 1, 2, 2), torch.ones(1, 1, 1)
    with pytest.raises(ArgumentError, match=r"must give probabilities, in \[0, 1\]; got 3.2"):
        metric(scores_in_turn(3.25, 0.5), image, attribution)
    with pytest.raises(ArgumentError, match=r"in \[0, 1\]; got -0.5"):
        metric(scores_in_turn(0.5, -0.5), image, attribution)
    with pytest.raises(ArgumentError, match="`max_rows` must be a whole number of 1 or more"):
        metric(scores_in_turn(0.5, 0.5), image, attribution, max_rows=0)


@pytest.mark.parametrize("metric", ALL)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_results_are_float32_and_inputs_stay(metric, dtype):
    images, attribution = (tensor.to(dtype).requires_grad_() for tensor in example())
    before = images.detach().clone(), attribution.detach().clone()
    figures = metric(lambda rows: rows.mean((1, 2, 3)).sigmoid(), images, attribution)
    assert (figures.dtype, figures.shape, figures.requires_grad) == (torch.float32, (3,), False)
    assert torch.equal(images, before[0])
    assert torch.equal(attribution, before[1])
