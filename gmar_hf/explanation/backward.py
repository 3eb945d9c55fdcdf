"""One target's way back through a pass: what each layer adds to the maps and to the head scores."""

from collections.abc import Callable, Sequence

import torch

from gmar_hf.explanation.finiteness import check_encoder_gradients
from gmar_hf.explanation.head_gradient import HeadGradient
from gmar_hf.explanation.head_scores import head_weights
from gmar_hf.explanation.layer import LayerGradients
from gmar_hf.explanation.request import Request
from gmar_hf.explanation.steps import StepView
from gmar_hf.explanation.trace import Trace
from gmar_hf.models.patches import Grid, to_grid, tokens_of
from gmar_hf.models.window_layout import spread
from gmar_hf.utils.missing_heads import stack_layers


class Walk:
    """Collects, layer by layer from the last to the first, what one request asks for.

    Args:
        request ([`Request`]): What is asked for.
        readout (`torch.Tensor` of shape (batch, tokens)): How much the head reads of each token; rows sum to one.
        given_weights (`torch.Tensor` of shape (batch, layers, heads), *optional*): Head weights in place of the
            gradient's.
        token_weights (`torch.Tensor` of shape (tokens,), *optional*): The share of each token's contribution that
            counts, where several walks are summed.
    """

    def __init__(
        self,
        request: Request,
        readout: torch.Tensor,
        given_weights: torch.Tensor | None = None,
        token_weights: torch.Tensor | None = None,
    ) -> None:
        self._request = request
        self._method = request.describes
        self._step = self._method.step
        self._readout = readout
        self._given_weights = given_weights
        self._token_weights = token_weights
        self._row = readout if self._method.from_readout else torch.zeros_like(readout)
        # What each layer visited has given, by the layer's index.
        self._head_score: dict[int, torch.Tensor] = {}
        self._head_importance: dict[int, torch.Tensor] = {}
        self._head_contribution: dict[int, torch.Tensor] = {}
        self._head_contribution_centred: dict[int, torch.Tensor] = {}
        self._token_contribution: dict[int, torch.Tensor] = {}

    def visit(self, layer: LayerGradients) -> None:
        """Take from a layer what is asked for."""
        request, index = self._request, layer.index
        if layer.head_contribution is not None and layer.head_contribution_centred is not None:
            self._head_contribution[index] = layer.head_contribution
            self._head_contribution_centred[index] = layer.head_contribution_centred
        if self._token_weights is not None:
            by_token = layer.token_contribution(0.0)
            assert by_token is not None
            self._head_contribution[index] = (by_token * self._token_weights.to(by_token)).sum(dim=-1)
        if request.return_head_maps:
            by_token = layer.token_contribution(request.value_reference or 0.0)
            assert by_token is not None
            self._token_contribution[index] = self._weighted(by_token)
        weights = self._weigh_heads(layer)
        if request.return_maps and index >= request.start_layer:
            step = StepView(
                layer=layer,
                residual_weight=request.residual_weight,
                head_weights=weights,
                value_reference=request.value_reference,
            )
            row = self._row.to(layer.call.query.device)  # with a device map the layers live apart
            self._row = self._step(row, step)

    def results(self, grid: Grid) -> dict[str, torch.Tensor | None]:
        """Return the tensors of an [`Explanation`] by field name, without a targets axis; None where not asked for.

        Args:
            grid ([`Grid`]): Where the patches stand among the tokens.

        Raises:
            NonFiniteError: If a gradient was NaN or infinite.
        """
        by_token = _by_layer(self._token_contribution)
        row = self._row if self._method.from_readout else self._weighted(self._row)
        check_encoder_gradients(row, self._readout)
        return {
            "attribution": to_grid(row, grid) if self._request.return_maps else None,
            "head_importance": _by_layer(self._head_importance),
            "head_score": _by_layer(self._head_score),
            "head_contribution": _by_layer(self._head_contribution),
            "head_contribution_centred": _by_layer(self._head_contribution_centred),
            "head_maps": None if by_token is None else to_grid(by_token, grid),
            "prefix_contribution": None if by_token is None else by_token[..., : grid.prefix],
            "readout": self._readout,
        }

    def _weighted(self, by_token: torch.Tensor) -> torch.Tensor:
        return by_token if self._token_weights is None else by_token * self._token_weights.to(by_token)

    def _weigh_heads(self, layer: LayerGradients) -> torch.Tensor | None:
        """Return the layer's head weights (batch, heads) by the method's rule; None where it has none."""
        query = layer.call.query
        if self._method.weights is None:
            return None
        if self._method.weights == "uniform":
            batch, heads = query.shape[:2]
            weights = self._row.new_full((batch, heads), 1 / heads, device=query.device)
        elif self._given_weights is not None:
            weights = self._given_weights[:, layer.index].to(query.device)
        else:
            norms = layer.gradient_norm(self._request.norm)
            weights = head_weights(norms)
            self._head_score[layer.index] = norms * layer.gradient_size
        self._head_importance[layer.index] = weights
        return weights


