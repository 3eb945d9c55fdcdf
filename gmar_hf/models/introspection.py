"""What a model tells of itself, by its config and its modules: its layers, its heads, its labels."""

from typing import Any

import transformers
from torch import nn

from gmar_hf.errors import UnsupportedModelError
from gmar_hf.models.refusals import unsupported
from gmar_hf.models.timm_models import describe_encoder, is_timm
from gmar_hf.models.wrappers import class_name, config_of, unwrapped


def encoder_layers(model: nn.Module) -> tuple[str, nn.ModuleList | nn.Sequential]:
    """Find the list of the encoder's layers, and its name in the transformers model.

    It is the largest list of modules that has as many members as the config says there are layers; of a timm model, it
    is `blocks`. Where layers stand in stages there is no such list: see [`attention_layers`].

    Args:
        model (`nn.Module`): A transformers model, or a wrapper of one.

    Raises:
        UnsupportedModelError: If there is no such list, or no config that tells of it.
    """
    _check_config(model)
    if staged_layers(model):
        raise unsupported(model, "its layers stand in stages, each on a map of its own")
    num_layers = setting(model, "num_hidden_layers")
    lists: list[tuple[str, nn.ModuleList | nn.Sequential]] = [
        (name, module)
        for name, module in unwrapped(model).named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == num_layers
    ]
    if timm_model(model) is not None and num_layers is not None:
        lists = [("timm_model.blocks", unwrapped(model).timm_model.blocks)]
    if not lists:
        expected = "layers" if num_layers is None else f"the {num_layers} layers in its config"
        raise unsupported(model, f"it has no list of {expected}")
    return max(lists, key=lambda named: sum(parameter.numel() for parameter in named[1].parameters()))


def attention_layers(model: nn.Module) -> list[nn.Module]:
    """Return the layers that attend, first layer first, also those that stand in stages.

    Raises:
        UnsupportedModelError: If they are not found.
    """
    return staged_layers(model) or list(encoder_layers(model)[1])


def staged_layers(model: nn.Module) -> list[nn.Module]:
    """Return the layers of a model whose layers stand in stages, as Swin's do; none of others."""
    depths = _depths(config_of(model))
    lists = [module for module in unwrapped(model).modules() if isinstance(module, nn.ModuleList)]
    for stages in lists if depths else []:
        if len(stages) != len(depths):
            continue
        # Each stage holds, or is, a list of as many layers as the config says.
        layers = [_list_in(stage, depth) for stage, depth in zip(stages, depths, strict=True)]
        if None not in layers:
            return [layer for blocks in layers if blocks is not None for layer in blocks]
    return []


def _list_in(stage: nn.Module, length: int) -> nn.ModuleList | None:
    lists = (part for part in (stage, *stage.children()) if isinstance(part, nn.ModuleList))
    return next((each for each in lists if len(each) == length), None)


def timm_model(model: nn.Module) -> nn.Module | None:
    """Return the timm model that a transformers model wraps; None for others."""
    wrapped = getattr(unwrapped(model), "timm_model", None)
    return wrapped if is_timm(wrapped) else None


def setting(model: nn.Module, name: str) -> Any:
    """Return an entry of a model's config, see [`entry`] and [`settings`]."""
    return entry(settings(model), name)


def settings(model: nn.Module) -> Any:
    """Return a model's config; a timm model says itself what transformers' configs say."""
    wrapped = timm_model(model)
    return config_of(model) if wrapped is None else describe_encoder(wrapped)


def entry(config: Any, name: str) -> Any:
    """Return an entry of a config, or of its vision part (CLIP, SigLIP); None where there is none."""
    return getattr(config, name, None) or getattr(getattr(config, "vision_config", None), name, None)


def encoder_shape(model: nn.Module) -> tuple[int, int]:
    """Return the number of layers and of heads a layer that the config tells of; 0 for one that it does not.

    Where layers have different numbers of heads, see [`heads_by_layer`], it is the largest number.

    Raises:
        UnsupportedModelError: If there is no config.
    """
    _check_config(model)
    by_layer = heads_by_layer(model)
    if by_layer:
        return len(by_layer), max(by_layer)
    return setting(model, "num_hidden_layers") or 0, setting(model, "num_attention_heads") or 0


def _check_config(model: nn.Module) -> None:
    if config_of(model) is None and any(isinstance(part, transformers.PreTrainedModel) for part in model.modules()):
        raise UnsupportedModelError(
            f"{class_name(model)} must have a `config` that tells of its layers and heads; it has none. Set it to "
            "that of the backbone inside."
        )


def heads_by_layer(model: nn.Module) -> tuple[int, ...]:
    """Return how many heads each layer has, where the config tells of them by stage; nothing where all have as many.

    Example:
        >>> import transformers
        >>> config = transformers.SwinConfig(depths=(2, 1), num_heads=(3, 6))
        >>> heads_by_layer(transformers.SwinForImageClassification(config))
        (3, 3, 6)
    """
    config = config_of(model)
    by_stage = zip(_heads_by_stage(config), _depths(config), strict=False)  # the second may be none
    return tuple(heads for heads, depth in by_stage for _ in range(depth))


def num_layers_of(config: Any) -> int | None:
    """Return how many layers an encoder has that attend, by its config; None where it does not tell."""
    return sum(_depths(config)) or getattr(config, "num_hidden_layers", None)


def _depths(config: Any) -> tuple[int, ...]:
    """Return how many layers each stage has, of a config that tells of depths and heads by stage; else nothing."""
    depths: Any = getattr(config, "depths", None)
    is_staged = isinstance(depths, list | tuple) and len(depths) == len(_heads_by_stage(config))
    return tuple(depths) if is_staged else ()


def _heads_by_stage(config: Any) -> tuple[int, ...]:
    heads = getattr(config, "num_attention_heads", None) or getattr(config, "num_heads", None)
    return tuple(heads) if isinstance(heads, list | tuple) else ()


def is_multi_label(model: nn.Module) -> bool:
    """Tell whether the config says that several labels can hold at once."""
    return bool(getattr(config_of(model), "problem_type", None) == "multi_label_classification")


def label_names(model: nn.Module) -> dict[int, str]:
    """Return the config's labels by class index; none where the config has none."""
    return dict(getattr(config_of(model), "id2label", None) or {})
