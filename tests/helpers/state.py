"""Everything about a model that a user could find changed, as plain values that compare with `==`."""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedConfig

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def configs(model: torch.nn.Module) -> dict[int, PreTrainedConfig]:
    """Return every configuration that a module holds, and theirs, by its id."""
    found: dict[int, PreTrainedConfig] = {}
    waiting = [config for module in model.modules() if (config := getattr(module, "config", None)) is not None]
    while waiting:
        config = waiting.pop()
        if isinstance(config, PreTrainedConfig) and id(config) not in found:
            found[id(config)] = config
            waiting += [getattr(config, name, None) for name in config.sub_configs]
    return found


def snapshot(model: torch.nn.Module) -> dict[str, Any]:
    """Return the state of a model, and the state of the random generator and of autograd beside it."""
    return {
        "attention": {key: config._attn_implementation for key, config in configs(model).items()},
        "training": {name: module.training for name, module in model.named_modules()},
        "requires_grad": {name: parameter.requires_grad for name, parameter in model.named_parameters()},
        "values": {name: _content(tensor) for name, tensor in model.state_dict().items()},
        "gradients": {name: (id(p.grad), _content(p.grad)) for name, p in model.named_parameters()},
        "hooks": {name: [list(getattr(module, kind)) for kind in HOOKS] for name, module in model.named_modules()},
        "tensor hooks": {name: len(p._backward_hooks or ()) for name, p in model.named_parameters()},
        "attributes": {name: sorted(vars(module)) for name, module in model.named_modules()},
        "forward": {name: id(vars(module).get("forward")) for name, module in model.named_modules()},
        "random": torch.get_rng_state().tolist(),
        "grad mode": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
    }


def _content(tensor: torch.Tensor | None) -> bytes | None:
    return None if tensor is None else tensor.detach().double().numpy().tobytes()


def make_uneven(model: torch.nn.Module) -> None:
    """Give the flags of modules and parameters a pattern that neither `train()` nor `eval()` would leave behind.

    Some gradients are None, the others are ones. Dropout stays off, so that a forward is what it was.
    """
    for number, module in enumerate(model.modules()):
        module.training = number % 3 == 0 and not isinstance(module, torch.nn.Dropout)
    for number, parameter in enumerate(model.parameters()):
        parameter.requires_grad_(number % 2 == 0)
        parameter.grad = torch.ones_like(parameter) if number % 4 == 0 else None
