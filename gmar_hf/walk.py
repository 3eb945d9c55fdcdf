"""One target's way back through a trace: what each layer adds to the map and to the head scores."""

import math
from dataclasses import dataclass, fields
from typing import Any

import torch

from .baselines import Baseline
from .errors import ArgumentError, ArgumentTypeError, NonFiniteError
from .head_scores import head_contribution, head_weights, l1_norm, l2_norm, token_contribution
from .masking import PATTERNS
from .methods import LayerView, get_method
from .patches import Grid, to_grid
from .report import HeadImportanceReport
from .seeds import check_seed
from .shared_weights import shared_weights
from .trace import HeadGradient, Start, Trace

NORMS = {"l1": l1_norm, "l2": l2_norm}
MASK_BASELINES = ("blur", "zero", "mean")


@dataclass(frozen=True)
class Request:
    """What a call asks for; what it does not ask for is not computed. Fields as in [`explain`]."""

    method: str = "gmar"
    norm: str = "l1"
    residual_weight: float = 1.0
    start_layer: int = 0
    return_maps: bool = True
    return_head_maps: bool = False
    head_weights: HeadImportanceReport | torch.Tensor | None = None
    num_masks: int = 0
    mask_baseline: Baseline = "blur"
    mask_pattern: str = "pairs"
    seed: int = 0

    def __post_init__(self) -> None:
        get_method(self.method)
        if self.norm not in NORMS:
            raise ArgumentError(f'`norm` must be "l1" or "l2"; got {self.norm!r}.')
        if not _is_number(self.residual_weight) or not 0 <= self.residual_weight < math.inf:
            raise ArgumentError(f"`residual_weight` must be a number of 0 or more; got {self.residual_weight!r}.")
        if not isinstance(self.start_layer, int) or isinstance(self.start_layer, bool) or self.start_layer < 0:
            raise ArgumentError(f"`start_layer` must be a layer's index, 0 or more; got {self.start_layer!r}.")
        self._check_masks()
        if self.head_weights is None:
            return
        if not isinstance(self.head_weights, HeadImportanceReport | torch.Tensor):
            raise ArgumentTypeError(
                f"`head_weights` must be a HeadImportanceReport or a tensor; got {type(self.head_weights).__name__}. "
                "Load it with `HeadImportanceReport.from_pretrained`."
            )
        if get_method(self.method).weights != "gradient":
            raise ArgumentError(
                f'`head_weights` must come with a method that weighs heads by their gradient, "gmar"; got method '
                f"{self.method!r}. Drop one of them."
            )

    def _check_masks(self) -> None:
        if not isinstance(self.num_masks, int) or isinstance(self.num_masks, bool) or self.num_masks < 0:
            raise ArgumentError(f"`num_masks` must be a whole number of 0 or more; got {self.num_masks!r}.")
        check_seed("seed", self.seed)
        if self.mask_pattern not in PATTERNS:
            raise ArgumentError(f'`mask_pattern` must be "pairs" or "partition"; got {self.mask_pattern!r}.')
        if self.mask_pattern == "pairs" and self.num_masks % 2:
            raise ArgumentError(
                f"`num_masks` must be even (masks come in pairs of opposites); got {self.num_masks}. "
                f"Pass {self.num_masks + 1}."
            )
        if self.mask_pattern == "partition" and self.num_masks < 2:
            raise ArgumentError(
                f"`num_masks` must be 2 or more for a partition (each mask hides another part); got {self.num_masks}. "
                "Pass 4."
            )
        if self.num_masks and self.method != "contribution":
            raise ArgumentError(
                f'`num_masks` must come with method "contribution", whose maps are averaged over masked images; got '
                f"method {self.method!r}. Drop one of them."
            )
        if not isinstance(self.mask_baseline, torch.Tensor) and self.mask_baseline not in MASK_BASELINES:
            names = ", ".join(f'"{name}"' for name in MASK_BASELINES)
            raise ArgumentError(
                f"`mask_baseline` must be one of {names}, or a tensor of pixel values; got {self.mask_baseline!r:.80}."
            )

    @property
    def needs(self) -> str | None:
        """What of the backward the map reads: with weights that are given, nothing."""
        return None if self.head_weights is not None else get_method(self.method).needs

    @property
    def start(self) -> Start:
        """Where the graph of the forward has to begin."""
        if self.return_head_maps or (self.needs == "token_contribution" and (self.return_maps or self.num_masks)):
            return "value"
        return "output" if self.needs else "head"

    def settings(self) -> dict[str, Any]:
        """The fields as plain JSON values, by name; `head_weights` apart."""
        found = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "head_weights"}
        if isinstance(self.mask_baseline, torch.Tensor):
            found["mask_baseline"] = f"tensor of shape {tuple(self.mask_baseline.shape)}"
        return found


