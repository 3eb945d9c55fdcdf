"""What a user's model says of itself: its class, its config's facts, its layers. Read here, and nowhere else."""

import inspect
from typing import Any

import torch
import transformers
from torch import nn

from gmar_hf.errors import ArgumentError, ArgumentTypeError, UnsupportedModelError
from gmar_hf.models.flat_patches import ARGUMENTS, ImagesAsPatches, takes_flat_patches
from gmar_hf.models.timm_models import describe_encoder, is_timm, why_not

SERVED = "ViT, DeiT, BEiT, DINOv2, SigLIP, CLIP, I-JEPA and their kin"
ADVICE = f"Use a model like {SERVED}."
OFF_THE_INTERFACE = "it has no attention that goes through transformers' attention interface"
CAUSAL = "its attention is causal"


def unsupported(model: nn.Module, reason: str) -> UnsupportedModelError:
    """Return the error for a model that cannot be explained, with its class and the reason."""
    return UnsupportedModelError(f"{class_name(model)} cannot be explained: {reason}. {ADVICE}")


def miscounted(model: nn.Module, num_calls: int, num_layers: int | None) -> UnsupportedModelError:
    """Return the error for a model whose forward does not attend once for each layer of its config."""
    reason = f"{num_calls} of the {num_layers} layers in its config go through transformers' attention interface"
    if num_layers is not None and num_calls > num_layers:
        reason = f"it attends {num_calls} times, with {num_layers} layers in its config, as where two backbones run"
    return unsupported(model, reason)


def class_name(model: nn.Module) -> str:
    """Return the name of the class that the user knows: under PEFT or FSDP, that of the wrapped model."""
    found = unwrapped(model)
    # `fully_shard` makes a class of FSDPModule and the model's own.
    return (type(found).__mro__[2] if shards(found) else type(found)).__name__


def shards(module: nn.Module) -> bool:
    """Tell whether `fully_shard` was called on a module, so that processes have parts of its weights each."""
    return any(base.__name__ == "FSDPModule" for base in type(module).__bases__)


def runnable(model: Any) -> Any:
    """Return what computes, from inside wrappers that only run it: `torch.compile`, `DataParallel` and its kin."""
    while True:
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        elif "_orig_mod" in getattr(model, "_modules", {}):  # of `torch.compile`
            model = model._orig_mod
        else:
            return model


def unwrapped(model: Any) -> Any:
    """Return the transformers model itself, from inside all wrappers: those of [`runnable`], PEFT's, and ours."""
    model = runnable(model)
    model = model.model if isinstance(model, ImagesAsPatches) else model
    return runnable(model.get_base_model()) if hasattr(model, "get_base_model") else model


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
        # Each stage holds a list of as many layers as the config says.
        layers = [
            next((part for part in stage.children() if isinstance(part, nn.ModuleList) and len(part) == depth), None)
            for stage, depth in zip(stages, depths, strict=True)
        ]
        if None not in layers:
            return [layer for blocks in layers if blocks is not None for layer in blocks]
    return []


def checked_model(model: nn.Module) -> nn.Module:
    """Return what computes in a user's model, see [`runnable`]; refuse what is no model, or what no gradient can pass.

    A compiled model is so explained as it was before it was compiled, and one that is spread over processes by this
    process alone. A model of flattened patches takes images here, see [`ImagesAsPatches`].

    Args:
        model (`nn.Module`): What the user gave.

    Raises:
        ArgumentError: If its weights are inference tensors or on the meta device, or this is under a transform of
            `torch.func`.
        ArgumentTypeError: If it is no module.
        UnsupportedModelError: If it is a model for something else than images.
    """
    if not isinstance(model, nn.Module):
        raise ArgumentTypeError(
            f"`model` must be an image classifier of transformers; got {type(model).__name__}. "
            "Load it with `AutoModelForImageClassification.from_pretrained`."
        )
    check_weights(model)
    if torch._C._functorch.peek_interpreter_stack() is not None:  # there is no public way to ask
        raise ArgumentError(
            "`model` must be explained outside the transforms of `torch.func` (its own backwards cannot be "
            "transformed); got a call inside grad, vmap or jvp. Take batches as they are, in a loop."
        )
    _check_takes_images(model)
    computing = runnable(model)
    is_of_patches = not isinstance(computing, ImagesAsPatches) and takes_flat_patches(unwrapped(computing))
    return ImagesAsPatches(computing) if is_of_patches else computing


