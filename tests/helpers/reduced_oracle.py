"""The method for SegFormer's and PVT's attention, to keys that are merged from several tokens: slow loops, float64.

It shares no code with the package: a key is merged from a square of tokens, and a token is made of a square of those
of the stage before, by convolutions whose strides the config has.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from transformers import AttentionInterface, PreTrainedModel

from tests.helpers.oracle import ATTENTION_NAME, Tape
from tests.helpers.window_oracle import Layer, Reference, differentiate

LAYERS = ("SegformerLayer", "PvtLayer", "PvtV2BlockLayer")


def reference_runs(
    model: PreTrainedModel, pixel_values: torch.Tensor, target: list[int], scale: float = 1.0
) -> list[Reference]:
    """Run a float64 copy with explicit attention, its outputs times `scale`, and differentiate one logit an image."""
    explicit, tape = copy.deepcopy(model).double().eval(), Tape(scale)
    config = explicit.config
    if config.model_type == "segformer":
        AttentionInterface.register(ATTENTION_NAME, tape)
        explicit.set_attn_implementation(ATTENTION_NAME)
    else:
        _keep_by_hooks(explicit, tape)
    sizes: list[tuple[int, int]] = []
    for module in explicit.modules():
        if type(module).__name__ in LAYERS:
            module.register_forward_pre_hook(lambda module, args: sizes.append(args[1:3]))
    logits, gradients = differentiate(explicit, tape, pixel_values, target)
    num_layers, patches = len(sizes), sizes[0]
    assert len(tape.attentions) == num_layers == sum(config.depths)
    stages = [stage for stage, depth in enumerate(config.depths) for _ in range(depth)]
    apart = config.patch_sizes if config.model_type == "pvt" else config.strides
    ratios = config.sequence_reduction_ratios if config.model_type == "pvt" else config.sr_ratios

    def squares(index: int, ratio: int) -> np.ndarray:
        """Return the patches (1, prefix + tokens, rows, cols) that the tokens of a layer's map, or keys, cover."""
        rows, cols = sizes[index]
        side = ratio
        for stage in range(1, stages[index] + 1):
            side *= apart[stage]
        covered = []
        for row in range(rows // ratio):
            for col in range(cols // ratio):
                square = np.zeros(patches, dtype=bool)
                square[row * side : (row + 1) * side, col * side : (col + 1) * side] = True
                covered.append(square)
        return np.stack([*[np.zeros(patches, dtype=bool)] * num_prefix(index), *covered])[None]

    def num_prefix(index: int) -> int:
        return int(config.model_type == "pvt" and stages[index] == len(config.depths) - 1)

    references = []
    for image in range(len(pixel_values)):
        layers = []
        for index in range(num_layers):
            kept_by_tape = (each[index][image] for each in (tape.attentions, tape.values, tape.outputs))
            arrays = [each.detach().numpy()[None] for each in kept_by_tape]
            slopes = [gradients[index][image][None], gradients[num_layers + index][image][None]]
            names = ("attention", "value", "output", "gradient", "output_gradient")
            layers.append(
                Layer(
                    **dict(zip(names, [*arrays, *slopes], strict=True)),
                    covered=squares(index, ratios[stages[index]]),
                    covered_by_queries=squares(index, 1),
                    num_prefix=num_prefix(index),
                )
            )
        hidden = gradients[-1][image]
        if hidden.ndim == 3:  # (channels, rows, cols)
            hidden = hidden.reshape(len(hidden), -1).T
        covered = squares(num_layers - 1, 1)[0]
        references.append(Reference(layers, hidden, covered, logits[image].detach().numpy(), scale))
    return references


def _keep_by_hooks(explicit: PreTrainedModel, tape: Tape) -> None:
    """Let PVT's modules leave A, V and O on the tape, with the heads apart."""

    def heads_apart(module: torch.nn.Module, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.unflatten(2, (module.num_attention_heads, -1)).transpose(1, 2)

    def scaled(module: torch.nn.Module, context: torch.Tensor) -> torch.Tensor:
        tape.outputs.append(tape.scale * heads_apart(module, context))
        return tape.outputs[-1].transpose(1, 2).flatten(2)

    def follow(attention: torch.nn.Module) -> None:
        attention.value.register_forward_hook(
            lambda module, args, output: tape.values.append(heads_apart(attention, output))
        )
        if hasattr(attention, "proj"):  # PVT v2 has its output projection inside
            attention.proj.register_forward_pre_hook(lambda module, args: (scaled(attention, args[0]),))

    def keep(module: torch.nn.Module, args: object, results: tuple[torch.Tensor, torch.Tensor]) -> object:
        tape.attentions.append(results[1])
        return results if hasattr(module, "proj") else (scaled(module, results[0]), results[1])

    for module in explicit.modules():
        if type(module).__name__ in ("PvtEfficientSelfAttention", "PvtV2SelfAttention"):
            follow(module)
            module.register_forward_hook(keep)
