"""What every head says on average, and how the explained logits listen to it: the habit of a head."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol, Self, TypeVar

import torch

from gmar_hf.errors import ArgumentError


def by_position(tensor: torch.Tensor, prefix: int, *, is_mean: bool) -> torch.Tensor:
    """Gather the tokens at positions: every prefix token by itself, and all patch tokens together as the last.

    Args:
        tensor (`torch.Tensor` of shape (..., tokens, head_dim)): Numbers of every token.
        prefix (`int`): How many tokens stand before the patches.
        is_mean (`bool`): Whether the last position has the patches' mean, or their sum.

    Returns:
        `torch.Tensor` of shape (..., prefix + 1, head_dim).

    Example:
        >>> by_position(torch.tensor([[9.0], [1.0], [3.0]]), 1, is_mean=True).tolist()
        [[9.0], [2.0]]
    """
    patches = tensor[..., prefix:, :]
    together = patches.mean(dim=-2, keepdim=True) if is_mean else patches.sum(dim=-2, keepdim=True)
    return torch.cat([tensor[..., :prefix, :], together], dim=-2)


@dataclass(frozen=True, eq=False, repr=False)
class HeadMeans:
    """Means over explanations that centre contributions on the data set.

    With `O` a head's output, `g` the logit's gradient by it and `mu = E[O]`, the mean of `<O - mu, g>` over a data set
    is `E[<O, g>] - <mu, E[g]>`: both means are known after one pass. They are kept by position, every prefix token by
    itself and the patches together, so that they are small whatever the image's size: of ViT-B/16 two tensors of
    12 layers, 12 heads, 2 positions and 64 numbers, 288 KiB in all. Heads that a layer lacks are zero. In stages all
    tokens of the layer's map are its patches, and padding counts nowhere; a class token that a layer lacks is zero.

    Args:
        count (`int`): How many explanations they are of.
        output (`torch.Tensor` of shape (layers, heads, positions, head_dim)): The mean of the head's output at every
            prefix token, and of its mean over the patches; float64, on the CPU.
        gradient (`torch.Tensor` of shape (layers, heads, positions, head_dim)): The mean of the logit's gradient by
            the head's output at every prefix token, and of its sum over the patches; float64, on the CPU.

    Raises:
        ArgumentError: If shapes or dtypes do not fit, or a number is not finite.
    """

    count: int
    output: torch.Tensor
    gradient: torch.Tensor

    def __post_init__(self) -> None:
        if {self.output.dtype, self.gradient.dtype} != {torch.float64}:
            raise ArgumentError("`output` and `gradient` must be float64; they are not.")
        if self.output.ndim != 4 or self.output.shape != self.gradient.shape:
            raise ArgumentError(
                "`output` and `gradient` must both have shape (layers, heads, positions, head_dim); got "
                f"{tuple(self.output.shape)} and {tuple(self.gradient.shape)}."
            )
        if not (self.output.isfinite().all() and self.gradient.isfinite().all()):
            raise ArgumentError("`output` and `gradient` must be finite; got NaN or infinity.")

    @property
    def habit(self) -> torch.Tensor:
        """`<mu, E[g]>` (layers, heads) in logits, float64: what of the mean contribution is the head's habit."""
        return (self.output * self.gradient).sum(dim=(-2, -1))

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the tensors as files hold them, by name."""
        return {"output_mean": self.output, "gradient_mean": self.gradient}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, torch.Tensor], count: int) -> "HeadMeans | None":
        """Return what [`tensors`] wrote, or None of a file without them.

        Args:
            tensors (`Mapping[str, torch.Tensor]`): All tensors of a file.
            count (`int`): How many explanations they are of.

        Raises:
            ArgumentError: If they cannot be such means.
            KeyError: If one of them is missing.
        """
        if "output_mean" not in tensors and "gradient_mean" not in tensors:
            return None
        return cls(count, tensors["output_mean"], tensors["gradient_mean"])

    def merge(self, other: "HeadMeans") -> "HeadMeans":
        """Return the means over the explanations of both.

        Args:
            other ([`HeadMeans`]): Of the same model, and of other explanations.

        Raises:
            ArgumentError: If the shapes differ.
        """
        if other.output.shape != self.output.shape:
            raise ArgumentError(
                f"`other` must have means of shape {tuple(self.output.shape)}; got {tuple(other.output.shape)}."
            )
        count = self.count + other.count
        share = other.count / count
        return HeadMeans(
            count,
            self.output + (other.output - self.output) * share,
            self.gradient + (other.gradient - self.gradient) * share,
        )

    def at_tokens(self, num_tokens: int) -> torch.Tensor:
        """Return the mean outputs of every token, those of the patches' position at all patches.

        Args:
            num_tokens (`int`): Tokens of an image, the prefix included.

        Returns:
            `torch.Tensor` of shape (layers, heads, tokens, head_dim): float64.
        """
        num_prefix = self.output.shape[2] - 1
        patches = self.output[:, :, num_prefix:].expand(-1, -1, num_tokens - num_prefix, -1)
        return torch.cat([self.output[:, :, :num_prefix], patches], dim=2)


class Mergeable(Protocol):
    """What two parts of a survey give together."""

    def merge(self, other: Self) -> Self:
        """Return that of both."""


Part = TypeVar("Part", bound=Mergeable)


def merge_all(parts: Iterable[Part | None]) -> Part | None:
    """Return what all parts of a survey give together; None is a part without explanations."""
    merged = None
    for part in parts:
        if part is not None:
            merged = part if merged is None else merged.merge(part)
    return merged
