"""What the score does when more and more heads are taken out, in the order of head scores or at random."""

from typing import Any, Literal

import torch
from torch import nn

from gmar_hf.metrics.heads import ClassTarget, batch_shape, checked_scores, chosen_classes, gather_classes
from gmar_hf.metrics.perturbation import Curve
from gmar_hf.metrics.scores import FUNCTIONS
from gmar_hf.models.ablation import AblatedModel, ablated
from gmar_hf.utils.checks import check_choice, check_flags, check_seed, check_whole
from gmar_hf.utils.tensors import copies_at_once


def ablation_curve(
    model: nn.Module,
    pixel_values: torch.Tensor,
    target: ClassTarget,
    head_scores: torch.Tensor,
    *,
    most_important_first: bool = True,
    num_steps: int | None = None,
    function: Literal["softmax", "sigmoid", "logit"] = "logit",
    ablation: Literal["zero", "mean"] = "zero",
    max_rows: int = 256,
    **model_kwargs: Any,
) -> Curve:
    """Take out more and more heads, each image in the order of its own scores.

    Scores that foretell what heads do make the target's score fall at once when the most important go first, and
    stand for long when they go last.

    Args:
        model (`nn.Module`): An image classifier of transformers, or one wrapped by PEFT; it is left as it was.
        pixel_values (`torch.Tensor` of shape (batch, channels, height, width)): What the image processor makes.
        target: The class of each image, (batch,) ints; an int for all; None for the predicted class.
        head_scores (`torch.Tensor` of shape (batch, layers, heads)): Such as `head_contribution` of an
            [`Explanation`]; equal ones go layer by layer and head by head.
        most_important_first (`bool`, defaults to True): False begins with the lowest scores.
        num_steps (`int`, *optional*): Step k leaves `round(k * heads / num_steps)` of all heads out; one head a step
            by default.
        function (`str`, defaults to "logit"): What makes scores of logits: "softmax", "sigmoid" or "logit".
        ablation (`str`, defaults to "zero"): What stands for a head's output: "zero", or "mean" over the batch.
        max_rows (`int`, defaults to 256): How many images the model sees at once at most, the batch once at least.
        **model_kwargs: Handed to the model.

    Returns:
        [`Curve`]: `shares` (num_steps + 1,) of the heads left out, from 0 to 1; `scores` (batch, num_steps + 1) of
            the target; `auc` (batch,). float32, on the images' device.

    Raises:
        ArgumentError, ArgumentTypeError, NonFiniteError: If an argument cannot be used, or a logit is not finite.
        UnsupportedModelError: If the model's heads cannot be silenced.

    Example:
        >>> import gmar_hf, gmar_hf.demo
        >>> model, image_processor = gmar_hf.demo.load("vit")
        >>> scene = gmar_hf.demo.scenes(1)[0]
        >>> inputs = image_processor(scene["image"], return_tensors="pt")
        >>> out = gmar_hf.explain(model, inputs["pixel_values"], target=scene["labels"][0])
        >>> curve = ablation_curve(model, inputs["pixel_values"], out.target, out.head_contribution, num_steps=8)
        >>> curve.scores.shape, bool(curve.scores[0, 1] < curve.scores[0, 0])
        (torch.Size([1, 9]), True)
    """
    _check_curve(function, num_steps, max_rows)
    with ablated(model, pixel_values, ablation, model_kwargs) as batch:
        scores = checked_scores(head_scores, batch_shape(batch)).cpu()
        classes = chosen_classes(target, batch.logits)
        copies = copies_at_once(pixel_values, max_rows)
        curve = _take_out(batch, classes, scores, most_important_first, num_steps, function, copies)
    return Curve(curve.shares.to(pixel_values.device), curve.scores.to(pixel_values.device))


