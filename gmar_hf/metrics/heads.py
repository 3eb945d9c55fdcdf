"""What the logit does when single heads are taken out, and which head scores foretell it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from gmar_hf.errors import ArgumentError, ArgumentTypeError
from gmar_hf.models.ablation import AblatedModel, ablated
from gmar_hf.models.targets import choose_target
from gmar_hf.utils.checks import check_flags, check_whole
from gmar_hf.utils.correlation import spearman
from gmar_hf.utils.tensors import check_plain, copies_at_once

ClassTarget = torch.Tensor | Sequence[int] | int | None


def chosen_classes(target: Any, logits: torch.Tensor) -> torch.Tensor:
    """Return one class an image.

    Args:
        target: What the user gave: a class for all images, ints of shape (batch,), or None for the predicted class.
        logits (`torch.Tensor` of shape (batch, classes)): Of the images.

    Returns:
        `torch.LongTensor` of shape (batch,): On the device of the logits.

    Raises:
        ArgumentError, ArgumentTypeError: If there is not one class an image.
    """
    if callable(target):
        raise ArgumentTypeError("`target` must be a class, or None for the predicted one; got a callable.")
    classes = choose_target(target, logits).target
    assert classes is not None  # only a callable has none
    if classes.ndim != 1:
        raise ArgumentError(
            f"`target` must have one class an image, shape ({len(logits)},); got {tuple(classes.shape)}. "
            "Measure each of several targets by itself."
        )
    return classes


def checked_scores(head_scores: Any, shape: tuple[int, ...]) -> torch.Tensor:
    """Return the user's scores of the heads, detached.

    Args:
        head_scores: What the user gave.
        shape (`tuple[int, ...]`): The shape they must have, (batch, layers, heads).

    Raises:
        ArgumentError: If they are of another shape, or not finite.
        ArgumentTypeError: If they are no dense tensor of real numbers.
    """
    if not isinstance(head_scores, torch.Tensor):
        raise ArgumentTypeError(
            f"`head_scores` must be a tensor (batch, layers, heads); got {type(head_scores).__name__}."
        )
    check_plain("head_scores", head_scores)
    if head_scores.shape != shape:
        raise ArgumentError(
            f"`head_scores` must be of shape {shape} (batch, layers, heads); got {tuple(head_scores.shape)}. "
            "Measure each of several targets by itself."
        )
    if not head_scores.isfinite().all():
        raise ArgumentError("`head_scores` must be finite; got NaN or infinity.")
    return head_scores.detach()


def batch_shape(batch: AblatedModel) -> tuple[int, int, int]:
    """Return the numbers of images, layers and heads."""
    return len(batch.logits), batch.num_layers, batch.num_heads


def gather_classes(outputs: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """Take each image's class out of numbers (choices, batch, classes): (batch, choices)."""
    return outputs.gather(2, classes[None, :, None].expand(len(outputs), -1, -1))[..., 0].T


@dataclass(frozen=True, eq=False)
class HeadCorrelation:
    """How far head scores order the heads as their ablation does: Spearman's rank correlation, one number an image.

    Args:
        overall (`torch.Tensor` of shape (batch,)): Over all heads, in [-1, 1]; NaN where all are equal on one side.
        within_layers (`torch.Tensor` of shape (batch,)): The mean over the layers of the correlation inside the
            layer; layers that have none are left out, NaN where all are.
    """

    overall: torch.Tensor
    within_layers: torch.Tensor


