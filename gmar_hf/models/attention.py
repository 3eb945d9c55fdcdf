"""Hands a model's attention calls to recorders, through transformers' attention interface or as `off_interface` knows.

One function is registered, under the name `gmar_hf`. While a model is recorded its configs name that function; which
recorders get a call is told by a context variable and by the module that calls. A module that no recorder waits for (a
second model built from the same config, another thread's model) computes what its own implementation would have
computed. Models that do not go through the interface are heard otherwise: timm's, see `timm_recording`.
"""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedConfig, PreTrainedModel
from transformers.masking_utils import eager_mask, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from gmar_hf.errors import ArgumentError, ArgumentTypeError
from gmar_hf.models.freezing import Borrowed, Undo
from gmar_hf.models.hooks import BorrowedHook
from gmar_hf.models.implementations import check_implementations
from gmar_hf.models.off_interface import has_reader, reroute
from gmar_hf.models.recorders import Recorder, call_of, heard, is_recording, record, recorders_of
from gmar_hf.models.refusals import CAUSAL, unsupported
from gmar_hf.models.timm_models import is_timm
from gmar_hf.models.timm_recording import overheard
from gmar_hf.models.windows import config_around, windows_known

IMPLEMENTATION = "gmar_hf"


class _Switched(str):
    """The name that a config bears while its model is recorded; a copy of the config has the config's own again."""

    own: str | None

    def __new__(cls, own: str | None) -> "_Switched":
        name = super().__new__(cls, IMPLEMENTATION)
        name.own = own
        return name

    def __deepcopy__(self, memo: Any) -> str | None:
        return self.own


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
            _check_switched(configs)
            recorder.begin()

    def end(module: nn.Module, inputs: Any, output: Any) -> None:
        hidden = getattr(output, "last_hidden_state", None)
        if is_recording(module, recorder) and isinstance(hidden, torch.Tensor) and hidden.ndim in (3, 4):
            recorder.end(hidden)

    with ExitStack() as stack:
        stack.enter_context(_switched.hold(configs))
        stack.enter_context(_rerouted.hold(filter(has_reader, model.modules())))
        stack.enter_context(overheard.hold(filter(is_timm, model.modules())))
        stack.enter_context(windows_known(model))
        for module in model.modules():
            if isinstance(module, PreTrainedModel):
                stack.callback(module.register_forward_pre_hook(BorrowedHook(begin)).remove)
                stack.callback(module.register_forward_hook(BorrowedHook(end)).remove)
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
        if isinstance(config._attn_implementation, _Switched):  # else it was set by somebody meanwhile
            config._attn_implementation_internal = implementation

    config._attn_implementation_internal = _Switched(implementation)  # the setter would write to sub-configs too
    return undo


def _check_switched(configs: list[PreTrainedConfig]) -> None:
    """Refuse a forward after somebody has set another implementation: nothing would be recorded any longer.

    Raises:
        ArgumentError: With the implementation's name.
    """
    for config in configs:
        if not isinstance(config._attn_implementation, _Switched):
            raise ArgumentError(
                "`model` must keep its attention implementation inside `silence_heads` or another block that records "
                f"its attention; got {config._attn_implementation!r}, set meanwhile. Set it before the block."
            )


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
    is_explicit = _own_name(config) == "eager"
    if is_explicit and attention_mask is not None and attention_mask.dtype == torch.bool:
        attention_mask = attention_mask.to(query.dtype)  # to which transformers' eager attention adds it
    call = call_of(module, config, query, key, value, attention_mask, scaling, dropout, is_explicit=is_explicit)
    output, probabilities = record(call, recorders, is_explicit=is_explicit)
    return output.transpose(1, 2).contiguous(), probabilities


def _mask(*args: Any, config: PreTrainedConfig, **kwargs: Any) -> torch.Tensor | None:
    """Make of a padding mask what the model's own implementation would: padding attends to all alike, or nothing."""
    return (eager_mask if _own_name(config) == "eager" else sdpa_mask)(*args, config=config, **kwargs)


def _own_function(module: nn.Module) -> Any:
    """Return what `module` would have called, had its config not been switched for somebody else."""
    name = _own_name(module.config)
    eager = getattr(sys.modules.get(type(module).__module__), "eager_attention_forward", None)
    return ALL_ATTENTION_FUNCTIONS.get_interface(name, eager)


def _own_name(config: Any) -> str | None:
    """Return the implementation that a config names when it is not switched."""
    name: str | None = getattr(config, "_attn_implementation", None)  # another thread may have switched back already
    return name.own if isinstance(name, _Switched) else name


_rerouted = Borrowed(partial(reroute, attention=_attention, is_heard=lambda module: bool(recorders_of(module))))

AttentionInterface.register(IMPLEMENTATION, _attention)
AttentionMaskInterface.register(IMPLEMENTATION, _mask)  # without it a padding mask would silently be dropped
