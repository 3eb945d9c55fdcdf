"""What a model's own forward raises, in words that say what to do."""

from collections.abc import Collection, Iterator, Sized
from contextlib import contextmanager

import torch
from torch import nn
from transformers import PreTrainedModel

from gmar_hf.errors import ArgumentError, GMARError
from gmar_hf.models.freezing import frozen
from gmar_hf.models.introspection import setting, timm_model
from gmar_hf.models.model_check import known_kwargs
from gmar_hf.models.model_inputs import forward
from gmar_hf.models.patches import by_size, pair
from gmar_hf.models.refusals import unsupported
from gmar_hf.models.wrappers import class_name, unwrapped
from gmar_hf.utils.text import shown


@contextmanager
def forward_errors_worded(
    model: nn.Module, pixels: torch.Tensor, layers: Sized, arguments: Collection[str] = ()
) -> Iterator[None]:
    """Turn what the forward in the block raises into an error of ours; what it does not tell of is let through.

    Args:
        model (`nn.Module`): What computes in the block.
        pixels (`torch.Tensor` of shape (batch, channels, height, width)): What it is given.
        layers (`Sized`): Of as many layers the attention has been computed.
        arguments (`Collection[str]`, defaults to ()): Which others it is given, by the user.

    Raises:
        ArgumentError: If the model refuses images of this size; the message says which it takes, or why not this one.
            Or if it fails where it is given more than images.
        UnsupportedModelError: If it is one of transformers' that fails on images of its own size, or one of the user's
            that does not fail by itself.
    """
    try:
        yield
    except (GMARError, torch.OutOfMemoryError):
        raise
    except (ValueError, RuntimeError, TypeError, AttributeError, LookupError, AssertionError) as error:
        takes_any_size = getattr(timm_model(model), "dynamic_img_size", False)
        size = None if takes_any_size else setting(model, "image_size")
        is_other_size = size is not None and pair(size) != tuple(pixels.shape[-2:])
        # The model refused another size than its own before its first layer.
        if is_other_size and not layers and isinstance(error, ValueError | RuntimeError | AssertionError):
            advice = "Resize to that"
            if "interpolate_pos_encoding" in known_kwargs(model):
                advice += ", or pass `interpolate_pos_encoding=True`"
            raise ArgumentError(
                f"`pixel_values` must be {by_size(size)} pixels for {class_name(model)}; "
                f"got {pixels.shape[-2]} x {pixels.shape[-1]}. {advice}."
            ) from error
        if takes_any_size and not layers and isinstance(error, AssertionError):  # of timm's patch embedding
            raise ArgumentError(
                f"`pixel_values` must be of a size that {class_name(model)} takes ({shown(error, 100)}); "
                f"got {pixels.shape[-2]} x {pixels.shape[-1]}. Resize to one."
            ) from error
        if arguments:
            names = ", ".join(f"`{name}`" for name in sorted(arguments))
            raise ArgumentError(
                f"{names} must be something that this {class_name(model)} can use; its forward fails with it "
                f"({shown(error, 100)}). Leave it out."
            ) from error
        # Other errors at run time may be the machine's, and what a user's own module raises is for its author, unless
        # it computes where nobody listens.
        if isinstance(error, RuntimeError):
            raise
        if not isinstance(unwrapped(model), PreTrainedModel):
            if not _computes(model, pixels):
                raise
            raise unsupported(
                model,
                f"its forward fails where its attention is recorded ({shown(error, 100)}), and not by itself: it may "
                "read attention probabilities, which are not made then",
            ) from error
        raise unsupported(model, f"its forward fails on images ({shown(error, 100)})") from error


def _computes(model: nn.Module, pixels: torch.Tensor) -> bool:
    """Tell whether a model's forward by itself, as the user would make it, ends well."""
    with torch.no_grad(), frozen(model):
        try:
            forward(model, pixels)
        except Exception:
            return False
    return True
