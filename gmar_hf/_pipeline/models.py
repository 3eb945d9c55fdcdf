"""The models that the pipeline takes: those of transformers, and modules of the user's around them."""

import os
from typing import Any

import torch
from torch import nn
from transformers import Pipeline, PreTrainedConfig, PreTrainedModel

from gmar_hf.errors import ArgumentTypeError
from gmar_hf.models.wrappers import config_of, runnable, unwrapped


class Placed(nn.Module):
    """A module of the user's as `Pipeline.__init__` wants a model: it says where it is.

    Args:
        module (`nn.Module`): With a config.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.config = module.config

    @property
    def device(self) -> torch.device:
        """Where its first parameter is."""
        return next((parameter.device for parameter in self.module.parameters()), torch.device("cpu"))


def pipeline_model(model: Any) -> Any:
    """Return what `Pipeline.__init__` is given: what computes in the user's model, with a device and a config.

    Args:
        model (`nn.Module`): What the user gave.

    Raises:
        ArgumentTypeError: If it is a module that has no config with the labels.
    """
    model = runnable(model)
    if not isinstance(model, nn.Module) or isinstance(unwrapped(model), PreTrainedModel):
        return model
    config = config_of(model)
    if not isinstance(config, PreTrainedConfig):
        raise ArgumentTypeError(
            f"`model` must have a config of transformers, from which labels and scores are known; got "
            f"{type(model).__name__}, whose `config` is {type(config).__name__}. Set `model.config` to a copy of its "
            "backbone's, with `id2label`."
        )
    return Placed(model)


def users_model(model: Any) -> Any:
    """Return the user's module again, from inside [`Placed`]."""
    return model.module if isinstance(model, Placed) else model


def dtype_of(model: nn.Module) -> torch.dtype | None:
    """Return the type of the first of a module's parameters that are floating-point numbers."""
    return next((parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()), None)


def save_pretrained(pipeline: Pipeline, folder: str | os.PathLike[str], **kwargs: Any) -> None:
    """Write a pipeline's model, image processor and, where it has one, tokenizer.

    Args:
        pipeline (`Pipeline`): The pipeline.
        folder (`str` or `os.PathLike`): Where to.
        **kwargs: Handed to the `save_pretrained` of each.

    Raises:
        ArgumentTypeError: If the model is a module of the user's, which nothing could load again.
    """
    if not hasattr(pipeline.model, "save_pretrained"):
        raise ArgumentTypeError(
            f"`model` must be one of transformers to be saved; got {type(pipeline.model).__name__}. Save its "
            "`state_dict()` with torch."
        )
    # `Pipeline.save_pretrained` would name the pipeline's class as code of the repository, to be trusted or not.
    for part in (pipeline.model, pipeline.image_processor, pipeline.tokenizer):
        if part is not None and not isinstance(part, str):
            part.save_pretrained(folder, **kwargs)
