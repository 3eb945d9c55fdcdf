"""Changes to a user's model that are taken back, whoever else is changing it at the same time."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import nn

Undo = Callable[[], None]


class Borrowed:
    """Objects changed for a while: the first to come changes, the last to leave puts back.

    Several calls may hold one object at once, from several threads or nested: a module of two models, or a config that
    two models share.

    Args:
        change (`Callable`): Changes an object and returns the function that puts it back as it was.
    """

    def __init__(self, change: Callable[[Any], Undo]) -> None:
        self._change = change
        self._held: dict[int, tuple[int, Undo]] = {}
        self._lock = threading.RLock()

    @contextmanager
    def hold(self, things: Iterable[Any]) -> Iterator[None]:
        """Keep `things` changed inside the block; they are put back after success and after any exception."""
        taken: list[int] = []
        try:
            # Each thing is held by its id, with the number of its holders and the way back.
            with self._lock:
                for thing in things:
                    holders, undo = self._held.get(id(thing)) or (0, self._change(thing))
                    self._held[id(thing)] = (holders + 1, undo)
                    taken.append(id(thing))
            yield
        finally:
            with self._lock:
                for key in reversed(taken):
                    holders, undo = self._held.pop(key)
                    if holders > 1:
                        self._held[key] = (holders - 1, undo)
                    else:
                        undo()


def _freeze(module: nn.Module) -> Undo:
    """Put one module, without its children, in eval mode, and let no parameter of it want a gradient."""
    training = module.training
    wanting = [name for name, parameter in module.named_parameters(recurse=False) if parameter.requires_grad]

    def undo() -> None:
        if module.training != training:
            module.training = training
        for name in wanting:  # by name: where weights are offloaded, accelerate puts new parameters in their place
            module.get_parameter(name).requires_grad_(True)

    if training:
        module.training = False
    for name in wanting:
        module.get_parameter(name).requires_grad_(False)
    return undo


_frozen = Borrowed(_freeze)


def frozen(model: nn.Module) -> AbstractContextManager[None]:
    """Keep a model in eval mode, without parameters that want gradients, so that a forward keeps activations only.

    Every module is held by itself: two models may share some.
    """
    return _frozen.hold(model.modules())


@contextmanager
def gradients_on() -> Iterator[None]:
    """Record gradients inside the block, also under an outer `torch.no_grad` or `torch.inference_mode`."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


def full_precision(device: torch.device) -> AbstractContextManager[None]:
    """Reduce in the tensors' own precision inside the block, also under the user's `torch.autocast`."""
    return torch.autocast(device.type, enabled=False)
