"""What one user is looking at, and how it is made: a picture, the model's labels for it, the maps of one label."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from PIL import Image
from refusals import Refusal

import gmar_hf

NUM_LABELS = 6
MAX_NAMES = 1000  # of labels to choose from in "and not"


@dataclass(frozen=True, kw_only=True)
class MapKind:
    """What is said of a method.

    Args:
        title (`str`): In plain words.
        about (`str`): What its colours mean.
    """

    title: str
    about: str


MAPS = {
    "recommended": MapKind(
        title="For and against",
        about="which patches raise the score of this label and which lower it. On photographs of a real model it was "
        "ahead of gradient rollout.",
    ),
    "gmar": MapKind(
        title="Where it looks",
        about="attention through all layers, heads that matter more for this label counted more. Much the same for "
        "every label.",
    ),
    "contribution": MapKind(
        title="For and against, in one step",
        about="as the first, by one pass in place of two.",
    ),
    "gradient-rollout": MapKind(
        title="Attention that helps",
        about="attention through all layers, only what would raise this label's score.",
    ),
    "rollout": MapKind(
        title="Attention alone",
        about="attention through all layers, all heads alike: the same for every label.",
    ),
}
ALWAYS = ("recommended", "gmar")
WITH_HEADS = "recommended"
"""The method whose heads the matrix shows."""


@dataclass(frozen=True, kw_only=True)
class Label:
    """One of the labels that the model ranks first.

    Args:
        name (`str`): The model's.
        score (`float`): What it says of the picture.
        target (`int`): The class.
    """

    name: str
    score: float
    target: int


@dataclass(frozen=True, kw_only=True)
class Look:
    """What one user sees. A new one takes its place at each step; none is ever changed.

    Args:
        model (`str`): Its name.
        picture (PIL image): What was explained.
        labels (`Sequence[Label]`): The best, in order.
        names (`Mapping[int, str]`): All labels of the model.
        results (`Mapping[str, Any]`): By method, what the pipeline gave for the chosen label.
    """

    model: str
    picture: Image.Image
    labels: Sequence[Label]
    names: Mapping[int, str]
    results: Mapping[str, Any] = field(default_factory=dict)

    @property
    def others(self) -> list[tuple[str, int]]:
        """The labels to compare with: the best ones first, then the model's others."""
        best = [(label.name, label.target) for label in self.labels]
        more = [(name, target) for target, name in self.names.items() if (name, target) not in best]
        return (best + more)[:MAX_NAMES]


def rank_labels(explainer: gmar_hf.GMARExplainer, model: str, picture: Image.Image) -> Look:
    """Ask the model for its labels: one forward.

    Args:
        explainer ([`GMARExplainer`]): The model's pipeline.
        model (`str`): Its name.
        picture (PIL image): What it looks at.
    """
    results = explainer(picture, method="rollout", top_k=NUM_LABELS, return_heatmap=False)
    labels = [Label(name=result["label"], score=result["score"], target=result["target"]) for result in results]
    return Look(model=model, picture=picture, labels=labels, names=dict(explainer.model.config.id2label))


def explain_label(
    look: Look,
    explainer: gmar_hf.GMARExplainer,
    *,
    target: int,
    versus: int | None = None,
    more_maps: Sequence[str] = (),
) -> Look:
    """Explain one of the labels, by all methods that are shown.

    Args:
        look ([`Look`]): Whose picture.
        explainer ([`GMARExplainer`]): Its model's pipeline.
        target (`int`): The label's class.
        versus (`int`, *optional*): Another class: why the target and not this one.
        more_maps (`Sequence[str]`, defaults to `()`): Methods beside those that are always shown.

    Raises:
        Refusal: If the model has no such labels, or they are the same.
    """
    if target not in look.names or (versus is not None and versus not in look.names):
        raise Refusal("The label must be one of the model's. Explain the picture again.")
    if target == versus:
        raise Refusal("A label cannot be compared with itself. Choose another one under “and not”.")
    methods = [*ALWAYS, *(name for name in MAPS if name in more_maps and name not in ALWAYS)]
    against = {} if versus is None else {"versus": versus}
    results = explainer(
        look.picture, method=methods, target=target, return_head_maps=True, return_heatmap=False, **against
    )
    return replace(look, results={result["method"]: result for result in results})
