"""From rows of pixel values to one score a row."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import nn

from gmar_hf.errors import ArgumentError, ArgumentTypeError, NonFiniteError
from gmar_hf.models.freezing import frozen
from gmar_hf.models.model_check import checked_model
from gmar_hf.models.model_inputs import check_known_kwargs, checked_pixels
from gmar_hf.utils.checks import check_choice
from gmar_hf.utils.tensors import check_plain

ScoreFunction = Callable[[torch.Tensor], torch.Tensor]
"""Turns pixel values (M, channels, height, width) into scores (M,); the rows are the batch over and over, in order."""

FUNCTIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "softmax": lambda logits: logits.softmax(dim=-1),
    "sigmoid": torch.sigmoid,
    "logit": lambda logits: logits,
}


def score_function(
    model: nn.Module,
    target: torch.Tensor | Sequence[int] | int,
    function: Literal["softmax", "sigmoid", "logit"] = "softmax",
    **model_kwargs: Any,
) -> ScoreFunction:
    """Make the function that metrics ask: the score of each image's target, whatever is hidden in it.

    The model answers in eval mode, and is as it was after every call.

    Args:
        model (`nn.Module`): An image classifier of transformers.
        target (ints of shape (batch,), or an int for all): The class of each image of the batch.
        function (`str`, defaults to "softmax"): What makes scores of logits: "softmax" (probabilities of classes that
            exclude each other), "sigmoid" (of labels that do not), or "logit" (the logits themselves).
        **model_kwargs: Handed to the model, such as `interpolate_pos_encoding=True`; tensors of the batch, such as
            masks, are repeated as it is.

    Returns:
        A function from pixel values (M, channels, height, width) to float32 scores (M,), M being a whole multiple of
            the batch.

    Raises:
        ArgumentError: If there is no such function, the model does not know an argument, or `target` is no row of
            classes; when it is called, also if rows
            or classes do not fit.
        ArgumentTypeError: If `model` is no module or `target` holds no ints.

    Example:
        >>> import torch, gmar_hf.demo
        >>> model, _ = gmar_hf.demo.load("vit")
        >>> score = score_function(model, [0, 3], "sigmoid")
        >>> score(torch.zeros(6, 3, 64, 64)).shape
        torch.Size([6])
    """
    model = checked_model(model)
    check_choice("function", function, FUNCTIONS)
    check_known_kwargs(model, model_kwargs)
    classes = _classes(target)

    def score(pixel_values: torch.Tensor) -> torch.Tensor:
        with torch.no_grad(), frozen(model):
            pixels = checked_pixels(model, pixel_values)
            logits = model(pixel_values=pixels, **_repeated(model_kwargs, len(pixels))).logits.float()
        num_rows, num_classes = logits.shape
        if num_rows % len(classes) != 0:
            raise ArgumentError(
                f"`pixel_values` must repeat the batch of {len(classes)} images, whose targets are known; "
                f"got {num_rows} rows."
            )
        if classes.max() >= num_classes:
            raise ArgumentError(
                f"`target` must be in [0, {num_classes - 1}] (the model has {num_classes} classes); "
                f"got {classes.max()}. Look the index up in `model.config.label2id`."
            )
        wanted = classes.to(logits.device).repeat(num_rows // len(classes))
        return FUNCTIONS[function](logits).gather(1, wanted[:, None])[:, 0]

    return score


def _repeated(model_kwargs: dict[str, Any], num_rows: int) -> dict[str, Any]:
    """Return a model's keyword arguments, tensors of a batch repeated until they have as many rows."""

    def repeat(value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or value.ndim == 0 or len(value) == 0 or num_rows % len(value):
            return value
        return torch.cat([value] * (num_rows // len(value)))

    return {name: repeat(value) for name, value in model_kwargs.items()}


def score_rows(score_fn: ScoreFunction, rows: torch.Tensor) -> torch.Tensor:
    """Ask a user's function for one number a row, without a graph.

    Args:
        score_fn (`Callable`): The user's function.
        rows (`torch.Tensor` of shape (rows, channels, height, width)): What it gets.

    Returns:
        `torch.Tensor` of shape (rows,): As it came, on the rows' device.

    Raises:
        ArgumentError: If there is not one number a row.
        ArgumentTypeError: If it is no function.
        NonFiniteError: If a number is NaN or infinite.
    """
    if not callable(score_fn):
        raise ArgumentTypeError(
            f"`score_fn` must be a function from pixel values to one number a row; got {type(score_fn).__name__}. "
            "Make one with `gmar_hf.metrics.score_function`."
        )
    with torch.no_grad():
        scores = score_fn(rows)
    if not isinstance(scores, torch.Tensor) or scores.shape != rows.shape[:1]:
        got = f"shape {tuple(scores.shape)}" if isinstance(scores, torch.Tensor) else type(scores).__name__
        raise ArgumentError(
            f"`score_fn` must turn pixel values {tuple(rows.shape)} into one number a row, shape ({len(rows)},); "
            f"got {got}. Make one with `gmar_hf.metrics.score_function`."
        )
    check_plain("score_fn(pixel_values)", scores)
    if not scores.isfinite().all():
        raise NonFiniteError(
            "`score_fn` must give finite numbers; got NaN or infinity. Check the model's weights, and the baseline."
        )
    return scores.detach().to(rows.device)


def _classes(target: Any) -> torch.Tensor:
    try:
        classes = torch.as_tensor(target).detach().clone()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ArgumentTypeError(f"`target` must be ints of shape (batch,); got {target!r:.80}.") from error
    if classes.ndim > 1 or classes.numel() == 0:
        raise ArgumentError(
            f"`target` must have shape (batch,), one class an image; got {tuple(classes.shape)}. "
            "Measure each of several targets by itself."
        )
    if classes.is_floating_point() or classes.is_complex() or classes.dtype == torch.bool:
        raise ArgumentTypeError(f"`target` must be ints of shape (batch,); got {target!r:.80}.")
    if classes.min() < 0:
        raise ArgumentError(f"`target` must not be negative; got {classes.min()}.")
    return classes.long().reshape(-1)
