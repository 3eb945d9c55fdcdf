"""Images with some of their patches hidden: made a few at a time, and scored many at once."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch

from gmar_hf.errors import ArgumentError
from gmar_hf.images.baselines import baseline_pixels as baseline_pixels
from gmar_hf.metrics.fillings import Baseline, Filling, PixelFilling, find_filling
from gmar_hf.metrics.localization import checked_maps
from gmar_hf.metrics.scores import ScoreFunction, score_rows
from gmar_hf.utils.blame import blaming
from gmar_hf.utils.checks import check_flags, check_whole, is_whole
from gmar_hf.utils.tensors import check_images, copies_at_once

Interval = tuple[int, int]
"""Patches of these ranks: from the first, which is in, to the last, which is not."""

PatchSize = int | tuple[int, int] | None
"""Height and width of a patch in pixels, or both in one; None where patches divide the image evenly."""


class RankedImages(NamedTuple):
    """A batch whose patches can be hidden by rank.

    Args:
        pixel_values (`torch.Tensor` of shape (batch, channels, height, width)): The images.
        filling ([`Filling`]): What becomes of hidden patches.
        attribution (`torch.Tensor` of shape (batch, rows, cols)): The maps; float32 or more, on the images' device.
        rank (`torch.Tensor` of shape (batch, rows, cols)): Of every patch, from 0; each rank once an image.
        patch_size (`tuple[int, int]`): Height and width of a patch. Pixels beyond the last one are never hidden.
    """

    pixel_values: torch.Tensor
    filling: Filling
    attribution: torch.Tensor
    rank: torch.Tensor
    patch_size: tuple[int, int]

    @property
    def num_patches(self) -> int:
        return self.rank[0].numel()

    def hide(self, intervals: Sequence[Interval]) -> AbstractContextManager[torch.Tensor]:
        """Hide patches by their rank, each interval in a copy of the batch of its own, as [`Filling.hide`] says."""
        first, last = torch.tensor(intervals, device=self.rank.device).T[..., None, None, None]
        hidden = (self.rank >= first) & (self.rank < last)  # (intervals, batch, rows, cols)
        return self.filling.hide(self.pixel_values, hidden, self.patch_size)


def rank_patches(
    pixel_values: torch.Tensor,
    attribution: torch.Tensor,
    baseline: Baseline,
    patch_size: PatchSize,
    *,
    blur_sigma: float = 8.0,
    most_important_first: bool = True,
) -> RankedImages:
    """Order the patches of a batch by their attribution, equal ones row by row.

    Raises:
        ArgumentError, ArgumentTypeError: If images, map or baseline cannot be used.
    """
    check_flags(most_important_first=most_important_first)
    values, size = checked_map(pixel_values, attribution, patch_size)
    order = values.flatten(1).argsort(dim=1, descending=most_important_first, stable=True)
    return RankedImages(
        pixel_values=pixel_values.detach(),
        filling=find_filling(pixel_values, baseline, blur_sigma=blur_sigma),
        attribution=values,
        rank=order.argsort(dim=1).view(values.shape),
        patch_size=size,
    )


def checked_map(
    pixel_values: torch.Tensor, attribution: torch.Tensor, patch_size: PatchSize
) -> tuple[torch.Tensor, tuple[int, int]]:
    """Check a map and its images, and that they fit.

    Args:
        pixel_values (`torch.Tensor` of shape (batch, channels, height, width)): The images.
        attribution (`torch.Tensor` of shape (batch, rows, cols)): Their maps, a value a patch.
        patch_size (`int` or pair of `int`, *optional*): Height and width of a patch; None where patches divide the
            images evenly.

    Returns:
        The map, detached, float32 at least, on the images' device; and the height and width of its patches.

    Raises:
        ArgumentError: If it is not finite, or there is not one for each image with a value for each whole patch.
        ArgumentTypeError: If it is no tensor.
    """
    check_images(pixel_values)
    values = checked_maps("attribution", attribution)
    batch, _, height, width = pixel_values.shape
    if len(values) != batch:
        raise ArgumentError(
            f"`attribution` must have one map for each of the {batch} images, shape ({batch}, rows, cols); "
            f"got {tuple(values.shape)}. Measure each of several targets by itself."
        )
    rows, cols = values.shape[1:]
    if patch_size is None:
        size = (height // rows, width // cols)
        if (rows * size[0], cols * size[1]) != (height, width):
            raise ArgumentError(
                f"`attribution` must have rows and columns that divide the image's {height} x {width} pixels evenly; "
                f"got {rows} x {cols}. If pixels are left over beyond the last whole patch, pass `patch_size`."
            )
    else:
        size = _checked_size(patch_size)
        if (rows, cols) != (height // size[0], width // size[1]):
            raise ArgumentError(
                f"`attribution` must have a value for each whole patch of {size[0]} x {size[1]} pixels, "
                f"{height // size[0]} x {width // size[1]} in images of {height} x {width}; got {rows} x {cols}."
            )
    return values.to(pixel_values.device), size


def _checked_size(patch_size: int | tuple[int, int]) -> tuple[int, int]:
    """Return the height and width of a patch."""
    sides: Any = (patch_size, patch_size) if is_whole(patch_size) else patch_size
    if isinstance(sides, Sequence) and len(sides) == 2 and all(is_whole(side) and side > 0 for side in sides):
        return sides[0], sides[1]
    raise ArgumentError(f"`patch_size` must be a positive int, or (height, width), in pixels; got {patch_size!r}.")


def _blaming_baseline(score_fn: ScoreFunction, images: RankedImages) -> AbstractContextManager[None]:
    """Name `baseline` in an error about images that show its pixels, where the images themselves can be scored."""
    filling = images.filling
    if not isinstance(filling, PixelFilling):
        return nullcontext()
    return blaming(
        lambda: (
            "`baseline` must hold pixel values that `score_fn` can score, as the images' own are; got up to "
            f"{filling.pixels.abs().max():.3g}. Give it values of the size that the image processor makes."
        ),
        without=lambda: score_rows(score_fn, images.pixel_values),
    )


def score_hidden(
    score_fn: ScoreFunction, images: RankedImages, intervals: Sequence[Interval], max_rows: int
) -> torch.Tensor:
    """Score a batch with the patches of each interval hidden; equal pictures are scored once.

    Args:
        score_fn (`Callable`): The user's function from pixel values to one score a row.
        images ([`RankedImages`]): The batch.
        intervals (`Sequence` of pairs of `int`): The ranks that are hidden, from the first to before the last.
        max_rows (`int`): How many rows the function gets at once, at most; the batch once at least.

    Returns:
        `torch.Tensor` of shape (batch, intervals): As the function gave them.

    Raises:
        ArgumentError: If `max_rows` cannot be used, or there is not one score a row.
        ArgumentTypeError: If `score_fn` is no function.
        NonFiniteError: If a score is NaN or infinite.
    """
    check_whole("max_rows", max_rows, minimum=1)
    shown = [(first, last) if first < last else (0, 0) for first, last in intervals]
    different = list(dict.fromkeys(shown))
    batch = len(images.rank)
    repeats = copies_at_once(images.pixel_values, max_rows)
    parts = []
    with _blaming_baseline(score_fn, images):
        for start in range(0, len(different), repeats):
            with images.hide(different[start : start + repeats]) as rows:
                parts.append(score_rows(score_fn, rows).view(-1, batch))
    return torch.cat(parts)[[different.index(interval) for interval in shown]].T
