"""The maps that `explain` makes, a row a method: everything that is known of it. Nothing here needs torch.

This is one reading of GMAR (Jo, Jang, Park, ICIP 2025, arXiv 2504.19414), of which the abstract and reviews are
public: head weights per layer and image, half-and-half residual, last layer on the left. Public re-readings differ on
all three.
"""

import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from gmar_hf.utils.checks import check_choice

if TYPE_CHECKING:
    import torch

    from gmar_hf.explanation.steps import LayerView

    Step = Callable[[torch.Tensor, LayerView], torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class Method:
    """How a map is made, from the last layer to the first.

    Args:
        summary (`str`): One line about it, for help and documentation.
        step_name (`str`): The function that takes the row above a layer through it, as "module:function".
        weights: Which head weights the step sees and `head_importance` shows: "gradient" (GMAR's), "uniform" or None.
        needs: What of the backward the step reads: "output_grad", "token_contribution", or None for one forward.
        from_readout (`bool`, defaults to True): Whether the row begins as the readout; else it begins at zero.
    """

    summary: str
    step_name: str
    weights: Literal["gradient", "uniform"] | None
    needs: Literal["output_grad", "token_contribution"] | None
    from_readout: bool = True

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
        ArgumentError: If there is no method of that name; the message lists the names there are.
    """
    check_choice("method", name, METHODS)
    return METHODS[name]
