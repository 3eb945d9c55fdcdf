"""Changes to a user's model that are taken back, whoever else is changing it at the same time."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import nn

from gmar_hf.errors import ArgumentError

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


_trained: set[int] = set()  # ids of modules that are in eval mode for a while only


def _put_in_eval(module: nn.Module) -> Undo:
    """Put one module, without its children, in eval mode, and uncompiled."""
    training = module.training
    compiled = module.__dict__.get("_compiled_call_impl")  # by `module.compile()`

    def undo() -> None:
        if module.training != training:
            module.training = training
        if compiled is not None:
            module._compiled_call_impl = compiled
        _trained.discard(id(module))

    if training:
        module.training = False
        _trained.add(id(module))
    if compiled is not None:
        module._compiled_call_impl = None
    return undo


def _stop_gradients(module: nn.Module) -> Undo:
    """Let no parameter of one module, without its children, want a gradient."""
    wanting = [name for name, parameter in module.named_parameters(recurse=False) if parameter.requires_grad]

    def undo() -> None:
        for name in wanting:  # by name: where weights are offloaded, accelerate puts new parameters in their place
            module.get_parameter(name).requires_grad_(True)

    for name in wanting:
        module.get_parameter(name).requires_grad_(False)
    return undo


_in_eval, _without_gradients = Borrowed(_put_in_eval), Borrowed(_stop_gradients)


@contextmanager
def frozen(model: nn.Module, *, in_training: bool = False) -> Iterator[None]:
    """Keep a model in eval mode, without parameters that want gradients, so that a forward keeps activations only.

    What was compiled in place runs uncompiled: for a pass or two of another kind compilation would take minutes.
    Every module is held by itself: two models may share some. Where there are other threads, one of which may train
    the model and would lose its graph, parameters of modules in training mode are left alone; a forward keeps more
    for them.

    Args:
        model (`nn.Module`): What is kept.
        in_training (`bool`, defaults to False): Whether parameters of modules in training mode are kept from wanting
            gradients in any case: for those who call `backward`, which would leave something in their `grad`.
    """
    modules = list(model.modules())
    in_training = in_training or threading.active_count() == 1
    quiet = [module for module in modules if in_training or not (module.training or id(module) in _trained)]
    with _without_gradients.hold(quiet), _in_eval.hold(modules):
        yield


@contextmanager
def weights_at_rest(model: nn.Module) -> Iterator[None]:
    """Refuse, in the end, weights that were changed inside the block: what came out is of no single model.

    Raises:
        ArgumentError: If they were, as by another thread that trains the model; also in place of an error of torch
            that followed from it.
    """
    before = [(parameter, parameter._version) for parameter in model.parameters()]

    def check(failure: RuntimeError | None) -> None:
        if any(parameter._version != version for parameter, version in before):
            raise ArgumentError(
                "`model` must keep its weights while it is explained (else forward and backward are of different "
                "models); they were changed meanwhile, as by training in another thread. Explain between two steps, "
                "or a copy (`copy.deepcopy`)."
            ) from failure

    try:
        yield
    except RuntimeError as error:
        check(error)
        raise
    check(None)


@contextmanager
def gradients_on() -> Iterator[None]:
    """Record gradients inside the block, also under an outer `torch.no_grad` or `torch.inference_mode`."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


def full_precision(device: torch.device) -> AbstractContextManager[None]:
    """Reduce in the tensors' own precision inside the block, also under the user's `torch.autocast`."""
    return torch.autocast(device.type, enabled=False)
