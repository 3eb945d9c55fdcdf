"""Changes to a user's model that are taken back, whoever else is changing it at the same time."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Any, cast

import torch
from torch import nn

from gmar_hf.errors import ArgumentError
from gmar_hf.models.packed_weights import unpack
from gmar_hf.models.wrappers import shards

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


def _put_in_eval(module: nn.Module) -> Undo:
    """Put one module, without its children, in eval mode, and uncompiled."""
    training = module.training
    compiled = module.__dict__.get("_compiled_call_impl")  # by `module.compile()`
    compiled_forward = module.__dict__.get("forward") if "_orig_mod" in module._modules else None  # `torch.compile`

    def undo() -> None:
        if module.training != training:
            module.training = training
        if compiled is not None:
            module._compiled_call_impl = compiled
        if compiled_forward is not None:
            vars(module)["forward"] = compiled_forward

    if training:
        module.training = False
    if compiled is not None:
        module._compiled_call_impl = None
    if compiled_forward is not None:
        vars(module)["forward"] = module._modules["_orig_mod"]
    return undo


# What this thread has frozen: the ids of dictionaries of parameters, a set for each block.
_frozen_here: ContextVar[tuple[frozenset[int], ...]] = ContextVar("gmar_hf_frozen", default=())


class _Parameters(dict[str, nn.Parameter | None]):
    """A module's parameters: constants for the threads that have frozen the module, themselves for all others."""

    def __getitem__(self, name: str) -> nn.Parameter | None:
        parameter = super().__getitem__(name)
        # One of a subclass, such as a quantised one, cannot be made again: it stays in graphs, at the cost of memory.
        if type(parameter) is not nn.Parameter or not parameter.requires_grad:
            return parameter
        is_frozen = any(id(self) in block for block in _frozen_here.get())
        return nn.Parameter(parameter, requires_grad=False) if is_frozen else parameter

    def __reduce__(self) -> tuple[type[dict[str, Any]], tuple[dict[str, Any]]]:
        return dict, (dict(self),)  # copies of the module are nobody's


def _share_parameters(module: nn.Module) -> Undo:
    """Let the parameters of one module, without its children, be constants for those who hold it frozen."""
    own: Any = module._parameters
    if not isinstance(own, dict) or not own:  # TorchScript has another kind
        return lambda: None
    shared = _Parameters(own)
    wanting = [name for name, parameter in own.items() if parameter is not None and parameter.requires_grad]

    def undo() -> None:
        own.clear()
        own.update(shared)  # with what was put in place of others meanwhile
        for name in wanting:  # accelerate does so with offloaded weights, and copies the flag that it finds
            if own.get(name) is not None:
                own[name].requires_grad_(True)
        vars(module)["_parameters"] = own

    vars(module)["_parameters"] = shared
    return undo


def _reshard_in_the_end(module: nn.Module) -> Undo:
    """Let a module of `fully_shard` forget in the end the weights that it has gathered.

    The outermost keeps them until a backward of training: a step of an optimizer before it would not reach them.
    """
    if not shards(module):
        return lambda: None
    reshard: Undo = cast(Any, module).reshard
    return reshard


_in_eval, _sharing = Borrowed(_put_in_eval), Borrowed(_share_parameters)
_unpacking, _resharding = Borrowed(unpack), Borrowed(_reshard_in_the_end)


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Keep a model in eval mode, its parameters constants for this thread, so that a forward keeps activations only.

    Autograd asked for gradients of activations computes none of parameters, but a graph that parameters take part in
    begins at the first of them, and every linear layer keeps its input for its weight. The flag `requires_grad` is the
    same for all threads, and a parameter without it takes no gradient even from a graph that is there already. So it
    stays as it is: where this thread's forwards ask a module for a parameter, they get one that shares its memory and
    wants no gradient. Other threads' forwards and backwards, in whatever mode, get the parameter itself.

    What was compiled runs uncompiled: for a pass or two of another kind compilation would take minutes. 4-bit
    weights that were packed for a kernel without a backward are unpacked meanwhile, see [`unpack`]. Every module is
    held by itself: two models may share some. Eval mode is the same for all threads: forwards that another one makes
    meanwhile are without dropout.

    Args:
        model (`nn.Module`): What is kept.
    """
    modules = list(model.modules())
    with _sharing.hold(modules), _in_eval.hold(modules), _unpacking.hold(modules), _resharding.hold(modules):
        block = frozenset(id(module._parameters) for module in modules)
        _frozen_here.set((*_frozen_here.get(), block))
        try:
            yield
        finally:  # without the variable's own `reset`: blocks may end in any order
            _frozen_here.set(tuple(each for each in _frozen_here.get() if each is not block))


def steady_weights(model: nn.Module) -> list[nn.Parameter]:
    """Return a model's parameters but those that PEFT puts aside in each forward, of LoRA with `target_parameters`."""
    wrapped = [module for module in model.modules() if type(module).__name__ == "ParamWrapper"]
    moving = {id(parameter) for module in wrapped for parameter in module.parameters()}
    return [parameter for parameter in model.parameters() if id(parameter) not in moving]


def weight_versions(model: nn.Module) -> list[tuple[int, int, torch.dtype]]:
    """Return what changes with writes to a weight other than through `.data`, and with the dtype.

    Weights that are put in place for each forward are left out.
    """
    return [(id(weight), weight._version, weight.dtype) for weight in steady_weights(model) if not weight.is_meta]


@contextmanager
def weights_at_rest(model: nn.Module) -> Iterator[None]:
    """Refuse, in the end, weights that were changed inside the block: what came out is of no single model.

    Raises:
        ArgumentError: If they were, as by another thread that trains the model; also in place of an error of torch
            that followed from it.
    """
    before = [(parameter, parameter._version) for parameter in steady_weights(model)]

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
