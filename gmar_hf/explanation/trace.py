"""One SDPA forward that can be walked back layer by layer."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Literal

import torch
from torch import nn

from gmar_hf.explanation.finiteness import check_logits
from gmar_hf.explanation.forward_errors import forward_errors_worded
from gmar_hf.explanation.head_gradient import HeadGradient, hidden_gradient, score_slope
from gmar_hf.explanation.lean_attention import lean_output
from gmar_hf.models.attention import recording
from gmar_hf.models.freezing import frozen, gradients_on, weights_at_rest
from gmar_hf.models.gradient_flow import gradients_passing
from gmar_hf.models.introspection import num_layers_of
from gmar_hf.models.model_inputs import logits_of
from gmar_hf.models.patch_places import patches_in_place
from gmar_hf.models.patches import Grid, tokens_of
from gmar_hf.models.recorders import AttentionCall, ComputingRecorder
from gmar_hf.models.refusals import OFF_THE_INTERFACE, miscounted, unsupported
from gmar_hf.models.separate_images import check_head_separates, check_no_batch_statistics
from gmar_hf.models.sparse_backward import zeros_left_out
from gmar_hf.models.window_layout import grid_of
from gmar_hf.utils.tensors import at_least_float32

Start = Literal["value", "output", "head"]
Visit = Callable[[int, torch.Tensor, torch.Tensor | None], None]
NOT_IN_A_ROW = "its `last_hidden_state` does not come from all of its attention layers, one after another"
NO_BACKBONE = "its logits do not depend on the backbone's `last_hidden_state`"


class Trace(ComputingRecorder):
    """What a forward left behind: the layers' queries, keys, values and outputs, the logits, the head's input.

    The graph holds activations only and begins where `start` says, so that nothing earlier is ever differentiated.

    Args:
        model (`nn.Module`): The classifier, its parameters frozen.
        start: "value", at the first layer's values (for gradients of values and outputs of all layers); "output", at
            the first layer's output (for gradients of outputs); "head", behind the last layer's attention (for the
            readout).
        attention_scale (`float`, defaults to 1.0): What every attention layer's output is multiplied by.

    Attributes:
        layers (`list` of [`AttentionCall`]): First layer first.
        outputs (`list` of `torch.Tensor` of shape (batch, heads, tokens, head_dim)): The layers' outputs, times the
            scale; none with start "head".
        logits (`torch.Tensor` of shape (batch, classes)): At least float32; a leaf, to make scores from.
    """

    logits: torch.Tensor

    def __init__(self, model: nn.Module, start: Start, attention_scale: float = 1.0) -> None:
        self.model = model
        self.attention_scale = attention_scale
        self.layers: list[AttentionCall] = []
        self.outputs: list[torch.Tensor] = []
        self._start = start
        self._hidden: torch.Tensor | None = None

    @property
    def has_backward(self) -> bool:
        """Whether the graph reaches into the encoder."""
        return self._start != "head"

    @property
    def hidden(self) -> torch.Tensor:
        """What the backbone hands to the head, its last hidden state: tokens or a map, see [`tokens_of`]."""
        if self._hidden is None:
            raise unsupported(self.model, "it has no transformers backbone that returns a `last_hidden_state`")
        return self._hidden

    @property
    def grid(self) -> Grid | None:
        """Where the patches are, of layers that stand in stages, see [`grid_of`]; None of others."""
        return grid_of(call.layout for call in self.layers)

    def run(self, pixel_values: torch.Tensor, **model_kwargs: Any) -> None:
        """Make the forward.

        Args:
            pixel_values (`torch.Tensor` of shape (batch, channels, height, width)): What the model sees.
            **model_kwargs: Handed to the model.

        Raises:
            NonFiniteError: If a logit is NaN or infinite.
            UnsupportedModelError: If the attention cannot be recorded or does not keep one grid of tokens, if a module
                cuts the gradient, if patches are not where a map would show them, if it normalises over the batch, or
                if there are no logits.
        """
        self._batch = pixel_values.shape[0]
        check_no_batch_statistics(self.model)
        # Every attention call comes to `attend`, every backbone's last hidden state to `end`.
        with ExitStack() as stack:
            stack.enter_context(recording(self.model, self))
            stack.enter_context(gradients_passing(self.model))
            stack.enter_context(patches_in_place(self.model, pixel_values))
            stack.enter_context(zeros_left_out(self.model, self._is_at_last_layer))
            logits = logits_of(self.model, pixel_values, **model_kwargs)
        # The forward is done: was it that of a model which can be explained?
        if not self.layers:
            raise unsupported(self.model, OFF_THE_INTERFACE)
        if len(self.layers) != (num_layers := num_layers_of(self.layers[0].config)):
            raise miscounted(self.model, len(self.layers), num_layers)
        check_logits(logits)
        if tokens_of(self.hidden).shape[:2] != (self._batch, self.layers[-1].num_outputs):
            raise unsupported(self.model, "its head does not read the tokens of its attention")
        self._own_logits = logits
        self.logits = at_least_float32(logits.detach()).requires_grad_()

    def end(self, hidden: torch.Tensor) -> None:
        self._hidden = hidden

    def attend(self, call: AttentionCall) -> tuple[torch.Tensor, None]:
        self._check(call)
        first = not self.layers
        if self._start == "value" and first:
            call.value = call.value.detach().requires_grad_()
        output = self._output_of(call)
        last = len(self.layers) + 1 == num_layers_of(call.config)
        if (self._start == "output" and first) or (self._start == "head" and last):
            output = output.detach().requires_grad_()
        if self._start != "head":
            self.outputs.append(output)
        self.layers.append(call)
        return output, None

    def head_gradient(self, score: torch.Tensor) -> HeadGradient:
        """Differentiate one scalar an image with respect to the backbone's last hidden state.

        Args:
            score (`torch.Tensor` of shape (batch,)): Made from `logits`.

        Returns:
            [`HeadGradient`]

        Raises:
            ArgumentError: If some image's score does not depend on the hidden state.
            NonFiniteError: If a gradient is NaN or infinite.
            UnsupportedModelError: If the logits do not depend on the hidden state, or it on the encoder.
        """
        if not self.hidden.requires_grad:
            raise unsupported(self.model, NOT_IN_A_ROW)
        slope, slope_size = score_slope(score, self.logits)
        gradient = hidden_gradient(self._own_logits, self.hidden, slope, slope_size)
        if gradient is None:
            raise unsupported(self.model, NO_BACKBONE)
        return gradient

    def check_images_are_separate(self) -> None:
        """Refuse a head that makes an image's logits from other images of the batch too.

        Raises:
            UnsupportedModelError: If it does, as far as this batch can tell.
        """
        check_head_separates(self.model, self._own_logits, self.hidden)

    def backward(self, head_gradient: HeadGradient, visit: Visit, *, retain_graph: bool) -> None:
        """Walk back from the last layer to the first, along every path on which the logits depend on the encoder.

        Nearly always that is the last hidden state alone, whose gradient is known already; a head that reads earlier
        layers too has others.

        Args:
            head_gradient ([`HeadGradient`]): What `head_gradient` returned.
            visit (`Callable`): Called for each layer with its index, `dO` and, with start "value", `dV`, both
                (batch, heads, tokens, head_dim), at least float32.
            retain_graph (`bool`): Whether another backward follows.

        Raises:
            UnsupportedModelError: If some layer has no part in the hidden state.
        """
        output_grads: dict[int, torch.Tensor] = {}
        visited = []
        with_value = self._start == "value"

        def on_output(index: int, gradient: torch.Tensor) -> None:
            if with_value:
                output_grads[index] = at_least_float32(gradient)  # until the gradient of the values arrives
            else:
                arrive(index, at_least_float32(gradient), None)

        def on_value(index: int, gradient: torch.Tensor) -> None:
            arrive(index, output_grads.pop(index), at_least_float32(gradient))

        def arrive(index: int, output_grad: torch.Tensor, value_grad: torch.Tensor | None) -> None:
            visited.append(index)
            visit(index, output_grad, value_grad)

        # Autograd runs from the last layer to the first; hooks hand each layer's gradients on as they come.
        with ExitStack() as stack:
            for index, (layer, output) in enumerate(zip(self.layers, self.outputs, strict=True)):
                stack.callback(output.register_hook(partial(on_output, index)).remove)
                if with_value:
                    stack.callback(layer.value.register_hook(partial(on_value, index)).remove)
            # The backward begins at the logits; at the hidden state what arrives gives way to its gradient as it was
            # made, which has a size that half precision holds.
            relative = head_gradient.relative.to(self.hidden.dtype)
            stack.callback(self.hidden.register_hook(lambda gradient: relative).remove)
            start = self.layers[0].value if with_value else self.outputs[0]
            upstream = head_gradient.slope.to(self._own_logits.dtype)
            torch.autograd.grad(self._own_logits, start, upstream, retain_graph=retain_graph, allow_unused=True)
        if visited != list(reversed(range(len(self.layers)))):
            raise unsupported(self.model, NOT_IN_A_ROW)

    def _is_at_last_layer(self) -> bool:
        """Tell whether the attention of all layers but the last is done, and a backward will go further than that."""
        num_layers = num_layers_of(self.layers[0].config) if self.layers else None
        return self.has_backward and num_layers is not None and len(self.layers) + 1 >= num_layers

    def _output_of(self, call: AttentionCall) -> torch.Tensor:
        if self.attention_scale == 0:  # what is multiplied by zero need not be computed
            return call.value.new_zeros(*call.query.shape[:3], call.value.shape[3])
        # In the first layer the graph may begin at the values; in the last one the head may read few tokens.
        is_lean = self.has_backward and (not self.layers or self._is_at_last_layer())
        output = lean_output(call) if is_lean else call.compute_output()
        return output if self.attention_scale == 1 else output * self.attention_scale

    def _check(self, call: AttentionCall) -> None:
        batch, heads, tokens, _ = call.query.shape
        expected = (self._batch, *(self.layers[0].query.shape[1:3] if self.layers else (heads, tokens)))
        expected_keys = expected
        if (layout := call.layout) is not None:
            # In stages every layer has tokens and heads of its own, and may have merged its queries or keys.
            expected = (self._batch * layout.num_windows, heads, layout.of_outputs.places.shape[1])
            expected_keys = (*expected[:2], layout.places.shape[1])
        if (batch, heads, tokens) != expected or call.key.shape[:3] != expected_keys:
            raise unsupported(
                self.model,
                "its attention is not over one grid of the same tokens and heads in every layer "
                f"(queries {tuple(call.query.shape)}, keys {tuple(call.key.shape)}, expected {expected})",
            )


@contextmanager
def traced(
    model: nn.Module,
    pixels: torch.Tensor,
    start: Start,
    model_kwargs: dict[str, Any],
    attention_scale: float = 1.0,
) -> Iterator[Trace]:
    """Make a forward, and keep the model frozen and gradients on inside the block, for the backwards that follow.

    Args:
        model (`nn.Module`): The classifier, checked by `checked_model`.
        pixels (`torch.Tensor` of shape (batch, channels, height, width)): The images, from `checked_pixels`.
        start: Where the graph begins: "value", "output" or "head" of [`Trace`].
        model_kwargs (`dict[str, Any]`): Handed to the model, which must know them; tensors from `usable_kwargs`.
        attention_scale (`float`, defaults to 1.0): What every attention layer's output is multiplied by.

    Raises:
        ArgumentError: If the model refuses images of this size; the message says which it takes. Or if its weights are
            changed inside the block.
        NonFiniteError: If a logit is NaN or infinite.
        UnsupportedModelError: If the model cannot be traced; the message says why.
    """
    with weights_at_rest(model), gradients_on(), frozen(model):
        trace = Trace(model, start, attention_scale)
        with forward_errors_worded(model, pixels, trace.layers, model_kwargs):
            trace.run(pixels, **model_kwargs)
        yield trace
