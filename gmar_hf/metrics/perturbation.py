"""What a score does when the patches that a map calls important are hidden or shown, one after the other.

Patches go as whole, equal values row by row; pixels beyond the last whole patch are never hidden. `baseline`, by which
they are hidden, is for [`baseline_pixels`], or a [`Filling`] such as [`TokenRemoval`]; it decides half of the ranking
of maps, and a map that was made with a baseline shines under it: measure under several.
"""

from dataclasses import dataclass
from typing import Literal

import torch

from gmar_hf.metrics.fillings import Baseline
from gmar_hf.metrics.hiding import PatchSize, RankedImages, rank_patches, score_hidden
from gmar_hf.metrics.scores import ScoreFunction
from gmar_hf.utils.checks import check_whole


@dataclass(frozen=True, eq=False)
class Curve:
    """Scores of every image at the same shares of something shown or hidden.

    Args:
        shares (`torch.Tensor` of shape (points,)): In [0, 1], rising; at least two of them differ.
        scores (`torch.Tensor` of shape (batch, points)): float32.

    Example:
        >>> Curve(torch.tensor([0.0, 0.5, 1.0]), torch.tensor([[1.0, 0.5, 0.0]])).auc
        tensor([0.5000])
    """

    shares: torch.Tensor
    scores: torch.Tensor

    @property
    def auc(self) -> torch.Tensor:
        """Return the area under each image's curve (batch,) by the trapezoid, divided by the range of the shares.

        In the unit of the scores: the mean height of the curve.
        """
        return torch.trapezoid(self.scores, self.shares) / (self.shares[-1] - self.shares[0])


def insertion(
    score_fn: ScoreFunction,
    pixel_values: torch.Tensor,
    attribution: torch.Tensor,
    *,
    num_steps: int = 16,
    baseline: Baseline = "blur",
    blur_sigma: float = 8.0,
    patch_size: PatchSize = None,
    max_rows: int = 256,
) -> Curve:
    """Show the patches of a hidden image, the most important first (Petsiuk et al., "RISE", BMVC 2018).

    Args:
        score_fn (`Callable`): From rows of pixel values to a score each (M,), as [`score_function`] makes one.
        pixel_values (`torch.Tensor` of shape (batch, channels, height, width)): The images.
        attribution (`torch.Tensor` of shape (batch, rows, cols)): Their maps, a value a patch.
        num_steps (`int`, defaults to 16): Step k shows `round(k * patches / num_steps)` patches.
        baseline (`str`, `torch.Tensor` or [`Filling`], defaults to "blur"): What hidden patches show.
        blur_sigma (`float`, defaults to 8.0): Standard deviation of the Gaussian of "blur", in pixels.
        patch_size (`int` or pair of `int`, *optional*): In pixels; needed if patches leave some over.
        max_rows (`int`, defaults to 256): How many rows `score_fn` gets at once at most, the batch once at least.

    Returns:
        [`Curve`]: `shares` (num_steps + 1,) of patches shown, from 0 to 1; `scores` (batch, num_steps + 1), float32
            on the images' device; `auc` (batch,), higher for a better map.

    Raises:
        ArgumentError, ArgumentTypeError, NonFiniteError: If an argument cannot be used, or a score is not finite.

    Example:
        >>> score = lambda rows: rows.mean(dim=(1, 2, 3))
        >>> image = torch.tensor([[[[8.0, 4.0], [2.0, 2.0]]]])
        >>> insertion(score, image, image[:, 0], num_steps=4, baseline="zero").scores
        tensor([[0.0000, 2.0000, 3.0000, 3.5000, 4.0000]])
    """
    images = rank_patches(pixel_values, attribution, baseline, patch_size, blur_sigma=blur_sigma)
    (curve,) = _score_curves(score_fn, images, num_steps, max_rows, "show")
    return curve


def deletion(
    score_fn: ScoreFunction,
    pixel_values: torch.Tensor,
    attribution: torch.Tensor,
    *,
    num_steps: int = 16,
    baseline: Baseline = "blur",
    blur_sigma: float = 8.0,
    patch_size: PatchSize = None,
    max_rows: int = 256,
) -> Curve:
    """Hide the patches of an image, the most important first (Petsiuk et al., "RISE", BMVC 2018).

    Args:
        score_fn (`Callable`): From rows of pixel values to a score each (M,), as [`score_function`] makes one.
        pixel_values (`torch.Tensor` of shape (batch, channels, height, width)): The images.
        attribution (`torch.Tensor` of shape (batch, rows, cols)): Their maps, a value a patch.
        num_steps (`int`, defaults to 16): Step k hides `round(k * patches / num_steps)` patches.
        baseline (`str`, `torch.Tensor` or [`Filling`], defaults to "blur"): What hidden patches show.
        blur_sigma (`float`, defaults to 8.0): Standard deviation of the Gaussian of "blur", in pixels.
        patch_size (`int` or pair of `int`, *optional*): In pixels; needed if patches leave some over.
        max_rows (`int`, defaults to 256): How many rows `score_fn` gets at once at most, the batch once at least.

    Returns:
        [`Curve`]: `shares` (num_steps + 1,) of patches hidden, from 0 to 1; `scores` (batch, num_steps + 1), float32
            on the images' device; `auc` (batch,), lower for a better map.

    Raises:
        ArgumentError, ArgumentTypeError, NonFiniteError: If an argument cannot be used, or a score is not finite.

    Example:
        >>> score = lambda rows: rows.mean(dim=(1, 2, 3))
        >>> image = torch.tensor([[[[8.0, 4.0], [2.0, 2.0]]]])
        >>> deletion(score, image, image[:, 0], num_steps=4, baseline="zero").scores
        tensor([[4.0000, 2.0000, 1.0000, 0.5000, 0.0000]])
    """
    images = rank_patches(pixel_values, attribution, baseline, patch_size, blur_sigma=blur_sigma)
    (curve,) = _score_curves(score_fn, images, num_steps, max_rows, "hide")
    return curve


