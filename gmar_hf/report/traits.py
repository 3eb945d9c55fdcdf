"""What heads are like over a data set: where they look and what they say themselves, beside how much they matter."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from gmar_hf.errors import ArgumentError
from gmar_hf.report.moments import Moments
from gmar_hf.report.statistics import HeadStatistics, summarize


@dataclass(frozen=True, kw_only=True)
class Trait:
    """What is known of a trait; the card and the tables take it from here.

    Args:
        heading (`str`): Over a column, with the unit.
        definition (`str`): What it is and where it comes from, in Markdown.
    """

    heading: str
    definition: str


# By the names that `describe_heads` gives them.
TRAITS = {
    "attention_distance": Trait(
        heading="distance (patches)",
        definition="how far from its own place a patch looks, in patches: the distance between patches weighted by "
        "the attention that patches get ([Dosovitskiy et al. 2021](https://arxiv.org/abs/2010.11929), "
        "[Raghu et al. 2021](https://arxiv.org/abs/2108.08810))",
    ),
    "attention_entropy": Trait(
        heading="entropy (nats)",
        definition="the entropy of a patch's attention over all tokens, in nats; 0 for a single token "
        "([Clark et al. 2019](https://arxiv.org/abs/1906.04341))",
    ),
    "prefix_attention": Trait(
        heading="on prefix tokens",
        definition="the share of a patch's attention on class, distillation and register tokens, the resting places "
        "of heads with nothing to say ([Darcet et al. 2024](https://arxiv.org/abs/2309.16588))",
    ),
    "direct_effect": Trait(
        heading="direct effect (logits)",
        definition="what the head itself says to the logit, past all later layers: its output through the output "
        "projection, the final norm with its scale held, and the classifier (direct logit attribution, "
        "[Elhage et al. 2021](https://transformer-circuits.pub/2021/framework/index.html)); `contribution` also "
        "counts what later layers make of it",
    ),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class HeadTraits:
    """Mean and spread of every head's traits over the explanations of a survey.

    Args:
        keys (`tuple[str, ...]`): Which of `TRAITS`, in their order.
        moments ([`Moments`] of shape (traits, layers, heads)): With a single group.
        undefined (`str`, *optional*): Why "direct_effect" is not among them.

    Raises:
        ArgumentError: If a key is unknown, or the shape does not fit.
    """

    keys: tuple[str, ...]
    moments: Moments
    undefined: str | None = None

    def __post_init__(self) -> None:
        if not self.keys or not set(self.keys) <= TRAITS.keys() or len(set(self.keys)) < len(self.keys):
            raise ArgumentError(f"`keys` must be different ones of {', '.join(TRAITS)}; got {', '.join(self.keys)}.")
        if self.moments.num_groups != 1 or len(self.moments.shape) != 3 or self.moments.shape[0] != len(self.keys):
            raise ArgumentError(
                f"`moments` must have one group of shape ({len(self.keys)}, layers, heads); got "
                f"{self.moments.num_groups} of {self.moments.shape}."
            )

    @cached_property
    def statistics(self) -> HeadStatistics:
        """The statistics, by trait."""
        return summarize(self.moments, keys=self.keys)

    def merge(self, other: "HeadTraits") -> "HeadTraits":
        """Return the traits over the explanations of both, those that both have.

        Args:
            other ([`HeadTraits`]): Of the same model, and of other explanations.

        Raises:
            ArgumentError: If the numbers of layers or heads differ.
        """
        shared = tuple(key for key in self.keys if key in other.keys)
        first, second = (traits._only(shared) for traits in (self, other))
        return HeadTraits(keys=shared, moments=first.merge(second), undefined=self.undefined or other.undefined)

    def _only(self, keys: tuple[str, ...]) -> Moments:
        places = [self.keys.index(key) for key in keys]
        return Moments(self.moments.count, self.moments.mean[:, places], self.moments.squares[:, places])

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the tensors as files hold them, by name."""
        return {"traits_mean": self.moments.mean[0], "traits_squares": self.moments.squares[0]}

    def content(self) -> dict[str, Any]:
        """Return what stands beside the tensors, as plain JSON values."""
        return {"keys": list(self.keys), "undefined": self.undefined}

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, torch.Tensor], content: Mapping[str, Any] | None, count: int
    ) -> "HeadTraits | None":
        """Return what [`tensors`] and [`content`] gave, or None of a file without them.

        Args:
            tensors (`Mapping[str, torch.Tensor]`): All tensors of a file.
            content (`Mapping[str, Any]`, *optional*): What stood beside them.
            count (`int`): How many explanations they are of.

        Raises:
            ArgumentError: If they cannot be such traits.
            KeyError: If one of the tensors is missing.
        """
        if content is None:
            return None
        moments = Moments(torch.tensor([count]), tensors["traits_mean"][None], tensors["traits_squares"][None])
        if not (moments.mean.isfinite().all() and moments.squares.isfinite().all()):
            raise ArgumentError("`moments` of the heads' traits must be finite; got NaN or infinity.")
        return cls(keys=tuple(content["keys"]), moments=moments, undefined=content["undefined"])
