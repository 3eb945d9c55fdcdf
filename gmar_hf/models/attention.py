"""Hands a model's attention calls to recorders, through transformers' attention interface or as `off_interface` knows.

One function is registered, under the name `gmar_hf`. While a model is recorded its configs name that function; which
recorders get a call is told by a context variable and by the module that calls. A module that no recorder waits for (a
second model built from the same config, another thread's model) computes what its own implementation would have
computed.
"""

import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedConfig, PreTrainedModel
from transformers.masking_utils import eager_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from gmar_hf.errors import ArgumentTypeError
from gmar_hf.models.freezing import Borrowed, Undo
from gmar_hf.models.introspection import unsupported
from gmar_hf.models.off_interface import has_reader, reroute

IMPLEMENTATION = "gmar_hf"


@dataclass(kw_only=True)
class AttentionCall:
    """One attention module's call: (batch, heads, tokens, head_dim) tensors, and the bias that is added to the scores.

    Args:
        module (`nn.Module`): The attention module.
        query, key, value (`torch.Tensor` of shape (batch, heads, tokens, head_dim)): As the module made them.
        bias (`torch.Tensor` broadcastable to (batch, heads, tokens, tokens), *optional*): Additive, detached.
        scaling (`float`): Factor of the products of queries and keys.
        dropout (`float`): Probability at which attention is dropped; 0 in eval mode.
    """

    module: nn.Module
    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    bias: torch.Tensor | None
    scaling: float
    dropout: float

    def compute_output(self) -> torch.Tensor:
        """Return the heads' outputs (batch, heads, tokens, head_dim), by `scaled_dot_product_attention`."""
        bias = None if self.bias is None else self.bias.to(self.query.dtype)
        return scaled_dot_product_attention(
            self.query, self.key, self.value, attn_mask=bias, dropout_p=self.dropout, scale=self.scaling
        )


class Recorder:
    """What hears of the attention calls of one model, and may change what goes into them and what comes out.

    Of recorders around each other every one takes part that changes something; of those that compute the attention
    (see [`ComputingRecorder`]) only the innermost does.
    """

    def begin(self) -> None:
        """Hear that a forward of the model, or of a transformers model inside it, begins."""

    def prepare(self, call: AttentionCall) -> None:
        """Change what goes into the attention."""

    def edit(self, call: AttentionCall, output: torch.Tensor) -> torch.Tensor:
        """Return what comes out of the attention, (batch, heads, tokens, head_dim), changed."""
        return output


class ComputingRecorder(Recorder, ABC):
    """A recorder that computes the attention itself, and keeps what it wants of it."""

    @abstractmethod
    def attend(self, call: AttentionCall) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Compute the output (batch, heads, tokens, head_dim), and the probabilities where they are explicit."""


_Recording = tuple[Recorder, frozenset[int]]  # and the ids of the modules whose calls it gets
_recordings: ContextVar[tuple[_Recording, ...]] = ContextVar("gmar_hf_recordings", default=())  # outer ones first
_own_implementation: dict[int, str | None] = {}  # of every config that is switched now, by its id


@contextmanager
def recording(model: nn.Module, recorder: Recorder) -> Iterator[None]:
    """Let `recorder` hear of the attention calls of `model` inside the block.

    Args:
        model (`nn.Module`): A `PreTrainedModel`, or a module that holds one (a PEFT wrapper).
        recorder ([`Recorder`]): Takes the calls that this thread's forwards of `model` make.

    Raises:
        ArgumentTypeError: If there is no transformers model in `model`.
    """
    if not isinstance(model, nn.Module):
        raise ArgumentTypeError(f"`model` must be a transformers model; got {type(model).__name__}.")
    configs = _configs(model)
    if not configs:
        raise ArgumentTypeError(
            f"`model` must be a transformers model or hold one; got {type(model).__name__}. "
            "Load it with `AutoModelForImageClassification.from_pretrained`."
        )

    def begin(module: nn.Module, inputs: Any) -> None:
        if is_recording(module, recorder):
            recorder.begin()

    entry = (recorder, frozenset(map(id, model.modules())))
    with ExitStack() as stack:
        stack.enter_context(_switched.hold(configs))
        stack.enter_context(_rerouted.hold(filter(has_reader, model.modules())))
        for module in model.modules():
            if isinstance(module, PreTrainedModel):
                stack.callback(module.register_forward_pre_hook(begin).remove)
        stack.callback(_forget, entry)
        _recordings.set((*_recordings.get(), entry))
        yield


def is_recording(module: nn.Module, recorder: Recorder) -> bool:
    """Tell whether this thread's calls of `module` go to `recorder` now."""
    return any(each is recorder for each in _recorders(module))


