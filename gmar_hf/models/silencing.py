"""Taking heads out of a model for a while: transformers 5 has no `head_mask`."""

import operator
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from gmar_hf.errors import ArgumentError, ArgumentTypeError
from gmar_hf.models.attention import recording
from gmar_hf.models.introspection import attention_layers, encoder_shape, heads_by_layer
from gmar_hf.models.layer_order import LayerOrder
from gmar_hf.models.recorders import AttentionCall, Recorder, is_recording


class _Silencer(Recorder):
    """Sets the outputs of some heads to zero."""

    def __init__(self, model: nn.Module, heads: set[tuple[int, int]]) -> None:
        self.silenced = frozenset(heads)
        self._layers = attention_layers(model) if heads else []
        self._order = LayerOrder(self._layers)

    def begin(self) -> None:
        self._order.begin()

    def end(self, hidden: torch.Tensor) -> None:
        # Layers under gradient checkpointing are computed again in the backward, which must find the heads silent.
        if hidden.requires_grad and any(map(_is_computed_again, self._layers)):
            hidden.register_hook(self._check_backward)

    def _check_backward(self, gradient: torch.Tensor) -> None:
        if not is_recording(self._layers[0], self):
            raise ArgumentError(
                "`model` must not compute its layers again where heads are not silent, as gradient checkpointing does "
                "in a backward after the block of `silence_heads`, or on a GPU. Switch "
                "gradient checkpointing off, or on a CPU make the backward inside the block."
            )

    def edit(self, call: AttentionCall, output: torch.Tensor) -> torch.Tensor:
        layer = self._order.find(call.module)
        silent = [head for head in range(output.shape[1]) if (layer, head) in self.silenced]
        return output.index_fill(1, torch.tensor(silent, device=output.device), 0) if silent else output


def _is_computed_again(layer: nn.Module) -> bool:
    return layer.training and getattr(layer, "gradient_checkpointing", False)


@contextmanager
def silence_heads(model: nn.Module, heads: Iterable[tuple[int, int]]) -> Iterator[None]:
    """Set the outputs of some heads to zero in every forward inside the block; the model is as it was after it.

    Gradients pass the other heads. The heads still compute: what this shows is what the model does without them.
    [`explain`], [`retain_attention`] and all that measures inside the block see the model without them, too. Surveys,
    reports and evaluations made there say which heads were silenced, and are not taken for those of the whole model.
    A copy of the model that is made there (`copy.deepcopy`) has all its heads. With gradient checkpointing make the
    backward inside the block, too.

    Args:
        model (`nn.Module`): A transformers model on the attention interface, or one wrapped by PEFT.
        heads (`Iterable[tuple[int, int]]`): Layers and heads, from 0.

    Raises:
        ArgumentError: If there is no such layer or head. In a forward inside the block, if another attention
            implementation has been set meanwhile; in a backward after it, if gradient checkpointing is on.
        ArgumentTypeError: If `model` is not a transformers model, or `heads` are no pairs.

    Example:
        >>> import torch, gmar_hf, gmar_hf.demo
        >>> model, image_processor = gmar_hf.demo.load("vit")
        >>> pixel_values = torch.zeros(1, 3, 64, 64)
        >>> before = model(pixel_values=pixel_values).logits
        >>> with gmar_hf.silence_heads(model, [(5, 0), (5, 3)]):
        ...     without = model(pixel_values=pixel_values).logits
        >>> bool((without - before).abs().max() > 0)
        True
    """
    wanted = _pairs(heads)
    num_layers, most_heads = encoder_shape(model)
    by_layer = heads_by_layer(model) or (most_heads,) * num_layers
    for layer, head in sorted(wanted):
        num_heads = by_layer[layer] if 0 <= layer < num_layers else most_heads
        if not (0 <= layer < num_layers and 0 <= head < num_heads):
            raise ArgumentError(
                f"`heads` must be pairs of a layer in [0, {num_layers - 1}] and a head in [0, {num_heads - 1}]; "
                f"got {(layer, head)}."
            )
    with recording(model, _Silencer(model, wanted)):
        yield


def _pairs(heads: Iterable[tuple[int, int]]) -> set[tuple[int, int]]:
    pairs = set()
    for pair in heads if isinstance(heads, Iterable) else [heads]:
        try:
            layer, head = pair
            pairs.add((operator.index(layer), operator.index(head)))
        except (TypeError, ValueError) as error:
            raise ArgumentTypeError(
                f"`heads` must be pairs of a layer and a head; got {pair!r:.80}. Of what `top_heads` returns take "
                "`[(layer, head) for layer, head, _ in report.top_heads(3)]`."
            ) from error
    return pairs