def check_weights(model: nn.Module) -> None:
    """Refuse weights that no gradient can pass.

    Raises:
        ArgumentError: If they are inference tensors, on the meta device, or wrapped by FullyShardedDataParallel.
    """
    if any(type(module).__name__ == "FullyShardedDataParallel" for module in model.modules()):
        raise ArgumentError(
            "`model` must not be in FullyShardedDataParallel (whose backwards have weights only in training); got one "
            "that is. Shard it by `fully_shard`, or load its full state dict into a model without wrapper."
        )
    if any(parameter.is_inference() for parameter in model.parameters()):
        raise ArgumentError(
            "`model` must have been loaded outside `torch.inference_mode` (no gradient can pass its weights); "
            "got inference tensors. Load it again outside the block."
        )
    # Weights that accelerate has put aside are on the meta device until its hooks fetch them.
    is_offloaded = any(hasattr(module, "_hf_hook") for module in model.modules())
    if not is_offloaded and any(parameter.is_meta for parameter in model.parameters()):
        raise ArgumentError(
            "`model` must have its weights; got some on the meta device, which holds none. Load it with "
            "`from_pretrained`, outside `torch.device('meta')` and `init_empty_weights`."
        )


def _check_takes_images(model: nn.Module) -> None:
    """Refuse models for texts, sounds and videos, of which transformers says so by an error of another kind, or not.

    Raises:
        UnsupportedModelError: If the model's forward does not take plain `pixel_values`.
    """
    classifier, config = unwrapped(model), config_of(model)
    if isinstance(classifier, torch.jit.ScriptModule):
        raise unsupported(model, "it is TorchScript, which no hook reaches; explain the model that it was made of")
    if not isinstance(classifier, transformers.PreTrainedModel):  # a module of the user's, with whatever it holds
        _check_called_with_images(classifier)
        return
    if is_dual_encoder(model):
        raise UnsupportedModelError(
            f"{class_name(model)} cannot be explained without texts, with which it compares images. Explain "
            "`gmar_hf.text_classifier(model, tokenizer, labels)`, or give the pipeline `candidate_labels`."
        )
    wrapped = timm_model(model)
    if wrapped is not None and (reason := why_not(wrapped)) is not None:
        raise unsupported(model, reason)
    parameters = inspect.signature(classifier.forward).parameters
    takes_anything = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    is_of_images = takes_anything and classifier.main_input_name == "pixel_values"
    if "pixel_values" not in parameters and not is_of_images:
        first = next(iter(parameters), "nothing")
        raise unsupported(model, f"it takes `{first}`, no `pixel_values`")
    if getattr(config, "is_encoder_decoder", False):
        raise unsupported(model, "it decodes texts from images")
    # Perceiver's config tells of frames too, for another of its models.
    if getattr(config, "num_frames", None) is not None and classifier.main_input_name == "pixel_values":
        raise unsupported(model, "it takes videos, no images")


def _check_called_with_images(module: nn.Module) -> None:
    """Refuse a module around a transformers model whose forward does not take `pixel_values` by name.

    Raises:
        ArgumentTypeError: If it does not.
    """
    if not any(isinstance(part, transformers.PreTrainedModel) for part in module.modules()):
        return  # which is said elsewhere
    parameters = inspect.signature(module.forward).parameters
    if "pixel_values" not in parameters and all(each.kind is not each.VAR_KEYWORD for each in parameters.values()):
        taken = ", ".join(f"`{name}`" for name in parameters) or "nothing"
        raise ArgumentTypeError(
            f"`model` must be a module that is called with `pixel_values` and returns an object with `.logits`; "
            f"{class_name(module)} takes {taken}. Hand over the transformers model in it, or rename the argument."
        )


def is_dual_encoder(model: Any) -> bool:
    """Tell whether a model compares images with texts, and has logits only once the texts are known."""
    encoder = unwrapped(model)
    towers = ("get_image_features", "get_text_features")
    return isinstance(encoder, transformers.PreTrainedModel) and all(hasattr(encoder, tower) for tower in towers)


def known_kwargs(model: nn.Module) -> set[str]:
    """Return the arguments that the classifier, or the backbone it hands the rest to, has by name."""
    classifier = unwrapped(model)
    # Where the classifier takes anything, its parts decide.
    known = dict(inspect.signature(classifier.forward).parameters)
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values()):
        for part in classifier.children():
            if isinstance(part, transformers.PreTrainedModel):
                known.update(inspect.signature(part.forward).parameters)
    return set(known) - {"pixel_values", "labels", "kwargs"} - ARGUMENTS


def is_sharded(model: nn.Module) -> bool:
    """Tell whether processes hold a part of the weights each, so that all of them must compute whenever one does."""
    is_spread = any(hasattr(parameter, "full_tensor") for parameter in model.parameters())
    return is_spread or any(shards(module) for module in model.modules())


def config_of(model: nn.Module) -> Any:
    """Return the config of a model, or of a module inside one; None where it has none."""
    return getattr(unwrapped(model), "config", None)


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