def insertion_minus_deletion(
    score_fn: ScoreFunction,
    pixel_values: torch.Tensor,
    attribution: torch.Tensor,
    *,
    num_steps: int = 16,
    baseline: Baseline = "blur",
    blur_sigma: float = 8.0,
    patch_size: PatchSize = None,
    max_rows: int = 256,
) -> torch.Tensor:
    """Return the area under the insertion curve minus that under the deletion curve.

    The common ends of the curves are scored once. A map that says nothing gets about 0, where either area alone also
    tells how sure the model is.

    Args:
        score_fn (`Callable`): From rows of pixel values to a score each (M,), as [`score_function`] makes one.
        pixel_values (`torch.Tensor` of shape (batch, channels, height, width)): The images.
        attribution (`torch.Tensor` of shape (batch, rows, cols)): Their maps, a value a patch.
        num_steps (`int`, defaults to 16): Step k shows, and hides, `round(k * patches / num_steps)` patches.
        baseline (`str`, `torch.Tensor` or [`Filling`], defaults to "blur"): What hidden patches show.
        blur_sigma (`float`, defaults to 8.0): Standard deviation of the Gaussian of "blur", in pixels.
        patch_size (`int` or pair of `int`, *optional*): In pixels; needed if patches leave some over.
        max_rows (`int`, defaults to 256): How many rows `score_fn` gets at once at most, the batch once at least.

    Returns:
        `torch.Tensor` of shape (batch,): float32, in the unit of the scores; higher for a better map.

    Raises:
        ArgumentError, ArgumentTypeError, NonFiniteError: If an argument cannot be used, or a score is not finite.
    """
    inserted, deleted = insertion_and_deletion(
        score_fn,
        pixel_values,
        attribution,
        num_steps=num_steps,
        baseline=baseline,
        blur_sigma=blur_sigma,
        patch_size=patch_size,
        max_rows=max_rows,
    )
    return inserted.auc - deleted.auc


def insertion_and_deletion(
    score_fn: ScoreFunction,
    pixel_values: torch.Tensor,
    attribution: torch.Tensor,
    *,
    num_steps: int = 16,
    baseline: Baseline = "blur",
    blur_sigma: float = 8.0,
    patch_size: PatchSize = None,
    max_rows: int = 256,
) -> tuple[Curve, Curve]:
    """Make the curves of [`insertion`] and [`deletion`]; their common ends are scored once.

    Args:
        score_fn (`Callable`): From rows of pixel values to a score each (M,), as [`score_function`] makes one.
        pixel_values (`torch.Tensor` of shape (batch, channels, height, width)): The images.
        attribution (`torch.Tensor` of shape (batch, rows, cols)): Their maps, a value a patch.
        num_steps (`int`, defaults to 16): Step k shows, and hides, `round(k * patches / num_steps)` patches.
        baseline (`str`, `torch.Tensor` or [`Filling`], defaults to "blur"): What hidden patches show.
        blur_sigma (`float`, defaults to 8.0): Standard deviation of the Gaussian of "blur", in pixels.
        patch_size (`int` or pair of `int`, *optional*): In pixels; needed if patches leave some over.
        max_rows (`int`, defaults to 256): How many rows `score_fn` gets at once at most, the batch once at least.

    Returns:
        Two [`Curve`]: insertion's and deletion's.

    Raises:
        ArgumentError, ArgumentTypeError, NonFiniteError: If an argument cannot be used, or a score is not finite.
    """
    images = rank_patches(pixel_values, attribution, baseline, patch_size, blur_sigma=blur_sigma)
    inserted, deleted = _score_curves(score_fn, images, num_steps, max_rows, "show", "hide")
    return inserted, deleted