def go_back(
    trace: Trace,
    head_gradient: HeadGradient,
    visitors: Sequence[Callable[[LayerGradients], None]],
    *,
    retain_graph: bool,
) -> None:
    """Show every layer to all visitors, the last one first, with one backward if the trace's graph has one.

    Args:
        trace ([`Trace`]): A forward.
        head_gradient ([`HeadGradient`]): The explained score's gradient at the backbone's last hidden state.
        visitors (`Sequence` of `Callable`): What collects, such as [`Walk.visit`].
        retain_graph (`bool`): Whether another backward over the same trace follows.
    """
    grid = trace.grid

    def visit(index: int, output_grad: torch.Tensor | None, value_grad: torch.Tensor | None) -> None:
        call = trace.layers[index]
        layer = LayerGradients(
            call=call,
            index=index,
            is_last=index + 1 == len(trace.layers),
            output=None if output_grad is None else trace.outputs[index].detach(),
            output_grad=output_grad,
            value_grad=value_grad,
            gradient_size=head_gradient.size.to(call.query.device),
            attention_scale=trace.attention_scale,
            grid=grid,
        )
        for visitor in visitors:
            visitor(layer)

    if trace.has_backward:
        trace.backward(head_gradient, visit, retain_graph=retain_graph)
        return
    for index in reversed(range(len(trace.layers))):
        visit(index, None, None)


def readout_of(head_gradient: HeadGradient, trace: Trace) -> torch.Tensor:
    """Return how much the head reads of each token (batch, tokens): the gradient's norms, as shares of one.

    Of layers in stages "tokens" are the patches, and before them what is off the map, see [`Trace.grid`].
    """
    norms = tokens_of(head_gradient.relative).norm(dim=-1)
    shares = norms / norms.sum(dim=-1, keepdim=True)
    layout, grid = trace.layers[-1].layout, trace.grid
    if layout is None or grid is None:
        return shares
    # The head reads the merged tokens of the last map, its class tokens, and no padding.
    last = layout.of_outputs
    prefix, on_the_map = shares.tensor_split([last.num_prefix], dim=1)
    by_patch = spread(last.by_place(on_the_map), last, grid)
    return torch.cat([prefix.sum(dim=1, keepdim=True), by_patch], dim=1) if grid.prefix else by_patch


def _by_layer(tensors: dict[int, torch.Tensor]) -> torch.Tensor | None:
    """Stack per-layer tensors (batch, heads, ...) as (batch, layers, heads, ...); heads that a layer lacks are NaN.

    Raises:
        NonFiniteError: If a number of a head that there is is NaN or infinite.
    """
    if not tensors:
        return None
    by_layer = [tensors[index].to(tensors[0].device) for index in sorted(tensors)]
    stacked = stack_layers(by_layer)
    has_all = all(tensor.shape[1] == stacked.shape[2] for tensor in by_layer)
    check_encoder_gradients(*([stacked] if has_all else by_layer))
    return stacked