def _recorders(module: nn.Module) -> list[Recorder]:
    """Return the recorders that this module's calls go to, outer ones first; one at most computes."""
    waiting = [recorder for recorder, modules in _recordings.get() if id(module) in modules]
    computing = [id(recorder) for recorder in waiting if isinstance(recorder, ComputingRecorder)]
    return [recorder for recorder in waiting if id(recorder) not in computing[:-1]]


def _forget(entry: _Recording) -> None:
    """Take one entry out, without the variable's own `reset`: blocks may end in any order."""
    _recordings.set(tuple(one for one in _recordings.get() if one is not entry))


def _configs(model: nn.Module) -> list[PreTrainedConfig]:
    """Return every config that a module of the model may ask for its attention implementation."""
    configs = (getattr(module, "config", None) for module in model.modules())
    return list({id(config): config for config in configs if isinstance(config, PreTrainedConfig)}.values())


def _switch(config: Any) -> Undo:
    implementation = config._attn_implementation

    def undo() -> None:
        config._attn_implementation_internal = implementation
        del _own_implementation[id(config)]

    _own_implementation[id(config)] = implementation
    config._attn_implementation_internal = IMPLEMENTATION  # the public setter would write to sub-configs too
    return undo


_switched = Borrowed(_switch)


def _attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Answer transformers' call: (batch, heads, tokens, head_dim) in, (batch, tokens, heads, head_dim) out."""
    # Nobody waits for this module: compute what it would have computed without us.
    recorders = _recorders(module)
    if not recorders:
        function = _own_function(module)
        return function(module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **kwargs)
    if kwargs.get("is_causal") or getattr(module, "is_causal", False):
        raise unsupported(module, "its attention is causal")
    # The recorders see what the module asked of transformers; one of them computes it, or we do.
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    call = AttentionCall(
        module=module,
        query=query,
        key=key,
        value=value,
        bias=_bias(attention_mask, query.dtype),
        scaling=scaling,
        dropout=dropout,
    )
    for recorder in recorders:
        recorder.prepare(call)
    computing = next((recorder for recorder in recorders if isinstance(recorder, ComputingRecorder)), None)
    output, probabilities = (call.compute_output(), None) if computing is None else computing.attend(call)
    for recorder in recorders:
        output = recorder.edit(call, output)
    return output.transpose(1, 2).contiguous(), probabilities


def _bias(mask: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor | None:
    """Return what is added to the scores; detached, as SDPA leaves its fused path for a bias that wants gradients."""
    if mask is None:
        return None
    if mask.dtype == torch.bool:  # a mask of four dimensions arrives as the user made it: True takes part
        return torch.zeros_like(mask, dtype=dtype).masked_fill_(~mask, torch.finfo(dtype).min)
    return mask.detach()


def _own_function(module: nn.Module) -> Any:
    """Return what `module` would have called, had its config not been switched for somebody else."""
    config: Any = module.config
    name = _own_implementation.get(id(config))
    if name is None:
        name = config._attn_implementation  # the other thread has switched back in the meantime
    if name == IMPLEMENTATION:  # a copy of a switched config, made inside the block, never had another one
        name = _own_implementation.get(id(config), "sdpa")
    eager = getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
    return ALL_ATTENTION_FUNCTIONS.get_interface(name, eager)


_rerouted = Borrowed(partial(reroute, attention=_attention, is_heard=lambda module: bool(_recorders(module))))

AttentionInterface.register(IMPLEMENTATION, _attention)
AttentionMaskInterface.register(IMPLEMENTATION, eager_mask)  # without it a padding mask would silently be dropped
