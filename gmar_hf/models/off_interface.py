"""Attention modules of transformers that do not go through its attention interface, a row a kind.

A row says how such a module makes its queries, keys, values and bias. While a model is recorded the module's forward
hands them to the attention function that modules on the interface call; before and after it is the module's own.
"""

import math
from collections.abc import Callable
from types import MethodType
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.functional import normalize

from gmar_hf.models.freezing import Undo
from gmar_hf.models.hooks import BorrowedMethod
from gmar_hf.models.patches import tokens_of


def _side_by_side(output: torch.Tensor, probabilities: Any) -> tuple[torch.Tensor, Any]:
    return output.flatten(2), probabilities


class AttentionInputs(NamedTuple):
    """What a module attends with.

    Args:
        query, key, value (`torch.Tensor` of shape (batch, heads, tokens, head_dim)): Not yet scaled.
        bias (`torch.Tensor` broadcastable to (batch, heads, tokens, tokens), *optional*): What is added to the scores.
        scaling (`float`): Factor of the products of queries and keys.
        dropout (`float`): Probability at which attention is dropped; 0 in eval mode.
        finish (`Callable`): From the heads' outputs (batch, tokens, heads, head_dim), and the probabilities if there
            are some, to what the module returns; by default the heads side by side, and the probabilities.
    """

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    bias: torch.Tensor | None
    scaling: float
    dropout: float
    finish: Callable[[torch.Tensor, Any], tuple[torch.Tensor, Any]] = _side_by_side


