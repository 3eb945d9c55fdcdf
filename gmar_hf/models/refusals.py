"""The sentence in which a model that cannot be explained is refused, and reasons that several places give."""

from torch import nn

from gmar_hf.errors import UnsupportedModelError
from gmar_hf.models.wrappers import class_name

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
