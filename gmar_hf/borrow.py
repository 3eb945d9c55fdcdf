"""Changes to a user's model that are taken back, whoever else is changing it at the same time."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

Undo = Callable[[], None]


class Borrowed:
    """Objects changed for a while: the first to come changes, the last to leave puts back.

    Several calls may hold one object at once, from several threads or nested: a model, or a config that two models
    share.

    Args:
        change (`Callable`): Changes an object and returns the function that puts it back as it was.
    """

    def __init__(self, change: Callable[[Any], Undo]) -> None:
        self._change = change
        self._held: dict[int, tuple[int, Undo]] = {}
        self._lock = threading.RLock()

    @contextmanager
    def hold(self, thing: Any) -> Iterator[None]:
        """Keep `thing` changed inside the block; it is put back after success and after any exception."""
        with self._lock:
            holders, undo = self._held.get(id(thing)) or (0, self._change(thing))
            self._held[id(thing)] = (holders + 1, undo)
        try:
            yield
        finally:
            with self._lock:
                holders, undo = self._held.pop(id(thing))
                if holders > 1:
                    self._held[id(thing)] = (holders - 1, undo)
                else:
                    undo()


def _freeze(model: nn.Module) -> Undo:
    """Put a model in eval mode and let no parameter want a gradient, so that a forward keeps activations only."""
    training = [module for module in model.modules() if module.training]
    wanting = [parameter for parameter in model.parameters() if parameter.requires_grad]

    def undo() -> None:
        for module in training:
            module.training = True
        for parameter in wanting:
            parameter.requires_grad_(True)

    for module in training:
        module.training = False
    for parameter in wanting:
        parameter.requires_grad_(False)
    return undo


frozen = Borrowed(_freeze)


@contextmanager
def gradients_on() -> Iterator[None]:
    """Record gradients inside the block, also under an outer `torch.no_grad` or `torch.inference_mode`."""
    with torch.inference_mode(False), torch.enable_grad():
        yield
