"""timm's attention, its pooling and its last hidden state, heard of by recorders."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from gmar_hf.models.freezing import Borrowed, Undo
from gmar_hf.models.recorders import AttentionCall, call_of, record, recorders_of
from gmar_hf.models.refusals import CAUSAL, unsupported
from gmar_hf.models.sdpa_calls import answer_calls, replace, replace_method
from gmar_hf.models.timm_models import TimmEncoder, describe_encoder, pooling_of


def _overhear(model: nn.Module) -> Undo:
    """Let a timm model's attention, its pooling and its last hidden state come to the recorders that wait for them."""
    encoder, pooling = describe_encoder(model), pooling_of(model)
    if encoder is None:
        return lambda: None

    def answer(module: nn.Module, *args: Any, is_causal: bool = False, **kwargs: Any) -> torch.Tensor:
        recorders = recorders_of(module)
        if not recorders:
            torchs_own: Any = scaled_dot_product_attention
            return torchs_own(*args, is_causal=is_causal, **kwargs)
        if is_causal:
            raise unsupported(model, CAUSAL)
        return record(_call(module, encoder, *args, **kwargs), recorders)[0]

    def answer_pooling(module: nn.Module, *args: Any, **kwargs: Any) -> torch.Tensor:
        call = _call(module, encoder, *args, **kwargs)
        for recorder in recorders_of(module):
            recorder.prepare_pooling(call)
        return call.compute_output()

    undos = [answer_calls(module, answer) for module in dict.fromkeys(encoder.attentions)]  # blocks may share one
    if pooling is not None:
        undos.append(answer_calls(pooling, answer_pooling))
    undos.append(replace_method(model, "forward_features", _hand_on_hidden))
    # In eval mode, too, timm's models would compute layers once more in the backward, when nobody answers any longer.
    undos.append(replace(model, "grad_checkpointing", False))

    def undo() -> None:
        for undo_one in reversed(undos):
            undo_one()

    return undo


def _hand_on_hidden(model: nn.Module, own: Callable[..., torch.Tensor], *args: Any, **kwargs: Any) -> torch.Tensor:
    hidden = own(*args, **kwargs)
    for recorder in recorders_of(model):
        recorder.end(hidden)
    return hidden


def _call(
    module: nn.Module,
    encoder: TimmEncoder,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    scale: float | None = None,
) -> AttentionCall:
    """Take the arguments of `scaled_dot_product_attention` as one call."""
    return call_of(module, encoder, query, key, value, attn_mask, scale, dropout_p)


overheard = Borrowed(_overhear)
"""Holds timm's models, of any kind; those that cannot be explained stay as they are."""