def _data2vec_vision(
    module: Any,
    hidden_states: torch.Tensor,
    output_attentions: bool = False,
    relative_position_bias: torch.Tensor | None = None,
    interpolate_pos_encoding: bool = False,
    resolution: tuple[int, int] | None = None,
) -> AttentionInputs:
    # A bias of the layer's own, one that all layers share, both, or none.
    bias = relative_position_bias
    if module.has_relative_position_bias:
        assert resolution is not None
        window = (resolution[0] // module.config.patch_size, resolution[1] // module.config.patch_size)
        own = module.relative_position_bias(window, interpolate_pos_encoding, dim_size=hidden_states.shape[1])
        bias = own if bias is None else own + bias
    return _scaled_products(module, hidden_states, bias)


def _swinv2(
    module: Any,
    hidden_states: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    output_attentions: bool | None = False,
) -> AttentionInputs:
    size = module.window_size[0] * module.window_size[1]
    table = module.continuous_position_bias_mlp(module.relative_coords_table).view(-1, module.num_attention_heads)
    bias = 16 * torch.sigmoid(table[module.relative_position_index.view(-1)].view(size, size, -1).permute(2, 0, 1))
    # Cosines of queries and keys, times a number of each head. Transformers adds the mask twice.
    factor = module.logit_scale.clamp(max=math.log(100)).exp()
    return AttentionInputs(
        query=normalize(_by_head(module, module.query(hidden_states)), dim=-1) * factor,
        key=normalize(_by_head(module, module.key(hidden_states)), dim=-1),
        value=_by_head(module, module.value(hidden_states)),
        bias=_with_mask(bias[None], attention_mask, len(hidden_states), factor=2),
        scaling=1.0,
        dropout=module.dropout.p if module.training else 0.0,
    )


def _donut_swin(
    module: Any,
    hidden_states: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    output_attentions: bool | None = False,
) -> AttentionInputs:
    size = module.window_size[0] * module.window_size[1]
    table = module.relative_position_bias_table[module.relative_position_index.view(-1)]
    bias = table.view(size, size, -1).permute(2, 0, 1)
    return _scaled_products(module, hidden_states, _with_mask(bias[None], attention_mask, len(hidden_states)))


def _hiera(module: Any, hidden_states: torch.Tensor, output_attentions: bool = False) -> AttentionInputs:
    batch, num_tokens, _ = hidden_states.shape
    size = module.query_stride * module.window_size if module.use_mask_unit_attn else num_tokens
    # The first tokens of all windows come first, then all second ones.
    projected = module.qkv(hidden_states).view(batch, size, -1, 3, module.num_heads, module.head_dim)
    query, key, value = projected.permute(3, 0, 2, 4, 1, 5).flatten(
        1, 2
    )  # (images * windows, heads, tokens, head_dim)
    if module.query_stride > 1:
        query = query.unflatten(2, (module.query_stride, -1)).max(dim=2).values

    def finish(output: torch.Tensor, probabilities: Any) -> tuple[torch.Tensor, Any]:
        by_image = output.unflatten(0, (batch, -1)).transpose(1, 2).reshape(batch, -1, module.hidden_size_output)
        if probabilities is not None:
            probabilities = probabilities.unflatten(0, (batch, -1)).transpose(1, 2)  # heads before windows
        return module.proj(by_image), probabilities

    return AttentionInputs(query, key, value, bias=None, scaling=module.scale, dropout=0.0, finish=finish)


def _pvt(
    module: Any, hidden_states: torch.Tensor, height: int, width: int, output_attentions: bool = False
) -> AttentionInputs:
    reduced = hidden_states
    if module.sequences_reduction_ratio > 1:
        reduced = module.layer_norm(tokens_of(module.sequence_reduction(_as_map(hidden_states, height, width))))
    return _scaled_products(module, hidden_states, None, reduced)


def _pvt_v2(
    module: Any, hidden_states: torch.Tensor, height: int, width: int, output_attentions: bool = False
) -> AttentionInputs:
    reduced = hidden_states
    if module.linear_attention:
        pooled = module.pool(_as_map(hidden_states, height, width))
        reduced = module.act(module.layer_norm(tokens_of(module.spatial_reduction(pooled))))
    elif module.spatial_reduction_ratio > 1:
        reduced = module.layer_norm(tokens_of(module.spatial_reduction(_as_map(hidden_states, height, width))))

    def finish(output: torch.Tensor, probabilities: Any) -> tuple[torch.Tensor, Any]:
        return module.proj_drop(module.proj(output.flatten(2))), probabilities

    inputs = _scaled_products(module, hidden_states, None, reduced, module.attn_drop)
    return inputs._replace(finish=finish)


def _as_map(states: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Return (batch, channels, height, width) from tokens (batch, tokens, channels), row by row."""
    return states.transpose(1, 2).unflatten(2, (height, width))


def _scaled_products(
    module: Any,
    hidden_states: torch.Tensor,
    bias: torch.Tensor | None,
    attended: torch.Tensor | None = None,
    dropout: nn.Dropout | None = None,
) -> AttentionInputs:
    """Return the inputs of an attention by products of queries and keys, scaled by the heads' size.

    Args:
        attended (`torch.Tensor` of shape (batch, keys, channels), *optional*): What keys and values are made of; by
            default what the queries are made of.
        dropout (`nn.Dropout`, *optional*): The attention's; the module's `dropout` by default.
    """
    attended = hidden_states if attended is None else attended
    dropout = module.dropout if dropout is None else dropout
    return AttentionInputs(
        query=_by_head(module, module.query(hidden_states)),
        key=_by_head(module, module.key(attended)),
        value=_by_head(module, module.value(attended)),
        bias=bias,
        scaling=module.attention_head_size**-0.5,
        dropout=dropout.p if module.training else 0.0,
    )


def _by_head(module: Any, states: torch.Tensor) -> torch.Tensor:
    """Return (batch, heads, tokens, head_dim) from heads side by side (batch, tokens, channels)."""
    return states.unflatten(-1, (module.num_attention_heads, -1)).transpose(1, 2)


def _with_mask(bias: torch.Tensor, mask: torch.Tensor | None, batch: int, factor: int = 1) -> torch.Tensor:
    """Add the mask (windows, tokens, tokens) of every image to a bias (1, heads, tokens, tokens) of all windows."""
    return bias if mask is None else bias + factor * mask.repeat(batch // len(mask), 1, 1)[:, None]


# By the class that attends, matched as it is: a subclass may attend otherwise. Each row takes the arguments of
# the module's forward.
_DATA2VEC_VISION = "transformers.models.data2vec.modeling_data2vec_vision"
READERS: dict[tuple[str, str], Callable[..., AttentionInputs]] = {
    (_DATA2VEC_VISION, "Data2VecVisionSelfAttention"): _data2vec_vision,
    (_DATA2VEC_VISION, "Data2VecVisionSdpaSelfAttention"): _data2vec_vision,
    ("transformers.models.swinv2.modeling_swinv2", "Swinv2SelfAttention"): _swinv2,
    ("transformers.models.donut.modeling_donut_swin", "DonutSwinSelfAttention"): _donut_swin,
    ("transformers.models.hiera.modeling_hiera", "HieraMaskUnitAttention"): _hiera,
    ("transformers.models.pvt.modeling_pvt", "PvtEfficientSelfAttention"): _pvt,
    ("transformers.models.pvt_v2.modeling_pvt_v2", "PvtV2SelfAttention"): _pvt_v2,
}


_MARK = "_gmar_hf_reroutes"  # of the forwards that [`reroute`] has put somewhere


def has_reader(module: nn.Module) -> bool:
    """Tell whether a module is of a kind that is known here, and attends as its class does."""
    if _kind(module) not in READERS or type(module).forward.__globals__["__name__"] != type(module).__module__:
        return False
    # Accelerate's hooks keep what they wrap; of a forward that somebody else has put there nothing is known.
    forward = module.__dict__.get(_slot(module))
    return forward in (None, _class_forward(module)) or hasattr(forward, _MARK)


def reroute(
    module: nn.Module, attention: Callable[..., tuple[torch.Tensor, Any]], is_heard: Callable[[nn.Module], bool]
) -> Undo:
    """Let a module attend by `attention`, where it is heard.

    Args:
        module (`nn.Module`): One that [`has_reader`].
        attention (`Callable`): A function of transformers' attention interface.
        is_heard (`Callable`): Tells at every call whether somebody waits for the module's; else it attends as ever.

    Returns:
        `Callable`: Gives the module its own forward back.
    """
    read = READERS[_kind(module)]

    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, Any]:
        if not is_heard(self):
            own: tuple[torch.Tensor, Any] = _class_forward(self)(*args, **kwargs)
            return own
        inputs = read(self, *args, **kwargs)
        output, probabilities = attention(
            self, *inputs[:4], scaling=inputs.scaling, dropout=inputs.dropout
        )  # (batch, tokens, heads, head_dim)
        return inputs.finish(output, probabilities)

    slot = _slot(module)
    before = module.__dict__.get(slot)

    def undo() -> None:
        module.__dict__.pop(slot)
        if before is not None:
            setattr(module, slot, before)

    instead = BorrowedMethod(module, forward, before or _class_forward(module))
    setattr(instead, _MARK, True)
    setattr(module, slot, instead)
    return undo


def _slot(module: nn.Module) -> str:
    """Return where a module has a forward of its own: inside accelerate's hooks, if there are any."""
    return "_old_forward" if "_old_forward" in module.__dict__ else "forward"


def _kind(module: nn.Module) -> tuple[str, str]:
    return type(module).__module__, type(module).__qualname__


def _class_forward(module: nn.Module) -> MethodType:
    return MethodType(type(module).forward, module)
