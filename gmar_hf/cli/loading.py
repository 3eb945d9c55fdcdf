"""Loading what a command was pointed at."""

from typing import Any

import torch
import transformers

from ..errors import ArgumentError
from ..pipeline import TASK, GMARExplainer


def load_explainer(model: str, revision: str | None, device: str | None, parameters: dict[str, Any]) -> GMARExplainer:
    """The pipeline for a model's name or folder.

    Raises:
        ArgumentError: If there is no such device, or a parameter is wrong.
        OSError: If the model cannot be loaded; transformers says why.
    """
    given = {name: value for name, value in parameters.items() if value is not None}
    explainer: Any = transformers.pipeline(
        TASK, model=model, revision=revision, device=checked_device(device), **given
    )
    return explainer


def checked_device(device: str | None) -> torch.device | None:
    """The device of that name, or None where none was named.

    Raises:
        ArgumentError: If this machine has no such device.
    """
    if device is None:
        return None
    try:
        found = torch.device(device)
        torch.empty(1, device=found)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise ArgumentError(f"`device` must be one that this machine has; got {device!r}. Use cpu.") from error
    return found