@dataclass(frozen=True, eq=False)
class HeadAblation:
    """What each head, taken out by itself, takes from the target's logit.

    Args:
        change (`torch.Tensor` of shape (batch, layers, heads)): The logit with all heads minus the logit without this
            one, in logits: positive where the head spoke for the class. float32, on the images' device.
    """

    change: torch.Tensor

    def correlation(self, head_scores: torch.Tensor, *, magnitude: bool = False) -> HeadCorrelation:
        """Compare scores of the heads with what their ablation does.

        Args:
            head_scores (`torch.Tensor` of shape (batch, layers, heads)): Such as `head_contribution`,
                `head_importance` or `head_score` of an [`Explanation`].
            magnitude (`bool`, defaults to False): Whether to compare magnitudes, which head by head forget the sign.

        Returns:
            [`HeadCorrelation`]: float32, on the device of `change`.

        Raises:
            ArgumentError: If the scores have another shape than `change`, or are not finite.
            ArgumentTypeError: If the scores are no tensor.

        Example:
            >>> ablation = HeadAblation(torch.tensor([[[3.0, 1.0], [0.0, -1.0]]]))
            >>> ablation.correlation(torch.tensor([[[9.0, 2.0], [-1.0, -3.0]]])).overall
            tensor([1.])
            >>> ablation.correlation(torch.tensor([[[9.0, 2.0], [-3.0, -1.0]]])).within_layers
            tensor([0.])
        """
        check_flags(magnitude=magnitude)
        scores = checked_scores(head_scores, tuple(self.change.shape)).to(self.change.device)
        change = self.change
        if magnitude:
            scores, change = scores.abs(), change.abs()
        return HeadCorrelation(
            overall=spearman(scores.flatten(1), change.flatten(1)).to(change),
            within_layers=spearman(scores, change).nanmean(dim=1).to(change),
        )


def head_ablation(
    model: nn.Module,
    pixel_values: torch.Tensor,
    target: ClassTarget = None,
    *,
    ablation: Literal["zero", "mean"] = "zero",
    max_rows: int = 256,
    **model_kwargs: Any,
) -> HeadAblation:
    """Take every head out by itself and see what the target's logit loses.

    What a head's output `A V` is replaced by decides what is asked. "zero" asks what the head brings (Michel, Levy
    and Neubig, "Are Sixteen Heads Really Better than One?", NeurIPS 2019); "mean" what it tells of this image, as
    it keeps what the head says of every image (Wang et al., "Interpretability in the Wild", ICLR 2023).

    Args:
        model (`nn.Module`): An image classifier of transformers, or one wrapped by PEFT; it is left as it was.
        pixel_values (`torch.Tensor` of shape (batch, channels, height, width)): What the image processor makes.
        target: The class of each image, (batch,) ints; an int for all; None for the predicted class.
        ablation (`str`, defaults to "zero"): "zero", or "mean": the mean of the head's outputs over the batch, for
            each token by itself. So with "mean" the images of a batch are measured against each other.
        max_rows (`int`, defaults to 256): How many images the model sees at once at most, the batch once at least.
        **model_kwargs: Handed to the model, such as `interpolate_pos_encoding=True`.

    Returns:
        [`HeadAblation`]: `change` (batch, layers, heads), in logits.

    Raises:
        ArgumentError, ArgumentTypeError, NonFiniteError: If an argument cannot be used, or a logit is not finite.
        UnsupportedModelError: If the model's heads cannot be silenced.

    Example:
        >>> import gmar_hf, gmar_hf.demo
        >>> model, image_processor = gmar_hf.demo.load("vit")
        >>> scene = gmar_hf.demo.scenes(1)[0]
        >>> inputs = image_processor(scene["image"], return_tensors="pt")
        >>> out = gmar_hf.explain(model, inputs["pixel_values"], target=scene["labels"][0])
        >>> ablation = head_ablation(model, inputs["pixel_values"], out.target)
        >>> bool(ablation.correlation(out.head_contribution).overall > 0.8)
        True
    """
    check_whole("max_rows", max_rows, minimum=1)
    with ablated(model, pixel_values, ablation, model_kwargs) as batch:
        _, num_layers, num_heads = shape = batch_shape(batch)
        classes = chosen_classes(target, batch.logits)
        whole = gather_classes(batch.logits[None], classes)
        change = whole.new_empty(shape)
        at_once = torch.arange(num_heads).split(copies_at_once(pixel_values, max_rows))
        for layer in range(num_layers):
            for heads in at_once:
                # Each choice of heads is one head of this layer, the same for all images.
                silent = torch.zeros(len(heads), *shape, dtype=torch.bool)
                silent[torch.arange(len(heads)), :, layer, heads] = True
                change[:, layer, heads] = whole - gather_classes(batch.without(silent), classes)
    return HeadAblation(change.to(pixel_values.device, torch.float32))
