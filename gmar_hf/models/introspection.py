"""Where a model keeps its encoder's layers, whatever it calls them."""

import inspect
from typing import Any

import transformers
from torch import nn

from gmar_hf.errors import ArgumentError, ArgumentTypeError, UnsupportedModelError

SERVED = "ViT, DeiT, BEiT, DINOv2, SigLIP, CLIP, I-JEPA and their kin"
OFF_THE_INTERFACE = "its attention does not go through transformers' attention interface"


def unsupported(model: nn.Module, reason: str) -> UnsupportedModelError:
    """The error for a model that cannot be explained, with its class and the reason."""
    return UnsupportedModelError(f"{class_name(model)} cannot be explained: {reason}. Use a model like {SERVED}.")


def class_name(model: nn.Module) -> str:
    """The class the user knows: of the wrapped model under PEFT."""
    return type(unwrapped(model)).__name__


def unwrapped(model: Any) -> Any:
    """The transformers model itself, also of a model that `torch.compile` or PEFT has wrapped."""
    model = getattr(model, "_orig_mod", model)
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def encoder_layers(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """The list of the encoder's layers and its name in the transformers model itself.

    It is the largest list of modules that has as many as the config says there are layers.

    Args:
        model (`nn.Module`): A transformers model, or a wrapper of one.

    Raises:
        UnsupportedModelError: If there is no such list.
    """
    num_layers = setting(getattr(unwrapped(model), "config", None), "num_hidden_layers")
    found = [
        (name, module)
        for name, module in unwrapped(model).named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == num_layers
    ]
    if not found:
        expected = "layers" if num_layers is None else f"the {num_layers} layers in its config"
        raise unsupported(model, f"it has no list of {expected}")
    return max(found, key=lambda one: sum(parameter.numel() for parameter in one[1].parameters()))


def check_model(model: nn.Module) -> None:
    """Raise if `model` is no model that gradients can pass.

    Raises:
        ArgumentError: If its weights are inference tensors.
        ArgumentTypeError: If it is no module.
    """
    if not isinstance(model, nn.Module):
        raise ArgumentTypeError(
            f"`model` must be an image classifier of transformers; got {type(model).__name__}. "
            "Load it with `AutoModelForImageClassification.from_pretrained`."
        )
    if any(parameter.is_inference() for parameter in model.parameters()):
        raise ArgumentError(
            "`model` must have been loaded outside `torch.inference_mode` (no gradient can pass its weights); "
            "got inference tensors. Load it again outside the block."
        )


def known_kwargs(model: nn.Module) -> set[str]:
    """Arguments that the classifier, or the backbone it hands the rest to, has by name."""
    classifier = unwrapped(model)
    known = dict(inspect.signature(classifier.forward).parameters)
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values()):
        for part in classifier.children():
            if isinstance(part, transformers.PreTrainedModel):
                known.update(inspect.signature(part.forward).parameters)
    return set(known) - {"pixel_values", "labels", "kwargs"}


def setting(config: Any, name: str) -> Any:
    """`config.name`, or that of its vision part (CLIP, SigLIP)."""
    return getattr(config, name, None) or getattr(getattr(config, "vision_config", None), name, None)
