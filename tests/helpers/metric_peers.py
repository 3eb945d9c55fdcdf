"""What the tests of the metrics measure with: a tiny classifier, and peers' metrics of it."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch

HEIGHT, WIDTH = 12, 20
ROWS, COLS = 3, 5  # patches of 4 x 4 pixels
NUM_CLASSES = 4


class TinyClassifier(torch.nn.Module):
    """A classifier of 12 x 20 pixels in which no pixel counts by itself; in float64, so that peers agree closely."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.layers = torch.nn.Sequential(
                torch.nn.Conv2d(3, 6, 3, padding=1),
                torch.nn.Tanh(),
                torch.nn.Flatten(),
                torch.nn.Linear(6 * HEIGHT * WIDTH, NUM_CLASSES),
            )
        self.double().eval().requires_grad_(False)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return 4 * self.layers(pixel_values.double())  # Quantus hands over float32

    def score(self, target: list[int]):
        """Return the `score_fn` of these targets, one an image of the batch: probabilities."""

        def score(pixel_values: torch.Tensor) -> torch.Tensor:
            wanted = torch.tensor(target).repeat(len(pixel_values) // len(target))
            return self(pixel_values).softmax(-1).gather(1, wanted[:, None])[:, 0]

        return score


def example(batch: int = 3, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return seeded images (batch, 3, 12, 20) and signed maps (batch, 3, 5) without ties, in float64."""
    generator = torch.Generator().manual_seed(seed)
    pixel_values = torch.randn(batch, 3, HEIGHT, WIDTH, generator=generator, dtype=torch.float64)
    return pixel_values, torch.randn(batch, ROWS, COLS, generator=generator, dtype=torch.float64)


def to_pixels(attribution: torch.Tensor) -> torch.Tensor:
    """Return maps (batch, 3, 5) with every patch as its pixels, (batch, 12, 20)."""
    return attribution.repeat_interleave(HEIGHT // ROWS, dim=1).repeat_interleave(WIDTH // COLS, dim=2)


class GivenMap:
    """For torchcam: an extractor that has one map and gives it."""

    def __init__(self, model: torch.nn.Module, attribution: torch.Tensor) -> None:
        self.model = model
        self.attribution = attribution

    def __call__(self, *_: object, **__: object) -> list[torch.Tensor]:
        return [self.attribution]

    def fuse_cams(self, cams: list[torch.Tensor]) -> torch.Tensor:
        return cams[0]

    def _hooks_off(self) -> nullcontext:
        return nullcontext()


def torchcam_metrics():
    """Return torchcam's metrics, or skip the test."""
    metrics = pytest.importorskip("torchcam.metrics")
    if not hasattr(metrics, "DeletionInsertionMetric"):
        pytest.skip("torchcam before 0.5")
    return metrics
