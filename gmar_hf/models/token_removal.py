"""Taking patches out of a model's attention for a while, in place of showing something else where they were."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from gmar_hf.errors import ArgumentError
from gmar_hf.models.attention import recording
from gmar_hf.models.hooks import BorrowedHook
from gmar_hf.models.introspection import encoder_layers, setting
from gmar_hf.models.patches import patch_grid
from gmar_hf.models.recorders import AttentionCall, Recorder, is_recording
from gmar_hf.models.refusals import OFF_THE_INTERFACE, unsupported
from gmar_hf.utils.tensors import at_least_float32


class _TokenRemoval(Recorder):
    """Takes keys out of the attention.

    Args:
        model (`nn.Module`): The classifier.
        hidden (`torch.Tensor` of shape (rows, patches), bool): True for the patches that are taken out.
    """

    def __init__(self, model: nn.Module, hidden: torch.Tensor) -> None:
        self._model = model
        self._hidden = hidden
        self._num_tokens: int | None = None  # of the forward under way, once its first layer has told
        self.layers: set[int] = set()  # the ids of the attention modules that have been heard

    def begin(self) -> None:
        self._num_tokens = None

    def prepare(self, call: AttentionCall) -> None:
        num_rows, _, num_tokens, _ = call.query.shape
        num_prefix = num_tokens - self._hidden.shape[1]
        if num_prefix < 0 or call.key.shape[2] != num_tokens or self._num_tokens not in (None, num_tokens):
            raise unsupported(self._model, "its attention does not keep one token for every patch in every layer")
        if num_rows != len(self._hidden):
            raise ArgumentError(
                f"`pixel_values` must have a row for each of the {len(self._hidden)} rows of `hidden`; "
                f"got {num_rows}. Give the model all rows at once."
            )
        self.layers.add(id(call.module))
        self._num_tokens = num_tokens
        self._hide_keys(call, num_prefix)

    def prepare_pooling(self, call: AttentionCall) -> None:
        self._hide_keys(call, call.key.shape[2] - self._hidden.shape[1])

    def _hide_keys(self, call: AttentionCall, num_prefix: int) -> None:
        hidden = self._hidden.to(call.query.device)
        hidden = torch.cat([hidden.new_zeros(len(hidden), num_prefix), hidden], dim=1)[:, None, None, :]
        bias = call.query.new_zeros(()) if call.bias is None else call.bias
        call.bias = torch.where(hidden, -torch.inf, bias)

    def let_heads_read_the_rest(self, module: nn.Module, inputs: Any, output: Any) -> torch.Tensor | None:
        """Replace hidden patches' states behind the last layer by the mean of those that are left: a forward hook."""
        is_states = isinstance(output, torch.Tensor) and output.ndim == 3 and output.shape[1] == self._num_tokens
        if not is_states or not is_recording(module, self):
            return None
        num_prefix = output.shape[1] - self._hidden.shape[1]
        patches = output[:, num_prefix:]
        hidden = self._hidden.to(output.device)[:, :, None]
        num_left = (~hidden).sum(dim=1, keepdim=True).clamp_min(1)
        mean = at_least_float32(patches).masked_fill(hidden, 0).sum(dim=1, keepdim=True) / num_left
        return torch.cat([output[:, :num_prefix], torch.where(hidden, mean.to(output.dtype), patches)], dim=1)


@contextmanager
def without_patches(model: nn.Module, pixel_values: torch.Tensor, hidden: torch.Tensor) -> Iterator[None]:
    """Take patches out of every forward inside the block; the model is as it was after it.

    The hidden patches' tokens are no keys of any layer: an additive bias of minus infinity takes them out of the
    attention, so that no other token reads them. Prefix tokens (class, distillation, registers) always stay. A head
    that averages the patches averages those that are left: hidden ones stand at their mean, at zero where none is
    left. So the logits are those of the sequence without these tokens; with all patches hidden they are the same for
    every image, also in a model without prefix tokens.

    Args:
        model (`nn.Module`): A transformers classifier on the attention interface, or one wrapped by PEFT.
        pixel_values (`torch.Tensor` of shape (rows, channels, height, width)): What the model is going to see.
        hidden (`torch.Tensor` of shape (rows, grid rows, grid columns), bool): True for the patches that are taken
            out of that row.

    Raises:
        ArgumentError: If `hidden` is not one bool for each of the model's patches, or the model sees other rows.
        UnsupportedModelError: If the model's tokens cannot be taken out, at the end of the block at the latest.
    """
    grid = patch_grid(model, pixel_values)
    expected = (len(pixel_values), grid.rows, grid.cols)
    if hidden.shape != expected or hidden.dtype != torch.bool:
        raise ArgumentError(
            f"`hidden` must hold a bool for each of the model's patches, shape {expected}; "
            f"got {hidden.dtype} of shape {tuple(hidden.shape)}. Hide whole patches of the model."
        )
    removal = _TokenRemoval(model, hidden.flatten(1))
    _, layers = encoder_layers(model)
    inside = {id(module) for layer in layers for module in layer.modules()} - {id(layers[-1])}
    with ExitStack() as stack:
        stack.enter_context(recording(model, removal))
        # What the head reads has come from the last layer, perhaps through a norm behind it.
        for module in model.modules():
            if id(module) not in inside:
                stack.callback(module.register_forward_hook(BorrowedHook(removal.let_heads_read_the_rest)).remove)
        yield
    if len(removal.layers) != setting(model, "num_hidden_layers"):
        raise unsupported(model, OFF_THE_INTERFACE)
