"""Those who hear of a model's attention, each call of it as one object, and which of them hears of which module."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from gmar_hf.errors import ArgumentError
from gmar_hf.models.window_layout import WindowLayout
from gmar_hf.models.windows import layout_of
from gmar_hf.utils.tensors import may_hold

_LOW = -1e3  # far below any score


@dataclass(kw_only=True)
class AttentionCall:
    """One attention module's call: (batch, heads, tokens, head_dim) tensors, and the bias that is added to the scores.

    Args:
        module (`nn.Module`): The attention module.
        config: The config of the encoder that it is in, or what tells the same of a timm model; None where none does.
        query, key, value (`torch.Tensor` of shape (batch, heads, tokens, head_dim)): As the module made them; inside
            windows a layer may merge its queries, which are fewer tokens then, like its outputs.
        bias (`torch.Tensor` broadcastable to (batch, heads, tokens, tokens), *optional*): Additive, detached, of four
            dimensions, in the queries' dtype; minus infinity where a key takes no part.
        scaling (`float`): Factor of the products of queries and keys.
        dropout (`float`): Probability at which attention is dropped; 0 in eval mode.
        layout ([`WindowLayout`], *optional*): Of a layer that stands in a stage, where the tokens lie; then "batch" is
            images times windows, and "tokens" those of a window.
    """

    module: nn.Module
    config: Any = None
    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    bias: torch.Tensor | None
    scaling: float
    dropout: float
    layout: WindowLayout | None = None

    @property
    def num_outputs(self) -> int:
        """How many tokens of an image attend, padding not counted."""
        return self.query.shape[2] if self.layout is None else self.layout.of_outputs.num_tokens

    def by_image(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return keys or values (batch, heads, tokens, ...) of this call by images, without their padding."""
        return tensor if self.layout is None else self.layout.by_image(tensor)

    def outputs_by_image(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return queries or outputs (batch, heads, tokens, ...) of this call by images, without their padding."""
        return tensor if self.layout is None else self.layout.of_outputs.by_image(tensor)

    @property
    def idle_queries(self) -> torch.Tensor | None:
        """Which queries attend to nothing, as the bias takes all keys from them; None where all attend.

        Such rows, of padding, have a softmax of NaN; `scaled_dot_product_attention` lets zero come of them.
        """
        if self.bias is None:
            return None
        idle = self.bias.isneginf().all(dim=-1, keepdim=True)
        return idle if may_hold(idle) else None

    def compute_output(self) -> torch.Tensor:
        """Return the heads' outputs (batch, heads, tokens, head_dim), by `scaled_dot_product_attention`."""
        return scaled_dot_product_attention(
            self.query, self.key, self.value, attn_mask=self.bias, dropout_p=self.dropout, scale=self.scaling
        )

    def compute_probabilities(self) -> torch.Tensor:
        """Return the attention probabilities (batch, heads, tokens, tokens), whose rows sum to one."""
        scores = (self.query @ self.key.transpose(-2, -1)) * self.scaling
        if self.bias is not None:
            scores = scores + self.bias
        if (idle := self.idle_queries) is not None:
            scores = scores.masked_fill(idle, 0)  # before the softmax: its backward would multiply NaN
        wide = torch.promote_types(scores.dtype, torch.float32)
        probabilities = scores.softmax(dim=-1, dtype=wide).to(self.query.dtype)
        return probabilities if idle is None else probabilities.masked_fill(idle, 0)

    def output_of(self, probabilities: torch.Tensor) -> torch.Tensor:
        """Return the heads' outputs (batch, heads, tokens, head_dim) by explicit probabilities."""
        return nn.functional.dropout(probabilities, p=self.dropout, training=self.dropout > 0) @ self.value


class Recorder:
    """What hears of the attention calls of one model, and may change what goes into them and what comes out.

    Of recorders around each other every one takes part that changes something; of those that compute the attention
    (see [`ComputingRecorder`]) only the innermost does.

    Attributes:
        silenced (`frozenset[tuple[int, int]]`): Layers and heads whose output it sets to zero.
    """

    silenced: frozenset[tuple[int, int]] = frozenset()

    def begin(self) -> None:
        """Hear that a forward of the model, or of a transformers model inside it, begins."""

    def prepare(self, call: AttentionCall) -> None:
        """Change what goes into the attention."""

    def prepare_pooling(self, call: AttentionCall) -> None:
        """Change what goes into the attention by which a head reads the tokens."""

    def end(self, hidden: torch.Tensor) -> None:
        """Hear of the last hidden state, which a backbone returns, as tokens or as a map; the outermost last."""

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


def is_recording(module: nn.Module, recorder: Recorder) -> bool:
    """Tell whether this thread's calls of `module` go to `recorder` now."""
    return any(each is recorder for each in recorders_of(module))


def recorders_of(module: nn.Module) -> list[Recorder]:
    """Return the recorders that this module's calls go to, outer ones first; one at most computes."""
    waiting = [recorder for recorder, modules in _recordings.get() if id(module) in modules]
    computing = [id(recorder) for recorder in waiting if isinstance(recorder, ComputingRecorder)]
    return [recorder for recorder in waiting if id(recorder) not in computing[:-1]]


def silenced_heads(model: nn.Module) -> set[tuple[int, int]]:
    """Return layers and heads whose output this thread's forwards of `model`, or of a part of it, set to zero now."""
    own = set(map(id, model.modules()))
    return {head for recorder, modules in _recordings.get() if modules & own for head in recorder.silenced}


@contextmanager
def heard(model: nn.Module, recorder: Recorder) -> Iterator[None]:
    """Let calls of the modules of `model`, which this thread makes inside the block, go to `recorder`."""
    entry = (recorder, frozenset(map(id, model.modules())))
    _recordings.set((*_recordings.get(), entry))
    try:
        yield
    finally:  # without the variable's own `reset`: blocks may end in any order
        _recordings.set(tuple(one for one in _recordings.get() if one is not entry))


def call_of(
    module: nn.Module,
    config: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    *,
    is_explicit: bool = False,
) -> AttentionCall:
    """Return one module's call, from what attention functions of transformers or of torch are given.

    Where the module by itself `is_explicit`, it adds masks in its own dtype, and else in float32 at least.
    """
    if mask is None:
        bias = None
    else:
        scores = query.dtype if is_explicit else torch.promote_types(query.dtype, torch.float32)
        query, bias = _with_bias(query, mask, scores)
    return AttentionCall(
        module=module,
        config=config,
        query=query,
        key=key,
        value=value,
        bias=bias,
        scaling=query.shape[-1] ** -0.5 if scaling is None else scaling,
        dropout=dropout,
        layout=layout_of(module),
    )


def record(
    call: AttentionCall, recorders: list[Recorder], *, is_explicit: bool = False
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Let the recorders see what a module asked for; one of them computes it, or we do.

    Args:
        call ([`AttentionCall`]): What the module asked for.
        recorders (`list` of [`Recorder`]): Those that wait for it.
        is_explicit (`bool`, defaults to False): Whether the module by itself computes the probabilities, which a model
            may return, and so are we to do.

    Returns:
        The output (batch, heads, tokens, head_dim), and the probabilities where they are explicit.
    """
    for recorder in recorders:
        recorder.prepare(call)
    computing = next((recorder for recorder in recorders if isinstance(recorder, ComputingRecorder)), None)
    probabilities: torch.Tensor | None = None
    if computing is not None:
        output, probabilities = computing.attend(call)
    elif is_explicit:
        probabilities = call.compute_probabilities()
        output = call.output_of(probabilities)
    else:
        output = call.compute_output()
    for recorder in recorders:
        output = recorder.edit(call, output)
    return output, probabilities


def _with_bias(query: torch.Tensor, mask: torch.Tensor, scores: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Return queries, and what is added to their scores: detached, else SDPA leaves its fused path for its gradient.

    Of rows that are low throughout, of padding, torch's fused backward is wrong. They are lifted to zero, which a
    softmax does not notice; where they are so low that the scores, of their dtype, are lost beside them, the queries
    are lost, too.

    Raises:
        ArgumentError: If the mask is neither boolean nor floating point: torch would refuse it, or add its ones.
    """
    if mask.dtype == torch.bool:  # a mask of four dimensions arrives as the user made it: True takes part
        mask = torch.zeros_like(mask, dtype=query.dtype).masked_fill_(~mask, -torch.inf)
    if not mask.is_floating_point():
        kind = str(mask.dtype).removeprefix("torch.")
        raise ArgumentError(
            f"`attention_mask` must be boolean or floating point for each pair of tokens; got {kind} of shape "
            f"{tuple(mask.shape)}. Call `.bool()`, where ones take part."
        )
    mask = torch.atleast_2d(mask.detach())[(None,) * (4 - max(mask.ndim, 2))]
    peak = mask.amax(dim=-1, keepdim=True)
    peak = peak.where(peak.isfinite(), 0)
    if may_hold(is_low := peak < _LOW):
        mask = mask - peak.where(is_low, 0)
    if may_hold(is_lost := peak < -1 / torch.finfo(scores).eps):
        query = query.masked_fill(is_lost, 0)
    return query, mask.to(query.dtype)
