"""One target's way back through a trace: what each layer adds to the map and to the head scores."""

import torch

from gmar_hf.explanation.finiteness import check_encoder_gradients
from gmar_hf.explanation.head_scores import head_contribution, head_weights, token_contribution
from gmar_hf.explanation.methods import get_method
from gmar_hf.explanation.request import NORMS, Request
from gmar_hf.explanation.steps import LayerView
from gmar_hf.explanation.trace import HeadGradient, Trace
from gmar_hf.models.patches import Grid, to_grid


class Walk:
    """Collects, layer by layer from the last to the first, what a request asks for.

    Args:
        trace ([`Trace`]): A forward whose graph begins at `request.start`.
        request ([`Request`]): What is asked for.
        head_gradient ([`HeadGradient`]): The explained score's gradient at the backbone's last hidden state.
        given_weights (`torch.Tensor` of shape (batch, layers, heads), *optional*): Head weights in place of the
            gradient's.
        token_weights (`torch.Tensor` of shape (tokens,), *optional*): The share of each token's contribution that
            counts, where several walks are summed.
    """

    def __init__(
        self,
        trace: Trace,
        request: Request,
        head_gradient: HeadGradient,
        given_weights: torch.Tensor | None = None,
        token_weights: torch.Tensor | None = None,
    ) -> None:
        self._trace = trace
        self._request = request
        self._method = get_method(request.method)
        self._step = self._method.step
        self._head_gradient = head_gradient
        self._given_weights = given_weights
        self._token_weights = token_weights
        norms = head_gradient.relative.norm(dim=-1)
        self.readout = norms / norms.sum(dim=-1, keepdim=True)
        self._row = self.readout if self._method.from_readout else torch.zeros_like(self.readout)
        # What each layer visited has given, by the layer's index.
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
        """Return the tensors of an [`Explanation`] by field name, without a targets axis; None where not asked for.

        Args:
            grid ([`Grid`]): Where the patches stand among the tokens.

        Raises:
            NonFiniteError: If a gradient was NaN or infinite.
        """
        by_token = _by_layer(self._token_contribution) if self._request.return_head_maps else None
        results = {
            "attribution": to_grid(self._row, grid) if self._request.return_maps else None,
            "head_importance": _by_layer(self._head_importance),
            "head_score": _by_layer(self._head_score),
            "head_contribution": _by_layer(self._head_contribution),
            "head_maps": None if by_token is None else to_grid(by_token, grid),
            "prefix_contribution": None if by_token is None else by_token[..., : grid.prefix],
            "readout": self.readout,
        }
        check_encoder_gradients(*(tensor for tensor in results.values() if tensor is not None))
        return results

    def _visit(self, index: int, output_grad: torch.Tensor | None, value_grad: torch.Tensor | None) -> None:
        """Take from a layer and its gradients (batch, heads, tokens, head_dim) what is asked for."""
        call = self._trace.layers[index]
        size = self._head_gradient.size.to(call.query.device)  # with a device map the layers live apart
        if output_grad is not None:
            self._head_contribution[index] = head_contribution(self._trace.outputs[index].detach(), output_grad) * size
        if value_grad is not None:
            self._contribute_by_token(index, value_grad, size)
        # The scores are complete; the map goes on from here, in the layers that count.
        weights = self._weigh_heads(index, output_grad, size)
        if self._request.return_maps and index >= self._request.start_layer:
            layer = LayerView(
                call=call,
                is_last=index + 1 == len(self._trace.layers),
                residual_weight=self._request.residual_weight,
                head_weights=weights,
                output_grad=output_grad,
                gradient_size=size,
                token_contribution=self._token_contribution.get(index),
            )
            self._row = self._step(self._row.to(call.query.device), layer)

    def _contribute_by_token(self, index: int, value_grad: torch.Tensor, size: torch.Tensor) -> None:
        value = self._trace.layers[index].value.detach()
        by_token = token_contribution(value, value_grad) * size[:, :, None]
        if self._token_weights is not None:
            by_token = by_token * self._token_weights.to(by_token)
            self._head_contribution[index] = by_token.sum(dim=-1)
        self._token_contribution[index] = by_token

    def _weigh_heads(self, index: int, output_grad: torch.Tensor | None, size: torch.Tensor) -> torch.Tensor | None:
        """Return the layer's head weights (batch, heads) by the method's rule; None where it has none."""
        call = self._trace.layers[index]
        if self._method.weights is None:
            return None
        # Uniform, given, or the shares of the gradient's norms.
        if self._method.weights == "uniform":
            batch, heads = call.query.shape[:2]
            weights = self._row.new_full((batch, heads), 1 / heads, device=call.query.device)
        elif self._given_weights is not None:
            weights = self._given_weights[:, index].to(call.query.device)
        else:
            assert output_grad is not None
            score = NORMS[self._request.norm](output_grad, call.value.detach())
            weights = head_weights(score)
            self._head_score[index] = score * size
        self._head_importance[index] = weights
        return weights


def _by_layer(tensors: dict[int, torch.Tensor]) -> torch.Tensor | None:
    """Stack per-layer tensors (batch, heads, ...) as (batch, layers, heads, ...)."""
    if not tensors:
        return None
    device = tensors[0].device
    return torch.stack([tensors[index].to(device) for index in sorted(tensors)], dim=1)
