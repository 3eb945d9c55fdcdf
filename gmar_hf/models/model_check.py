"""The check of what a user hands over as a model, at the door; and the arguments that a model takes."""

import inspect
from typing import Any

import torch
import transformers
from torch import nn

from gmar_hf.errors import ArgumentError, ArgumentTypeError, UnsupportedModelError
from gmar_hf.models.flat_patches import ARGUMENTS, ImagesAsPatches, takes_flat_patches
from gmar_hf.models.introspection import timm_model
from gmar_hf.models.refusals import unsupported
from gmar_hf.models.timm_models import why_not
from gmar_hf.models.wrappers import class_name, config_of, runnable, unwrapped


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
