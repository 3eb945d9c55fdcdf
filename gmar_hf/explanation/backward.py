"""One target's way back through a trace: what each layer adds to the map and to the head scores."""

import torch

from gmar_hf.errors import NonFiniteError
from gmar_hf.explanation.head_scores import head_contribution, head_weights, token_contribution
from gmar_hf.explanation.head_weights import shared_weights
from gmar_hf.explanation.methods import LayerView, get_method
from gmar_hf.explanation.request import NORMS, Request
from gmar_hf.explanation.trace import HeadGradient, Trace
from gmar_hf.models.patches import Grid, to_grid


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
