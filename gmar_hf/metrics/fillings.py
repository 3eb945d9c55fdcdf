"""What becomes of hidden patches: they show other pixels, or the model does without their tokens."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

from gmar_hf.errors import ArgumentError
from gmar_hf.images.baselines import baseline_pixels
from gmar_hf.metrics.imputation import NoisyLinearImputation
from gmar_hf.models.model_check import checked_model
from gmar_hf.models.token_removal import without_patches


class Filling(Protocol):
    """What becomes of hidden patches: [`PixelFilling`], [`NoisyLinearImputation`] or [`TokenRemoval`]."""

    def hide(
        self, pixel_values: torch.Tensor, hidden: torch.Tensor, patch_size: tuple[int, int]
    ) -> AbstractContextManager[torch.Tensor]:
        """Hide patches, each choice in a copy of the batch of its own.

        Args:
            pixel_values (`torch.Tensor` of shape (batch, channels, height, width)): The images.
            hidden (`torch.Tensor` of shape (choices, batch, rows, cols), bool): True for the patches that are hidden.
            patch_size (`tuple[int, int]`): Height and width of a patch. Pixels beyond the last one are never hidden.

        Returns:
            A context manager of pixel values (choices * batch, channels, height, width), the batch over and over;
                the patches are hidden from a model that sees them inside the block.
        """


Baseline = str | torch.Tensor | Filling
"""What users say of hidden patches: a name, pixel values that broadcast to the images, or a [`Filling`]."""


@dataclass(frozen=True, eq=False)
class PixelFilling:
    """Other pixels stand where patches are hidden.

    Args:
        pixels (`torch.Tensor` of shape (batch, channels, height, width)): What hidden patches show.
    """

    pixels: torch.Tensor

    def hide(
        self, pixel_values: torch.Tensor, hidden: torch.Tensor, patch_size: tuple[int, int]
    ) -> AbstractContextManager[torch.Tensor]:
        """Hide patches, as [`Filling.hide`] says."""
        (batch, channels), (rows, cols), (height, width) = pixel_values.shape[:2], hidden.shape[2:], patch_size
        covered = (..., slice(rows * height), slice(cols * width))
        blocks = (batch, channels, rows, height, cols, width)
        mixed = torch.where(
            hidden[:, :, None, :, None, :, None],
            self.pixels[covered].reshape(blocks),
            pixel_values[covered].reshape(blocks),
        ).reshape(-1, channels, rows * height, cols * width)
        if mixed.shape[-2:] == pixel_values.shape[-2:]:
            return nullcontext(mixed)
        whole = pixel_values.repeat(len(hidden), 1, 1, 1)
        whole[covered] = mixed
        return nullcontext(whole)


class TokenRemoval:
    """The model does without the tokens of hidden patches, whose pixels stay as they are.

    Other fillings show the model pictures that it has never seen the like of, and the ranking of maps depends on
    which. Here hidden patches are no keys of any attention layer, so that no other token reads them; prefix tokens
    always stay, and a head that averages the patches averages those that are left (zeros where none is). Masking of
    tokens in place of pixels is that of Jain et al. ("Missingness Bias in Model Debugging", ICLR 2022).

    Args:
        model (`nn.Module`): The classifier that the score function asks, on the attention interface.

    Raises:
        ArgumentTypeError: If `model` is no module.

    Example:
        >>> import torch, gmar_hf.demo
        >>> from gmar_hf import metrics
        >>> model, _ = gmar_hf.demo.load("vit")
        >>> score = metrics.score_function(model, 0, "sigmoid")
        >>> images, maps = torch.rand(2, 3, 64, 64), torch.rand(2, 8, 8)
        >>> curve = metrics.deletion(score, images, maps, baseline=metrics.TokenRemoval(model), num_steps=4)
        >>> bool(curve.scores[0, -1] == curve.scores[1, -1])  # without patches all images are alike
        True
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = checked_model(model)

    @contextmanager
    def hide(
        self, pixel_values: torch.Tensor, hidden: torch.Tensor, patch_size: tuple[int, int]
    ) -> Iterator[torch.Tensor]:
        """Hide patches, as [`Filling.hide`] says.

        Raises:
            ArgumentError: If the map's patches are not the model's, or the model sees other rows.
            UnsupportedModelError: If its tokens cannot be taken out.
        """
        rows = pixel_values.repeat(len(hidden), 1, 1, 1)
        with without_patches(self._model, rows, hidden.flatten(0, 1)):
            yield rows


def find_filling(pixel_values: torch.Tensor, baseline: Baseline, *, blur_sigma: float = 8.0) -> Filling:
    """Make of what a user says of hidden patches what hides them.

    Args:
        pixel_values (`torch.Tensor` of shape (batch, channels, height, width)): The images.
        baseline (`str`, `torch.Tensor` or [`Filling`]): A name or pixel values for [`baseline_pixels`], "road" for
            [`NoisyLinearImputation`], or a filling.
        blur_sigma (`float`, defaults to 8.0): Of "blur", in pixels.

    Raises:
        ArgumentError, ArgumentTypeError: If it cannot be used.
    """
    if isinstance(baseline, str):
        if baseline == "road":
            return NoisyLinearImputation()
        if baseline == "removed":
            raise ArgumentError(
                '`baseline` must be a filling that knows the model where tokens are removed; got "removed". '
                "Pass `gmar_hf.metrics.TokenRemoval(model)`."
            )
    elif hasattr(baseline, "hide"):
        return baseline
    return PixelFilling(baseline_pixels(pixel_values, baseline, blur_sigma=blur_sigma))