def positive_perturbation(
    score_fn: ScoreFunction,
    pixel_values: torch.Tensor,
    attribution: torch.Tensor,
    *,
    baseline: Baseline = "zero",
    blur_sigma: float = 8.0,
    patch_size: PatchSize = None,
    max_rows: int = 256,
) -> Curve:
    """Tell whether the prediction stands while patches are hidden, the most important first.

    The test of Chefer, Gur and Wolf ("Transformer Interpretability Beyond Attention Visualization", CVPR 2021). They
    hide by black; after the image processor's normalisation that is a tensor of your own, `-mean / std` of shape
    (channels, 1, 1), while "zero" is the grey of the normalisation's mean.

    Args:
        score_fn (`Callable`): From pixel values (M, channels, height, width) to the class (M,) of each row as ints,
            such as `lambda rows: model(pixel_values=rows).logits.argmax(-1)`: whether it stands is what counts. Or to
            a score (M,) as floats or bools, such as whether the label is ranked first: they count as they are.
        pixel_values (`torch.Tensor` of shape (batch, channels, height, width)): The images.
        attribution (`torch.Tensor` of shape (batch, rows, cols)): Their maps, a value a patch.
        baseline (`str`, `torch.Tensor` or [`Filling`], defaults to "zero"): What hidden patches show.
        blur_sigma (`float`, defaults to 8.0): Standard deviation of the Gaussian of "blur", in pixels.
        patch_size (`int` or pair of `int`, *optional*): In pixels; needed if patches leave some over.
        max_rows (`int`, defaults to 256): How many rows `score_fn` gets at once at most, the batch once at least.

    Returns:
        [`Curve`]: `shares` (9,) of patches hidden, 0.1 to 0.9 (their number is rounded); `scores` (batch, 9), of
            classes 1 where it is still that of the whole image and 0 elsewhere; `auc` (batch,), in [0, 1] of classes,
            lower for a better map.

    Raises:
        ArgumentError, ArgumentTypeError, NonFiniteError: If an argument cannot be used, or a score is not finite.
    """
    images = rank_patches(pixel_values, attribution, baseline, patch_size, blur_sigma=blur_sigma)
    return _score_standing(score_fn, images, max_rows)


def negative_perturbation(
    score_fn: ScoreFunction,
    pixel_values: torch.Tensor,
    attribution: torch.Tensor,
    *,
    baseline: Baseline = "zero",
    blur_sigma: float = 8.0,
    patch_size: PatchSize = None,
    max_rows: int = 256,
) -> Curve:
    """Tell whether the prediction stands while patches are hidden, the least important first.

    Args:
        score_fn (`Callable`): From pixel values (M, channels, height, width) to the class (M,) of each row as ints;
            or to a score (M,) as floats or bools, which count as they are.
        pixel_values (`torch.Tensor` of shape (batch, channels, height, width)): The images.
        attribution (`torch.Tensor` of shape (batch, rows, cols)): Their maps, a value a patch.
        baseline (`str`, `torch.Tensor` or [`Filling`], defaults to "zero"): What hidden patches show.
        blur_sigma (`float`, defaults to 8.0): Standard deviation of the Gaussian of "blur", in pixels.
        patch_size (`int` or pair of `int`, *optional*): In pixels; needed if patches leave some over.
        max_rows (`int`, defaults to 256): How many rows `score_fn` gets at once at most, the batch once at least.

    Returns:
        [`Curve`]: `shares` (9,) of patches hidden, 0.1 to 0.9; `scores` (batch, 9), of classes 1 where it is still
            that of the whole image and 0 elsewhere; `auc` (batch,), higher for a better map.

    Raises:
        ArgumentError, ArgumentTypeError, NonFiniteError: If an argument cannot be used, or a score is not finite.
    """
    images = rank_patches(
        pixel_values, attribution, baseline, patch_size, blur_sigma=blur_sigma, most_important_first=False
    )
    return _score_standing(score_fn, images, max_rows)


def _score_curves(
    score_fn: ScoreFunction, images: RankedImages, num_steps: int, max_rows: int, *ways: Literal["show", "hide"]
) -> list[Curve]:
    """Score a batch while its patches are shown, or hidden, in the order of their rank: a curve for each way."""
    check_whole("num_steps", num_steps, minimum=1)
    num_patches = images.num_patches
    counts = [round(step * num_patches / num_steps) for step in range(num_steps + 1)]
    # What is hidden at each step: where patches are shown, all but the first.
    hidden = {"show": [(count, num_patches) for count in counts], "hide": [(0, count) for count in counts]}
    scores = score_hidden(score_fn, images, [interval for way in ways for interval in hidden[way]], max_rows).float()
    shares = torch.tensor(counts, device=scores.device) / num_patches
    return [Curve(shares, part) for part in scores.chunk(len(ways), dim=1)]


def _score_standing(score_fn: ScoreFunction, images: RankedImages, max_rows: int) -> Curve:
    """Score a batch with one to nine tenths of its patches hidden; of classes, whether each is still the first one."""
    tenths = range(1, 10)
    counts = [0, *(round(tenth * images.num_patches / 10) for tenth in tenths)]
    scores = score_hidden(score_fn, images, [(0, count) for count in counts], max_rows)
    if not scores.is_floating_point() and scores.dtype != torch.bool:
        scores = scores == scores[:, :1]
    return Curve(torch.tensor(tenths, device=scores.device) / 10, scores[:, 1:].float())
