"""What the score does when more and more heads are taken out, in the order of head scores or at random."""

from typing import Any, Literal

import torch
from torch import nn

from gmar_hf.errors import ArgumentError
from gmar_hf.metrics.heads import ClassTarget, checked_scores, chosen_classes
from gmar_hf.metrics.perturbation import Curve
from gmar_hf.metrics.scores import FUNCTIONS
from gmar_hf.models.ablation import AblatedModel, ablated
from gmar_hf.utils.checks import check_seed, check_whole


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
        model, pixel_values, target, ablation, max_rows: As in [`head_ablation`].
        head_scores (`torch.Tensor` of shape (batch, layers, heads)): Such as `head_contribution` of an
            [`Explanation`]; equal ones go layer by layer and head by head.
        most_important_first (`bool`, defaults to True): False begins with the lowest scores.
        num_steps (`int`, *optional*): Step k leaves `round(k * heads / num_steps)` of all heads out; one head a step
            by default.
        function (`str`, defaults to "logit"): What makes scores of logits, as in [`score_function`].
        **model_kwargs: Handed to the model.

    Returns:
        [`Curve`]: `shares` (num_steps + 1,) of the heads left out, from 0 to 1; `scores` (batch, num_steps + 1) of
            the target; `auc` (batch,). float32, on the images' device.

    Raises:
        ArgumentError, ArgumentTypeError, NonFiniteError, UnsupportedModelError: As [`head_ablation`].

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
    with ablated(model, pixel_values, ablation, model_kwargs) as found:
        shape = (len(found.logits), found.num_layers, found.num_heads)
        scores = checked_scores(head_scores, shape).cpu()
        classes = chosen_classes(target, found.logits)
        curve = _take_out(found, classes, scores, most_important_first, num_steps, function, max_rows)
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
    """What [`ablation_curve`] gives for scores drawn by chance: the mean over some orders, each image its own.

    Args:
        model, pixel_values, target, num_steps, function, ablation, max_rows: As in [`ablation_curve`].
        num_orders (`int`, defaults to 5): How many orders an image gets.
        seed (`int`, defaults to 0): Of the orders; no other random state is read or changed.
        **model_kwargs: Handed to the model.

    Returns:
        [`Curve`]: As [`ablation_curve`].

    Raises:
        ArgumentError, ArgumentTypeError, NonFiniteError, UnsupportedModelError: As [`head_ablation`].
    """
    _check_curve(function, num_steps, max_rows)
    check_whole("num_orders", num_orders, minimum=1)
    check_seed("seed", seed)
    generator = torch.Generator().manual_seed(seed)
    with ablated(model, pixel_values, ablation, model_kwargs) as found:
        shape = (len(found.logits), found.num_layers, found.num_heads)
        classes = chosen_classes(target, found.logits)
        curves = [
            _take_out(found, classes, torch.rand(shape, generator=generator), True, num_steps, function, max_rows)
            for _ in range(num_orders)
        ]
    scores = torch.stack([curve.scores for curve in curves]).mean(dim=0)
    return Curve(curves[0].shares.to(pixel_values.device), scores.to(pixel_values.device))


def _take_out(
    found: AblatedModel,
    classes: torch.Tensor,
    head_scores: torch.Tensor,
    most_important_first: bool,
    num_steps: int | None,
    function: str,
    max_rows: int,
) -> Curve:
    """One curve, from scores (batch, layers, heads) on the CPU."""
    batch, num_layers, num_heads = head_scores.shape
    total = num_layers * num_heads
    num_steps = total if num_steps is None else num_steps
    order = head_scores.flatten(1).argsort(dim=1, descending=most_important_first, stable=True)
    rank = order.argsort(dim=1).view(batch, num_layers, num_heads)
    counts = torch.tensor([round(step * total / num_steps) for step in range(num_steps + 1)])

    def score(logits: torch.Tensor) -> torch.Tensor:
        """From logits (choices, batch, classes) to scores (batch, choices)."""
        wanted = classes[None, :, None].expand(len(logits), -1, -1)
        return FUNCTIONS[function](logits).gather(2, wanted)[..., 0].T

    scores = [score(found.logits[None])]
    for some in counts[1:].split(max(1, max_rows // batch)):
        scores.append(score(found.without(rank < some[:, None, None, None])))
    return Curve(counts / total, torch.cat(scores, dim=1).float())


def _check_curve(function: str, num_steps: int | None, max_rows: int) -> None:
    if function not in FUNCTIONS:
        raise ArgumentError(f"`function` must be one of {', '.join(FUNCTIONS)}; got {function!r}.")
    check_whole("max_rows", max_rows, minimum=1)
    if num_steps is not None:
        check_whole("num_steps", num_steps, minimum=1)
