"""Hands a model's attention calls to recorders, through transformers' attention interface or as `off_interface` knows.

One function is registered, under the name `gmar_hf`. While a model is recorded its configs name that function; which
recorders get a call is told by a context variable and by the module that calls. A module that no recorder waits for (a
second model built from the same config, another thread's model) computes what its own implementation would have
computed. Models that do not go through the interface are heard otherwise: timm's, see `timm_recording`.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, NoReturn

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedConfig, PreTrainedModel
from transformers.masking_utils import eager_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from gmar_hf.errors import ArgumentError, ArgumentTypeError
from gmar_hf.models.freezing import Borrowed, Undo
from gmar_hf.models.implementations import check_implementations
from gmar_hf.models.introspection import CAUSAL, unsupported
from gmar_hf.models.off_interface import has_reader, reroute
from gmar_hf.models.recorders import Recorder, call_of, heard, is_recording, record, recorders_of
from gmar_hf.models.timm_models import is_timm
from gmar_hf.models.timm_recording import overheard
from gmar_hf.models.windows import config_around, windows_known

IMPLEMENTATION = "gmar_hf"
_own_implementation: dict[int, str | None] = {}  # of every config that is switched now, by its id


class _Hook:
    """A hook of a module while it is recorded; a copy of the module shares it, a file cannot hold it."""

    def __init__(self, function: Callable[..., None]) -> None:
        self._function = function

    def __call__(self, *args: Any) -> None:
        self._function(*args)

    def __deepcopy__(self, memo: Any) -> "_Hook":
        return self

    def __reduce__(self) -> NoReturn:
        raise ArgumentError(
            "`model` must not be pickled (as by `torch.save`) inside `silence_heads` or another block that records "
            "its attention: the file would hold the block's hooks. Save it after the block, or its `state_dict`."
        )


@contextmanager
def recording(model: nn.Module, recorder: Recorder) -> Iterator[None]:
    """Let `recorder` hear of the attention calls of `model` inside the block.

    Args:
        model (`nn.Module`): A `PreTrainedModel`, or a module that holds one (a PEFT wrapper).
        recorder ([`Recorder`]): Takes the calls that this thread's forwards of `model` make.

    Raises:
        ArgumentTypeError: If there is no transformers model in `model`.
        UnsupportedModelError: If its attention implementation is none of transformers' own.
    """
    configs = checked_configs(model)
    check_implementations(model)

    def begin(module: nn.Module, inputs: Any) -> None:
        if is_recording(module, recorder):
            recorder.begin()

    def end(module: nn.Module, inputs: Any, output: Any) -> None:
        hidden = getattr(output, "last_hidden_state", None)
        if is_recording(module, recorder) and isinstance(hidden, torch.Tensor) and hidden.ndim == 3:
            recorder.end(hidden)

    with ExitStack() as stack:
        stack.enter_context(_switched.hold(configs))
        stack.enter_context(_rerouted.hold(filter(has_reader, model.modules())))
        stack.enter_context(overheard.hold(filter(is_timm, model.modules())))
        stack.enter_context(windows_known(model))
        for module in model.modules():
            if isinstance(module, PreTrainedModel):
                stack.callback(module.register_forward_pre_hook(_Hook(begin)).remove)
                stack.callback(module.register_forward_hook(_Hook(end)).remove)
        stack.enter_context(heard(model, recorder))
        yield


def checked_configs(model: nn.Module) -> list[PreTrainedConfig]:
    """Return every config that a module of the model may ask for its attention implementation.

    Raises:
        ArgumentTypeError: If there is no transformers model in `model`.
    """
    if not isinstance(model, nn.Module):
        raise ArgumentTypeError(f"`model` must be a transformers model; got {type(model).__name__}.")
    configs = (getattr(module, "config", None) for module in model.modules())
    found = {id(config): config for config in configs if isinstance(config, PreTrainedConfig)}
    if not found:
        raise ArgumentTypeError(
            f"`model` must be a transformers model or hold one; got {type(model).__name__}. "
            "Load it with `AutoModelForImageClassification.from_pretrained`."
        )
    return list(found.values())


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
    recorders = recorders_of(module)
    if not recorders:
        function = _own_function(module)
        return function(module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **kwargs)
    if kwargs.get("is_causal") or getattr(module, "is_causal", False):
        raise unsupported(module, CAUSAL)
    config = getattr(module, "config", None) or config_around(module)
    call = call_of(module, config, query, key, value, attention_mask, scaling, dropout)
    output, probabilities = record(call, recorders)
    return output.transpose(1, 2).contiguous(), probabilities


def _own_function(module: nn.Module) -> Any:
    """Return what `module` would have called, had its config not been switched for somebody else."""
    config: Any = module.config
    name = _own_implementation.get(id(config))
    if name is None:
        name = config._attn_implementation  # the other thread has switched back in the meantime
    if name == IMPLEMENTATION:  # a copy of a switched config, made inside the block, never had another one
        name = _own_implementation.get(id(config), "sdpa")
    eager = getattr(sys.modules.get(type(module).__module__), "eager_attention_forward", None)
    return ALL_ATTENTION_FUNCTIONS.get_interface(name, eager)


_rerouted = Borrowed(partial(reroute, attention=_attention, is_heard=lambda module: bool(recorders_of(module))))

AttentionInterface.register(IMPLEMENTATION, _attention)
AttentionMaskInterface.register(IMPLEMENTATION, eager_mask)  # without it a padding mask would silently be dropped
