"""The maps that `explain` makes, a row a method: everything that is known of it. Nothing here needs torch.

This is one reading of GMAR (Jo, Jang, Park, ICIP 2025, arXiv 2504.19414), of which the abstract and reviews are
public: head weights per layer and image, half-and-half residual, last layer on the left. Public re-readings differ on
all three.
"""

import pkgutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from gmar_hf.errors import ArgumentError
from gmar_hf.utils.checks import check_choice
from gmar_hf.utils.text import did_you_mean, listed, quoted

if TYPE_CHECKING:
    import torch

    from gmar_hf.evaluation.maps.method import MapMethod
    from gmar_hf.explanation.steps import StepView

    Step = Callable[[torch.Tensor, StepView], torch.Tensor]


Points = tuple[tuple[float, float], ...]
"""Scales of attention on the path, and the weight of each."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """How a map is made, from the last layer to the first.

    Args:
        summary (`str`): One line about it, for help and documentation.
        step_name (`str`): The function that takes the row above a layer through it, as "module:function".
        weights: Which head weights the step sees and `head_importance` shows: "gradient" (GMAR's), "uniform" or None.
        needs: What of the backward the step reads: "output_grad", "token_contribution", or None for one forward.
        from_readout (`bool`, defaults to True): Whether the row begins as the readout; else it begins at zero.
        value_reference (`float` or `str`, *optional*): For maps of contributions, what is summed: what each value is
            compared with where nothing else is asked for, see [`explain`].
        num_points (`int`, *optional*): For maps of contributions, where the gradient is taken: at so many points of
            the path along which attention is scaled up from nothing; None at the model as it is.
        own_points (`tuple`): Scales of attention and their weights, which sum to one, in place of Gauss-Legendre's
            where that many points are asked for.
    """

    summary: str
    step_name: str
    weights: Literal["gradient", "uniform"] | None
    needs: Literal["output_grad", "token_contribution"] | None
    from_readout: bool = True
    value_reference: float | Literal["output"] | None = None
    num_points: int | None = None
    own_points: Points = ()

    @property
    def step(self) -> "Step":
        """The function from the row (batch, tokens) above a layer, and the layer, to the row below it."""
        step: Step = pkgutil.resolve_name(self.step_name)
        return step


METHODS: dict[str, Method] = {
    "gmar": Method(
        summary="rollout with every head weighted by the norm of its attention's gradient",
        step_name="gmar_hf.explanation.steps:roll_out",
        weights="gradient",
        needs="output_grad",
    ),
    "contribution": Method(
        summary="what attention to each patch adds to the logit, signed",
        step_name="gmar_hf.explanation.steps:add_contribution",
        weights=None,
        needs="token_contribution",
        from_readout=False,
        value_reference=0.0,
    ),
    "removal": Method(
        summary="what a little less attention to each patch, given to all others, takes from the logit, signed",
        step_name="gmar_hf.explanation.steps:add_contribution",
        weights=None,
        needs="token_contribution",
        from_readout=False,
        value_reference="output",
    ),
    "path": Method(
        summary="contributions averaged while all attention is scaled up from nothing; two passes by default, signed",
        step_name="gmar_hf.explanation.steps:add_contribution",
        weights=None,
        needs="token_contribution",
        from_readout=False,
        value_reference=0.0,
        num_points=2,
    ),
    "recommended": Method(
        summary="what raised and lowered the logit while all attention was switched on, less half of what all tokens "
        "have in common; two passes by default, signed; ahead of gradient rollout on photographs of a real model",
        step_name="gmar_hf.explanation.steps:add_contribution",
        weights=None,
        needs="token_contribution",
        from_readout=False,
        value_reference=0.5,
        num_points=2,
        # Exact for slopes that are linear in the scale. Chosen on photographs of the train folder: Gauss-Legendre's
        # two points lie where attention is nearly off, and nearly on.
        own_points=((1 / 3, 3 / 5), (3 / 4, 2 / 5)),
    ),
    "rollout": Method(
        summary="attention rollout, all heads alike: the same map for every class",
        step_name="gmar_hf.explanation.steps:roll_out",
        weights="uniform",
        needs=None,
    ),
    "gradient-rollout": Method(
        summary="rollout of attention times its gradient, positive parts (Chefer et al. 2021)",
        step_name="gmar_hf.explanation.steps:roll_out_gradient",
        weights=None,
        needs="output_grad",
    ),
    "attention": Method(
        summary="what the classifier's tokens attend to in the last layer, mean over heads",
        step_name="gmar_hf.explanation.steps:attend_in_last_layer",
        weights="uniform",
        needs=None,
    ),
}


def get_method(name: str) -> Method:
    """Look a method up.

    Raises:
        ArgumentError: If there is no method of that name; the message lists the names there are, and of a map that
            `evaluate` knows by this name says how to get it.

    Example:
        >>> get_method("gmar-l2")
        Traceback (most recent call last):
        ...
        gmar_hf.errors.ArgumentError: `method` must be one of "gmar", "contribution", "removal", "path", \
"recommended", "rollout", "gradient-rollout", "attention"; got 'gmar-l2'. In Python pass method="gmar", norm="l2".
    """
    if isinstance(name, str) and name not in METHODS:
        alike = did_you_mean(name, METHODS) or did_you_mean(name, _maps_of_evaluate())
        advice = _how_to_get(name) or alike
        raise ArgumentError(f"`method` must be one of {quoted(METHODS)}; got {name!r:.80}.{advice}")
    check_choice("method", name, METHODS)
    return METHODS[name]


def why_heads_differ(contributing: Iterable[str], weighing: Iterable[str] = ()) -> str:
    """Say which method's strongest heads answer which question, where they are not the same; nothing where they are.

    Args:
        contributing (`Iterable[str]`): Methods whose results rank heads by their contributions.
        weighing (`Iterable[str]`): Methods whose results know the heads' weights alone.

    Example:
        >>> print(why_heads_differ(["recommended", "gmar"]))
        Strongest heads differ between maps, even in sign. recommended: what a head added while all attention was \
switched on; gmar: what the label would lose, to first order, if a head were removed now.
        >>> why_heads_differ(["gmar", "contribution"])
        ''
    """
    names = list(dict.fromkeys(contributing))
    answers = {
        "what a head added while all attention was switched on": [
            name for name in names if METHODS[name].num_points is not None
        ],
        "what the label would lose, to first order, if a head were removed now": [
            name for name in names if METHODS[name].num_points is None
        ],
        "what weight a head has in its layer": list(dict.fromkeys(weighing)),
    }
    said = [f"{listed(members)}: {what}" for what, members in answers.items() if members]
    return f"Strongest heads differ between maps, even in sign. {'; '.join(said)}." if len(said) > 1 else ""


def _how_to_get(name: str) -> str:
    """Say how a map that `evaluate` knows by this name is asked for; nothing where it knows none."""
    row = _maps_of_evaluate().get(name)
    if row is None:
        return ""
    if row.options is None:
        return f" `evaluate` alone draws it: `gmar-hf evaluate --methods {name}`."
    return f" In Python pass {', '.join(f'{option}={_written(value)}' for option, value in row.options.items())}."


def _written(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(value)


def _maps_of_evaluate() -> "dict[str, MapMethod]":
    """Return the maps of the floor above, whose rows need no torch either; they are asked for when a name is wrong."""
    from gmar_hf.evaluation.maps.map_registry import MAP_METHODS

    return MAP_METHODS
