"""What is explained: one scalar an image, chosen from the logits."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from gmar_hf.errors import ArgumentError, ArgumentTypeError
from gmar_hf.models.separate_images import are_separate

Target = int | Sequence[int] | Sequence[Sequence[int]] | torch.Tensor | Callable[[torch.Tensor], torch.Tensor] | None


class Choice(NamedTuple):
    """What is explained of a batch.

    Args:
        scores (`list` of `torch.Tensor` of shape (batch,)): The scalars to differentiate, one tensor a target.
        target (`torch.LongTensor` of shape (batch,) or (batch, targets), *optional*): Their classes.
        again (`Callable`): The same scores from other logits (batch, classes) of the same images.
    """

    scores: list[torch.Tensor]
    target: torch.Tensor | None
    again: Callable[[torch.Tensor], list[torch.Tensor]]

    @property
    def classes(self) -> list[torch.Tensor] | list[None]:
        """The classes (batch,) of each of the scores; None for those of a callable."""
        if self.target is None:
            return [None] * len(self.scores)
        return list(self.target.reshape(self.target.shape[0], -1).unbind(dim=1))

    @property
    def has_axis(self) -> bool:
        """Whether results have a targets axis."""
        return self.target is not None and self.target.ndim == 2


def choose_target(target: Target, logits: torch.Tensor) -> Choice:
    """Take from the logits what a user's `target` names.

    Args:
        target: None (the predicted class; of a model with one output, that output), an int, (batch,) or (batch,
            targets) ints, or a callable from logits to one scalar an image.
        logits (`torch.Tensor` of shape (batch, classes)): The model's output, with its graph.

    Raises:
        ArgumentError: If an index is out of range, the shape does not fit the batch, or a callable does not return one
            differentiable scalar an image, of that image's logits only.
        ArgumentTypeError: If `target` is of another kind.
    """
    if callable(target):
        return Choice([_called(target, logits)], None, lambda logits: [_called(target, logits)])
    indices = logits.detach().argmax(dim=-1) if target is None else _checked_indices(target, logits)
    return Choice(class_scores(logits, indices), indices, lambda logits: class_scores(logits, indices))


def class_scores(logits: torch.Tensor, indices: torch.Tensor) -> list[torch.Tensor]:
    """Take the logits (batch,) of each column of `indices`, which are (batch,) or (batch, targets)."""
    columns = indices.reshape(logits.shape[0], -1).unbind(dim=1)
    return [logits.gather(1, column[:, None])[:, 0] for column in columns]


def _checked_indices(target: Any, logits: torch.Tensor) -> torch.Tensor:
    # Whatever torch makes a tensor of, if it holds whole numbers.
    batch, classes = logits.shape
    try:
        indices = torch.as_tensor(target, device=logits.device).clone()  # made in inference mode it could not be used
    except (TypeError, ValueError, RuntimeError) as error:
        raise _wrong_kind(target) from error
    empty = indices.numel() == 0  # of which torch makes floating point
    if not empty and (indices.is_floating_point() or indices.is_complex() or indices.dtype == torch.bool):
        raise _wrong_kind(target)
    indices = indices.long()
    if indices.ndim == 0:
        indices = indices.expand(batch)
    # One row an image, and every index a class.
    if indices.ndim > 2 or indices.shape[0] != batch or empty:
        raise ArgumentError(
            f"`target` must have one row for each of the {batch} images, shape ({batch},) or ({batch}, targets); "
            f"got shape {tuple(indices.shape)}. Pass one int for all images, or one entry an image."
        )
    if indices.min() < 0 or indices.max() >= classes:
        wrong = next(index for index in indices.flatten().tolist() if not 0 <= index < classes)
        raise ArgumentError(
            f"`target` must be in [0, {classes - 1}] (the model has {classes} classes); got {wrong}. "
            "Look the index up in `model.config.label2id`."
        )
    return indices


def _called(target: Callable[[torch.Tensor], Any], logits: torch.Tensor) -> torch.Tensor:
    scores = target(logits)
    is_real = isinstance(scores, torch.Tensor) and not scores.is_complex()
    if not is_real or scores.shape != logits.shape[:1] or not scores.requires_grad:
        got = f"shape {tuple(scores.shape)}" if isinstance(scores, torch.Tensor) else type(scores).__name__
        if isinstance(scores, torch.Tensor) and not scores.requires_grad:
            got += " without a gradient"
        if isinstance(scores, torch.Tensor) and not is_real:
            got += " of complex numbers"
        raise ArgumentError(
            f"`target` must turn logits {tuple(logits.shape)} into one differentiable scalar an image, shape "
            f"({logits.shape[0]},); got {got}. Write it like `lambda logits: logits[:, 3] - logits[:, 5]`."
        )
    if not are_separate(scores, logits):
        raise ArgumentError(
            "`target` must make each image's scalar from that image's logits; got one that mixes the images of the "
            "batch. Reduce over `dim=-1`."
        )
    return scores


def _wrong_kind(target: Any) -> ArgumentTypeError:
    return ArgumentTypeError(
        "`target` must be None, an int, a tensor or list of ints of shape (batch,) or (batch, targets), or a "
        f"callable; got {target!r:.80}. The pipeline understands labels; here pass `model.config.label2id[label]`."
    )
