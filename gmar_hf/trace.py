"""One SDPA forward that can be walked back layer by layer."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Literal

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import PreTrainedModel

from .blocks import at_least_float32
from .capture import OFF_THE_INTERFACE, AttentionCall, is_recording, recording, unsupported
from .errors import ArgumentError, NonFiniteError

Start = Literal["value", "output", "head"]
Visit = Callable[[int, torch.Tensor, torch.Tensor | None], None]
_HALF_HEAD_SCALE = 2.0**10  # fp16 gradients of a head that averages thousands of tokens would underflow
_HALF_PEAK = (
    2.0**6
)  # largest fp16 gradient to start the encoder's backward with: 2^10 below overflow, 2^20 above underflow


class Trace:
    """What a forward left behind: the layers' queries, keys, values and outputs, the logits, the head's input.

    The graph holds activations only and begins where `start` says, so that nothing earlier is ever differentiated.

    Args:
        model (`nn.Module`): The classifier, its parameters frozen.
        start: "value", at the first layer's values (for gradients of values and outputs of all layers); "output", at
            the
            first layer's output (for gradients of outputs); "head", behind the last layer's attention (for the
            readout).
    """

    logits: torch.Tensor

    def __init__(self, model: nn.Module, start: Start) -> None:
        self.model = model
        self.layers: list[AttentionCall] = []
        self.outputs: list[
            torch.Tensor
        ] = []  # (batch, heads, tokens, head_dim) a layer; with start "head" none is kept
        self._start = start
        self._hidden: torch.Tensor | None = None

    @property
    def hidden(self) -> torch.Tensor:
        """The last hidden state (batch, tokens, hidden_size) that the backbone hands to the head."""
        if self._hidden is None:
            raise unsupported(self.model, "it has no transformers backbone that returns a `last_hidden_state`")
        return self._hidden

    def run(self, pixel_values: torch.Tensor, **model_kwargs: Any) -> None:
        """Make the forward.

        Args:
            pixel_values (`torch.Tensor` of shape (batch, channels, height, width)): What the model sees.
            **model_kwargs: Handed to the model.

        Raises:
            ArgumentError: If the model refuses the size, or has no logits.
            NonFiniteError: If a logit is NaN or infinite.
            UnsupportedModelError: If the attention cannot be recorded or does not keep one grid of tokens.
        """
        self._batch = pixel_values.shape[0]
        with ExitStack() as stack:
            stack.enter_context(recording(self.model, self))
            for module in self.model.modules():
                if isinstance(module, PreTrainedModel):
                    stack.callback(module.register_forward_hook(self._keep_hidden).remove)
            logits = getattr(self.model(pixel_values=pixel_values, **model_kwargs), "logits", None)
        if not isinstance(logits, torch.Tensor) or logits.ndim != 2:
            raise unsupported(self.model, "it returns no logits of shape (batch, classes)")
        if not self.layers:
            raise unsupported(self.model, OFF_THE_INTERFACE)
        if not logits.isfinite().all():
            rows = (~logits.isfinite().all(dim=1)).nonzero()[:, 0].tolist()
            raise NonFiniteError(
                f"The logits must be finite; got NaN or infinity for image(s) {rows} of the batch. "
                "Check `pixel_values` and the model's weights for NaN, or use bfloat16 or float32 instead of float16."
            )
        if self.hidden.shape[:2] != (self._batch, self.layers[0].query.shape[2]):
            raise unsupported(self.model, "its head does not read the tokens of its attention")
        self.logits = logits

    def begin(self) -> None:
        """Part of the recorder's protocol; a trace sees a single forward."""

    def attend(self, call: AttentionCall) -> tuple[torch.Tensor, None]:
        self._check(call)
        first = not self.layers
        if self._start == "value" and first:
            call.value = call.value.detach().requires_grad_()
        bias = None if call.bias is None else call.bias.to(call.query.dtype)
        output = scaled_dot_product_attention(call.query, call.key, call.value, attn_mask=bias, scale=call.scaling)
        num_layers = getattr(getattr(call.module, "config", None), "num_hidden_layers", 1)
        last = len(self.layers) + 1 == num_layers
        if (self._start == "output" and first) or (self._start == "head" and last):
            output = output.detach().requires_grad_()
        if self._start != "head":
            self.outputs.append(output)
        self.layers.append(call)
        return output, None

    def head_gradient(self, score: torch.Tensor) -> torch.Tensor:
        """Gradient of one scalar an image with respect to the backbone's last hidden state.

        Args:
            score (`torch.Tensor` of shape (batch,)): Made from `logits`.

        Returns:
            `torch.Tensor` of shape (batch, tokens, hidden_size): At least float32.

        Raises:
            ArgumentError: If some image's score does not depend on the hidden state.
        """
        hidden = self.hidden
        if not hidden.requires_grad:
            raise unsupported(
                self.model, f"only {len(self.layers)} of its layers use transformers' attention interface"
            )
        scale = _HALF_HEAD_SCALE if hidden.dtype == torch.float16 else 1.0
        weights = torch.full_like(score, scale)
        (gradient,) = torch.autograd.grad(score, hidden, weights, retain_graph=True, allow_unused=True)
        if gradient is None:
            raise unsupported(self.model, "its logits do not depend on the backbone's `last_hidden_state`")
        gradient = at_least_float32(gradient) / scale
        if not gradient.isfinite().all():
            raise _gradients_not_finite(self.model)
        silent = (gradient.flatten(1) == 0).all(dim=1).nonzero()[:, 0].tolist()
        if silent:
            raise ArgumentError(
                f"`target` must depend on what the model sees; got a score with no gradient for image(s) {silent} "
                "of the "
                "batch. Choose another target, or check that the classifier's weights are not all zero."
            )
        return gradient

    def backward(self, hidden_gradient: torch.Tensor, visit: Visit, *, retain_graph: bool) -> None:
        """Walk back from the last layer to the first.

        Args:
            hidden_gradient (`torch.Tensor` of shape (batch, tokens, hidden_size)): What [`head_gradient`] gave.
            visit (`Callable`): Called for each layer with its index, `dO` and, with start "value", `dV`, both
                (batch, heads, tokens, head_dim), at least float32, in logits per unit.
            retain_graph (`bool`): Whether another backward follows.
        """
        scale = self._scale(hidden_gradient)
        output_grads: dict[int, torch.Tensor] = {}
        with_value = self._start == "value"

        def on_output(index: int, gradient: torch.Tensor) -> None:
            output_grads[index] = (
                at_least_float32(gradient) / scale if scale is not None else at_least_float32(gradient)
            )
            if not with_value:
                visit(index, output_grads.pop(index), None)

        def on_value(index: int, gradient: torch.Tensor) -> None:
            value_grad = at_least_float32(gradient) / scale if scale is not None else at_least_float32(gradient)
            visit(index, output_grads.pop(index), value_grad)

        with ExitStack() as stack:
            for index, (layer, output) in enumerate(zip(self.layers, self.outputs, strict=True)):
                stack.callback(output.register_hook(lambda gradient, i=index: on_output(i, gradient)).remove)
                if with_value:
                    stack.callback(layer.value.register_hook(lambda gradient, i=index: on_value(i, gradient)).remove)
            start = self.layers[0].value if with_value else self.outputs[0]
            if scale is not None:
                hidden_gradient = hidden_gradient * scale[:, 0]
            upstream = hidden_gradient.to(self.hidden.dtype)
            torch.autograd.grad(self.hidden, start, upstream, retain_graph=retain_graph)

    def _scale(self, hidden_gradient: torch.Tensor) -> torch.Tensor | None:
        """A power of two for every image, (batch, 1, 1, 1), by which fp16 gradients are lifted out of underflow."""
        if self.hidden.dtype != torch.float16:
            return None
        peak = hidden_gradient.abs().amax(dim=(1, 2))
        return torch.exp2(torch.floor(torch.log2(_HALF_PEAK / peak)))[:, None, None, None]

    def _keep_hidden(self, module: nn.Module, inputs: Any, output: Any) -> None:
        hidden = getattr(output, "last_hidden_state", None)
        if is_recording(self) and isinstance(hidden, torch.Tensor) and hidden.ndim == 3:
            self._hidden = hidden  # the outermost model inside the classifier is the last to return

    def _check(self, call: AttentionCall) -> None:
        batch, heads, tokens, _ = call.query.shape
        expected = (self._batch, *(self.layers[0].query.shape[1:3] if self.layers else (heads, tokens)))
        if (batch, heads, tokens) != expected or call.key.shape[:3] != call.query.shape[:3]:
            raise unsupported(
                self.model,
                "its attention is not over one grid of the same tokens and heads in every layer "
                f"(queries {tuple(call.query.shape)}, keys {tuple(call.key.shape)}, expected {expected})",
            )


def _gradients_not_finite(model: nn.Module) -> NonFiniteError:
    return NonFiniteError(
        "The gradients must be finite; got NaN or infinity. Check the model's weights, or load it with "
        "`dtype=torch.bfloat16` or `torch.float32`: float16 can overflow."
    )
