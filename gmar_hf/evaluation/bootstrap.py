"""Intervals for means over images, by the bootstrap."""

from collections.abc import Sequence
from typing import Any

import numpy as np

LEVEL = 0.95


class Bootstrap:
    """Draws images with replacement, the same ones for everything that is compared (Efron 1979).

    Rows of one image stay together: they are drawn, or not, as one.

    Args:
        images (`Sequence`): The image that each row is of.
        num_draws (`int`, defaults to 1000): How often all images are drawn.
        seed (`int`, defaults to 0): The same seed draws the same.
    """

    def __init__(self, images: Sequence[Any], num_draws: int = 1000, seed: int = 0) -> None:
        _, self._image = np.unique(np.asarray(images), return_inverse=True)
        self._num_images = int(self._image.max()) + 1 if len(self._image) else 0
        generator = np.random.default_rng(seed)
        shares = np.full(self._num_images, 1 / max(self._num_images, 1))
        self._times = generator.multinomial(self._num_images, shares, size=num_draws)  # each image in each draw

    def interval(self, values: np.ndarray) -> dict[str, float | int | None]:
        """Return the mean of rows and its percentile interval of 95 %.

        Args:
            values (`np.ndarray` of shape (rows,)): NaN where a row has no figure; such rows are left out.

        Returns:
            `dict`: "mean", "low", "high" (None without any figure; the interval also of less than two images), and
                "num_rows", how many rows have one.

        Example:
            >>> Bootstrap(["a", "b", "b"]).interval(np.array([1.0, 2.0, 6.0]))
            {'mean': 3.0, 'low': 1.0, 'high': 4.0, 'num_rows': 3}
        """
        known = np.isfinite(values)
        counts = np.bincount(self._image[known], minlength=self._num_images)
        num_rows = int(counts.sum())
        if not num_rows:
            return {"mean": None, "low": None, "high": None, "num_rows": 0}
        mean = float(values[known].mean())
        low = high = None
        # Each draw takes some images several times and others never; a draw without any figure says nothing.
        if np.count_nonzero(counts) > 1:
            sums = np.bincount(self._image[known], weights=values[known], minlength=self._num_images)
            drawn = self._times @ counts
            means = (self._times @ sums)[drawn > 0] / drawn[drawn > 0]
            margin = (1 - LEVEL) / 2
            low, high = np.quantile(means, [margin, 1 - margin]).tolist()
        return {"mean": mean, "low": low, "high": high, "num_rows": num_rows}
