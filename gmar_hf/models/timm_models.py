"""timm's vision transformers, which transformers wraps: what they say of themselves, and where their attention is.

timm itself is not imported: its modules are known by their classes' names.
"""

from dataclasses import dataclass
from typing import Any

from torch import nn

_ENCODERS = frozenset(
    {
        "timm.models.beit.Beit",
        "timm.models.deit.VisionTransformerDistilled",
        "timm.models.eva.Eva",
        "timm.models.vision_transformer.VisionTransformer",
        "timm.models.vision_transformer_relpos.VisionTransformerRelPos",
    }
)
"""Classes with a list `blocks`, whose last hidden state is what `forward_features` returns to `forward_head`."""

_ATTENTIONS = frozenset(
    {
        "timm.layers.attention.Attention",
        "timm.layers.attention.AttentionRope",
        "timm.models.beit.Attention",
        "timm.models.eva.EvaAttention",
        "timm.models.vision_transformer.Attention",  # where it stood before timm 1.0.20
        "timm.models.vision_transformer_relpos.RelPosAttention",
    }
)
"""Classes that call `scaled_dot_product_attention` once, if their `fused_attn` says so; rotations come before it."""

_POOLINGS = frozenset({"timm.layers.attention_pool.AttentionPoolLatent"})
"""Classes of `attn_pool`, by which one latent token reads the last hidden state; they have a `fused_attn`, too."""


@dataclass(frozen=True, kw_only=True)
class TimmEncoder:
    """What a config of transformers would say of a timm model, under the same names.

    Args:
        num_hidden_layers, num_attention_heads (`int`): Blocks, and heads of each.
        num_channels (`int`): Of the images.
        image_size, patch_size (`tuple[int, int]`): (height, width), pixels; the size None where any is taken.
        attentions (`tuple` of `nn.Module`): The modules that compute the attention, first block first.
    """

    num_hidden_layers: int
    num_attention_heads: int
    num_channels: int
    image_size: tuple[int, int] | None
    patch_size: tuple[int, int]
    attentions: tuple[nn.Module, ...]


def is_timm(module: Any) -> bool:
    """Tell whether a module is one of timm's models, of any kind."""
    return type(module).__module__.startswith("timm.models.") and hasattr(module, "forward_features")


def why_not(model: nn.Module) -> str | None:
    """Return why a timm model cannot be explained, in words; None where it can be."""
    if _full_name(model) not in _ENCODERS:
        known = ", ".join(sorted(name.rpartition(".")[2] for name in _ENCODERS))
        return f"timm's {type(model).__name__} is none of its plain vision transformers ({known})"
    modules: Any = model
    for block in modules.blocks:
        attention = getattr(block, "attn", None)
        if _full_name(attention) not in _ATTENTIONS:
            kind = type(block if attention is None else attention).__name__
            return f"timm's {kind} does not compute its attention once, as one softmax for every head"
        if not _attends_as_fused(attention):
            return _not_as_fused(attention)
    pooling = pooling_of(model)
    if pooling is not None and _full_name(pooling) not in _POOLINGS:
        return f"timm's {type(pooling).__name__} pools the tokens in a way that is not known"
    if pooling is not None and not _attends_as_fused(pooling):
        return _not_as_fused(pooling)
    if getattr(modules.patch_embed, "dynamic_img_pad", False):
        return "it pads images to whole patches (`dynamic_img_pad`)"
    return None


def pooling_of(model: Any) -> nn.Module | None:
    """Return the attention by which a timm model's head reads the tokens; None where it takes one or averages them."""
    return getattr(model, "attn_pool", None)


def describe_encoder(model: Any) -> TimmEncoder | None:
    """Return what a timm model says of itself; None if it cannot be explained, see [`why_not`]."""
    if why_not(model) is not None:
        return None
    attentions = tuple(block.attn for block in model.blocks)
    height, width = model.patch_embed.feat_ratio(as_scalar=False)
    convolutions = (module for module in model.patch_embed.modules() if isinstance(module, nn.Conv2d))
    return TimmEncoder(
        num_hidden_layers=len(attentions),
        num_attention_heads=attentions[0].num_heads,
        num_channels=next(convolutions).in_channels,
        image_size=model.patch_embed.img_size,
        patch_size=(height, width),
        attentions=attentions,
    )


def _attends_as_fused(attention: Any) -> bool:
    """Tell whether an attention that does not call `scaled_dot_product_attention` would attend as that does."""
    if attention.fused_attn:
        return True
    dropout, size = getattr(attention, "attn_drop", None), getattr(attention, "head_dim", None)
    is_scaled = size is None or attention.scale == size**-0.5
    hooks = [getattr(dropout, "_forward_hooks", None), getattr(dropout, "_forward_pre_hooks", None)]
    return is_scaled and type(dropout) in (type(None), nn.Dropout, nn.Identity) and not any(hooks)


def _not_as_fused(attention: Any) -> str:
    kind = type(attention).__name__
    return f"timm's {kind} attends otherwise by itself than with `fused_attn` (see its `scale` and `attn_drop`)"


def _full_name(module: Any) -> str:
    return f"{type(module).__module__}.{type(module).__qualname__}"
