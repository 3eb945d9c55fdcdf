"""Where a model keeps its encoder's layers, whatever it calls them."""

from torch import nn

from .capture import unsupported, unwrapped
from .forward import setting


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