class Walk:
    """Collects, layer by layer from the last to the first, what a request asks for.

    Args:
        trace ([`Trace`]): A forward whose graph begins at `request.start`.
        request ([`Request`]): What is asked for.
        head_gradient ([`HeadGradient`]): The explained score's gradient at the backbone's last hidden state.
        classes (`torch.Tensor` of shape (batch,), *optional*): The explained classes, for weights from a report; None
            for those of all its images.
        token_weights (`torch.Tensor` of shape (tokens,), *optional*): The share of each token's contribution that
            counts, where several walks are summed.
    """

    def __init__(
        self,
        trace: Trace,
        request: Request,
        head_gradient: HeadGradient,
        classes: torch.Tensor | None = None,
        token_weights: torch.Tensor | None = None,
    ) -> None:
        self._trace = trace
        self._request = request
        self._method = get_method(request.method)
        self._head_gradient = head_gradient
        self._token_weights = token_weights
        self._shared: torch.Tensor | None = None  # weights that were given (batch, layers, heads)
        if request.head_weights is not None:
            self._shared = shared_weights(request.head_weights, request.norm, classes, len(head_gradient.relative))
        norms = head_gradient.relative.norm(dim=-1)
        self.readout = norms / norms.sum(dim=-1, keepdim=True)
        self._row = self.readout if self._method.from_readout else torch.zeros_like(self.readout)
        self._head_score: dict[int, torch.Tensor] = {}
        self._head_importance: dict[int, torch.Tensor] = {}
        self._head_contribution: dict[int, torch.Tensor] = {}
        self._token_contribution: dict[int, torch.Tensor] = {}

    def go(self, *, retain_graph: bool) -> None:
        """Visit every layer, with a backward through the encoder where the request needs one.

        Args:
            retain_graph (`bool`): Whether another walk over the same trace follows.
        """
        if self._request.start != "head":
            self._trace.backward(self._head_gradient.relative, self._visit, retain_graph=retain_graph)
            return
        for index in reversed(range(len(self._trace.layers))):
            self._visit(index, None, None)

    def results(self, grid: Grid) -> dict[str, torch.Tensor | None]:
        """The tensors of an [`Explanation`] by field name, without a targets axis.

        Raises:
            NonFiniteError: If a gradient was NaN or infinite.
        """
        by_token = _by_layer(self._token_contribution) if self._request.return_head_maps else None
        found = {
            "attribution": to_grid(self._row, grid) if self._request.return_maps else None,
            "head_importance": _by_layer(self._head_importance),
            "head_score": _by_layer(self._head_score),
            "head_contribution": _by_layer(self._head_contribution),
            "head_maps": None if by_token is None else to_grid(by_token, grid),
            "prefix_contribution": None if by_token is None else by_token[..., : grid.prefix],
            "readout": self.readout,
        }
        if not all(tensor.isfinite().all() for tensor in found.values() if tensor is not None):
            raise NonFiniteError(
                "The gradients must be finite; got NaN or infinity inside the encoder. Check the model's weights, "
                "or load it in bfloat16 or float32: float16 can overflow."
            )
        return found

    def _visit(self, index: int, output_grad: torch.Tensor | None, value_grad: torch.Tensor | None) -> None:
        call = self._trace.layers[index]
        size = self._head_gradient.size.to(call.query.device)  # with a device map the layers live apart
        if output_grad is not None:
            self._head_contribution[index] = head_contribution(self._trace.outputs[index].detach(), output_grad) * size
        by_token = None
        if value_grad is not None:
            by_token = token_contribution(call.value.detach(), value_grad) * size[:, :, None]
            if self._token_weights is not None:
                by_token = by_token * self._token_weights.to(by_token)
                self._head_contribution[index] = by_token.sum(dim=-1)
            self._token_contribution[index] = by_token
        weights = None
        if self._method.weights == "uniform":
            batch, heads = call.query.shape[:2]
            weights = self._row.new_full((batch, heads), 1 / heads, device=call.query.device)
        elif self._shared is not None:
            weights = self._shared[:, index].to(call.query.device)
        elif self._method.weights == "gradient":
            assert output_grad is not None
            score = NORMS[self._request.norm](output_grad, call.value.detach())
            weights = head_weights(score)
            self._head_score[index] = score * size
        if weights is not None:
            self._head_importance[index] = weights
        if self._request.return_maps and index >= self._request.start_layer:
            view = LayerView(
                call=call,
                is_last=index + 1 == len(self._trace.layers),
                residual_weight=self._request.residual_weight,
                head_weights=weights,
                output_grad=output_grad,
                gradient_size=size,
                token_contribution=by_token,
            )
            self._row = self._method.step(self._row.to(call.query.device), view)


def _by_layer(found: dict[int, torch.Tensor]) -> torch.Tensor | None:
    """Stack per-layer tensors (batch, heads, ...) as (batch, layers, heads, ...)."""
    if not found:
        return None
    device = found[0].device
    return torch.stack([found[index].to(device) for index in sorted(found)], dim=1)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
