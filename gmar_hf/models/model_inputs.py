"""What a user hands to a model, checked and made ready for a backward."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from gmar_hf.errors import ArgumentError, ImageArgumentError
from gmar_hf.models.introspection import setting
from gmar_hf.models.model_check import known_kwargs
from gmar_hf.models.refusals import unsupported
from gmar_hf.models.wrappers import class_name
from gmar_hf.utils.checks import check_flags
from gmar_hf.utils.tensors import cast, check_images


def checked_pixels(model: nn.Module, pixel_values: torch.Tensor, argument: str = "pixel_values") -> torch.Tensor:
    """Return a copy of `pixel_values` that is ready for the model: without a graph, in the model's dtype.

    Args:
        model (`nn.Module`): The classifier.
        pixel_values (`torch.Tensor` of shape (batch, channels, height, width)): What the user gave.
        argument (`str`, defaults to "pixel_values"): What errors call it.

    Returns:
        `torch.Tensor` of shape (batch, channels, height, width): On the device of `pixel_values`.

    Raises:
        ArgumentError: If the shape, the channels or the dtype do not fit, or the model's dtype does not hold a number.
        ArgumentTypeError: If it is no dense tensor of real numbers.
    """
    check_images(pixel_values, argument)
    channels = setting(model, "num_channels")
    if channels is not None and pixel_values.shape[1] != channels:
        raise ArgumentError(
            f"`{argument}` must have {channels} channel{'s' * (channels > 1)} for {class_name(model)}; "
            f"got {pixel_values.shape[1]}. Convert the images."
        )
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), pixel_values.dtype)
    pixels = cast(_usable(pixel_values), dtype)
    if pixels is None:
        raise ImageArgumentError(
            f"`{argument}` must lie in what the model computes with, {str(dtype).removeprefix('torch.')} up to "
            f"{torch.finfo(dtype).max:.3g}; got {pixel_values.abs().max():.3g}. Normalise the images by the image "
            "processor."
        )
    return pixels


def forward(model: nn.Module, pixels: torch.Tensor, **model_kwargs: Any) -> Any:
    """Make a model's forward with pixels of its own: it may write into what it is given, as to normalise it.

    Args:
        model (`nn.Module`): The classifier.
        pixels (`torch.Tensor` of shape (batch, channels, height, width)): From [`checked_pixels`]; stay as they are.
        **model_kwargs: Handed to the model.

    Returns:
        What the model returns.
    """
    return model(pixel_values=pixels.clone(), **model_kwargs)


def logits_of(model: nn.Module, pixels: torch.Tensor, **model_kwargs: Any) -> torch.Tensor:
    """Make a model's forward, see [`forward`], and return its logits (batch, classes).

    Raises:
        UnsupportedModelError: If it returns none.
    """
    logits = getattr(forward(model, pixels, **model_kwargs), "logits", None)
    if not isinstance(logits, torch.Tensor) or logits.ndim != 2:
        raise unsupported(model, "it returns no logits of shape (batch, classes), as `.logits` of an object")
    return logits


_OF_OUTPUTS = ("output_attentions", "output_hidden_states", "return_dict")


def check_known_kwargs(
    model: nn.Module, model_kwargs: dict[str, Any], advise: Callable[[str], str] = lambda name: ""
) -> None:
    """Refuse keyword arguments that transformers would silently swallow.

    Args:
        model (`nn.Module`): The classifier.
        model_kwargs (`dict[str, Any]`): What the user gave.
        advise (`Callable`): From the name of an unknown one to what the error says behind its sentence.

    Raises:
        ArgumentError: If the model does not know one of them, or a flag is no flag.
    """
    for name in sorted({*model_kwargs}.intersection(_OF_OUTPUTS)):
        raise ArgumentError(
            f"`{name}` must not be given (what the model returns is not handed on). Leave it out; attention "
            "probabilities are given by `gmar_hf.retain_attention`."
        )
    for name in sorted(set(model_kwargs) - known_kwargs(model)):
        raise ArgumentError(f"`{name}` must be an argument that {class_name(model)} knows; it does not.{advise(name)}")
    if model_kwargs.get("interpolate_pos_encoding") is not None:
        check_flags(interpolate_pos_encoding=model_kwargs["interpolate_pos_encoding"])


def usable_kwargs(model_kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return a model's keyword arguments with tensors that a backward can keep.

    Raises:
        ArgumentError: If one holds NaN, for which the logits would be blamed.
    """
    for name, value in model_kwargs.items():
        if isinstance(value, torch.Tensor) and value.is_floating_point() and value.isnan().any():
            raise ArgumentError(f"`{name}` must hold no NaN; got {int(value.isnan().sum())}. Look at what made it.")
    return {name: _usable(value) for name, value in model_kwargs.items()}


def _usable(value: Any) -> Any:
    """Copy a tensor without its graph, so that a backward can keep it even if it was made in inference mode."""
    if not isinstance(value, torch.Tensor):
        return value
    with torch.inference_mode(False):
        return value.detach().clone()