def random_ablation_curve(
    model: nn.Module,
    pixel_values: torch.Tensor,
    target: ClassTarget = None,
    *,
    num_orders: int = 5,
    seed: int = 0,
    num_steps: int | None = None,
    function: Literal["softmax", "sigmoid", "logit"] = "logit",
    ablation: Literal["zero", "mean"] = "zero",
    max_rows: int = 256,
    **model_kwargs: Any,
) -> Curve:
    """Take out more and more heads in orders drawn by chance, each image in its own: the mean over the orders.

    Args:
        model (`nn.Module`): An image classifier of transformers, or one wrapped by PEFT; it is left as it was.
        pixel_values (`torch.Tensor` of shape (batch, channels, height, width)): What the image processor makes.
        target: The class of each image, (batch,) ints; an int for all; None for the predicted class.
        num_orders (`int`, defaults to 5): How many orders an image gets.
        seed (`int`, defaults to 0): Of the orders; no other random state is read or changed.
        num_steps (`int`, *optional*): Step k leaves `round(k * heads / num_steps)` of all heads out; one head a step
            by default.
        function (`str`, defaults to "logit"): What makes scores of logits: "softmax", "sigmoid" or "logit".
        ablation (`str`, defaults to "zero"): What stands for a head's output: "zero", or "mean" over the batch.
        max_rows (`int`, defaults to 256): How many images the model sees at once at most, the batch once at least.
        **model_kwargs: Handed to the model.

    Returns:
        [`Curve`]: `shares` (num_steps + 1,) of the heads left out, from 0 to 1; `scores` (batch, num_steps + 1) of
            the target, the mean over the orders; `auc` (batch,). float32, on the images' device.

    Raises:
        ArgumentError, ArgumentTypeError, NonFiniteError: If an argument cannot be used, or a logit is not finite.
        UnsupportedModelError: If the model's heads cannot be silenced.
    """
    _check_curve(function, num_steps, max_rows)
    check_whole("num_orders", num_orders, minimum=1)
    check_seed("seed", seed)
    generator = torch.Generator().manual_seed(seed)
    with ablated(model, pixel_values, ablation, model_kwargs) as batch:
        classes = chosen_classes(target, batch.logits)
        copies = copies_at_once(pixel_values, max_rows)
        random_scores = (torch.rand(batch_shape(batch), generator=generator, device="cpu") for _ in range(num_orders))
        curves = [_take_out(batch, classes, scores, True, num_steps, function, copies) for scores in random_scores]
    scores = torch.stack([curve.scores for curve in curves]).mean(dim=0)
    return Curve(curves[0].shares.to(pixel_values.device), scores.to(pixel_values.device))


def _take_out(
    batch: AblatedModel,
    classes: torch.Tensor,
    head_scores: torch.Tensor,
    most_important_first: bool,
    num_steps: int | None,
    function: str,
    copies: int,
) -> Curve:
    """Make one curve from scores (batch, layers, heads) on the CPU, of so many choices of heads at once."""
    check_flags(most_important_first=most_important_first)
    total = head_scores[0].numel()
    num_steps = total if num_steps is None else num_steps
    order = head_scores.flatten(1).argsort(dim=1, descending=most_important_first, stable=True)
    rank = order.argsort(dim=1).view(head_scores.shape)
    counts = torch.tensor([round(step * total / num_steps) for step in range(num_steps + 1)])

    scores = [gather_classes(FUNCTIONS[function](batch.logits[None]), classes)]
    for some_counts in counts[1:].split(copies):
        logits = batch.without(rank < some_counts[:, None, None, None])
        scores.append(gather_classes(FUNCTIONS[function](logits), classes))
    return Curve(counts / total, torch.cat(scores, dim=1).float())


def _check_curve(function: str, num_steps: int | None, max_rows: int) -> None:
    check_choice("function", function, FUNCTIONS)
    check_whole("max_rows", max_rows, minimum=1)
    if num_steps is not None:
        check_whole("num_steps", num_steps, minimum=1)
