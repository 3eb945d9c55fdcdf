"""The method for attention inside windows, written from its description alone: slow loops, float64, explicit matrices.

It shares no code with the package: where a window's tokens lie is found by sending numbered maps through transformers'
own functions, and what merged tokens cover by the stage that their layer stands in. For Hiera see `hiera_oracle`, for
SegFormer and PVT `reduced_oracle`.
"""

from __future__ import annotations

import copy
import sys
from dataclasses import dataclass

import numpy as np
import torch
from transformers import AttentionInterface, PreTrainedModel

from tests.helpers.oracle import ATTENTION_NAME, Tape, backbone, select_scalar

LAYERS = ("SwinLayer", "Swinv2Layer", "DonutSwinLayer")
SELF_ATTENTIONS = ("Swinv2SelfAttention", "DonutSwinSelfAttention")  # off the interface


@dataclass(frozen=True)
class Layer:
    """One layer of one image: W windows of n tokens, m of which ask after queries are merged, H heads.

    Attributes:
        attention, gradient: A and G (W, H, m, n).
        value: V (W, H, n, d).
        output, output_gradient: O and dO (W, H, m, d); O is after the scale.
        covered, covered_by_queries: (W, n, rows, cols) and (W, m, rows, cols), the patches that each token covers;
            none of padding and of class tokens.
        num_prefix: How many class tokens stand first.
    """

    attention: np.ndarray
    gradient: np.ndarray
    value: np.ndarray
    output: np.ndarray
    output_gradient: np.ndarray
    covered: np.ndarray
    covered_by_queries: np.ndarray
    num_prefix: int = 0

    @property
    def num_heads(self) -> int:
        return self.attention.shape[1]


def mean_of_tokens(vectors: np.ndarray, covered: np.ndarray, num_prefix: int) -> np.ndarray:
    """Return the mean (d,) of a head's vectors (W, n, d) over class tokens and those of the map, without padding."""
    without_padding = [
        vectors[window, token]
        for window in range(vectors.shape[0])
        for token in range(vectors.shape[1])
        if token < num_prefix or covered[window, token].any()
    ]
    return np.mean(without_padding, axis=0)


@dataclass(frozen=True)
class Reference:
    """One image and its target.

    Attributes:
        hidden_gradient: By what the head is handed, (tokens, channels).
        covered_by_hidden: The patches that these tokens cover, (tokens, rows, cols).
    """

    layers: list[Layer]
    hidden_gradient: np.ndarray
    covered_by_hidden: np.ndarray
    logits: np.ndarray
    scale: float

    @property
    def num_heads(self) -> int:
        return max(layer.num_heads for layer in self.layers)

    @property
    def rows(self) -> int:
        return self.covered_by_hidden.shape[1]

    @property
    def cols(self) -> int:
        return self.covered_by_hidden.shape[2]


def reference_runs(
    model: PreTrainedModel, pixel_values: torch.Tensor, target: list[int], scale: float = 1.0
) -> list[Reference]:
    """Run a float64 copy with explicit attention, its outputs times `scale`, and differentiate one logit an image."""
    explicit, tape = copy.deepcopy(model).double().eval(), Tape(scale)
    AttentionInterface.register(ATTENTION_NAME, tape)
    if any(type(module).__name__ in SELF_ATTENTIONS for module in explicit.modules()):
        _keep_by_hooks(explicit, tape)
    else:
        explicit.set_attn_implementation(ATTENTION_NAME)
    sizes: list[tuple[torch.nn.Module, int, int]] = []
    for module in explicit.modules():
        if type(module).__name__ in LAYERS:
            module.register_forward_pre_hook(lambda module, args: sizes.append((module, *args[1])))
    logits, gradients = differentiate(explicit, tape, pixel_values, target)
    num_layers, batch = len(sizes), len(pixel_values)
    assert len(tape.attentions) == num_layers == sum(explicit.config.depths)
    stages = [stage for stage, depth in enumerate(explicit.config.depths) for _ in range(depth)]
    by_image: list[list[Layer]] = [[] for _ in range(batch)]
    for index, (module, rows, cols) in enumerate(sizes):
        kept_by_tape = (each[index].detach().numpy() for each in (tape.attentions, tape.values, tape.outputs))
        arrays = [*kept_by_tape, gradients[index], gradients[num_layers + index]]
        # Windows of an image follow each other.
        for layers, of_image in zip(
            by_image, zip(*(np.split(array, batch) for array in arrays), strict=True), strict=True
        ):
            names = ("attention", "value", "output", "gradient", "output_gradient")
            tensors = dict(zip(names, of_image, strict=True))
            covered = squares(places_of(module, rows, cols), cols, stages[index], sizes[0][1:])
            assert covered.any(axis=(0, 1)).all()  # every patch is in some token
            layers.append(Layer(**tensors, covered=covered, covered_by_queries=covered))
    _, last_rows, last_cols = sizes[-1]
    hidden = squares(np.arange(last_rows * last_cols)[None], last_cols, stages[-1], sizes[0][1:])[0]
    return [
        Reference(layers, gradients[-1][image], hidden, logits[image].detach().numpy(), scale)
        for image, layers in enumerate(by_image)
    ]


def differentiate(
    explicit: PreTrainedModel, tape: Tape, pixel_values: torch.Tensor, target: list[int]
) -> tuple[torch.Tensor, list[np.ndarray]]:
    """Return the logits, and the gradients of one logit an image by A and O of every layer, and by the last state."""
    kept: dict[str, torch.Tensor] = {}
    backbone(explicit).register_forward_hook(lambda module, args, output: kept.update(hidden=output.last_hidden_state))
    with torch.enable_grad():
        images = pixel_values.detach().double().requires_grad_(True)
        logits = explicit(pixel_values=images, output_attentions=True).logits
        scalars = select_scalar(logits, target)
        tensors = [*tape.attentions, *tape.outputs, kept["hidden"]]
        return logits, [gradient.numpy() for gradient in torch.autograd.grad(scalars.sum(), tensors)]


def _keep_by_hooks(explicit: PreTrainedModel, tape: Tape) -> None:
    """Let modules that are off the interface leave A, V and O on the tape, with the heads apart."""

    def heads_apart(module, tensor):
        return tensor.view(*tensor.shape[:2], module.num_attention_heads, -1).transpose(1, 2)

    def keep_value(attention):
        attention.value.register_forward_hook(
            lambda module, args, output: tape.values.append(heads_apart(attention, output))
        )

    def keep(module, args, results):
        output = tape.scale * heads_apart(module, results[0])
        tape.outputs.append(output)
        tape.attentions.append(results[1])
        return output.transpose(1, 2).flatten(2), results[1]

    for module in explicit.modules():
        if type(module).__name__ in SELF_ATTENTIONS:
            keep_value(module)
            module.register_forward_hook(keep)


def places_of(layer: torch.nn.Module, rows: int, cols: int) -> np.ndarray:
    """Send the numbers of a map's tokens through transformers' padding, shift and partition."""
    partition = sys.modules[type(layer).__module__].window_partition
    numbers = torch.arange(1, rows * cols + 1).view(1, rows, cols, 1)  # padding is 0
    padded, _ = layer.maybe_pad(numbers, rows, cols)
    shift = int(layer.shift_size)
    windows = partition(torch.roll(padded, (-shift, -shift), dims=(1, 2)), int(layer.window_size))
    return windows.flatten(1).numpy() - 1


def squares(places: np.ndarray, cols: int, stage: int, patches: tuple[int, int]) -> np.ndarray:
    """Return the patches (W, n, rows, cols) that tokens at these places (W, n) of a stage's map cover."""
    side, covered = 2**stage, np.zeros((*places.shape, *patches), dtype=bool)
    for window, of_window in enumerate(places):
        for token, place in enumerate(of_window):
            if place >= 0:
                row, col = divmod(int(place), cols)
                covered[window, token, row * side : (row + 1) * side, col * side : (col + 1) * side] = True
    return covered


# ----------------------------------------------------------------------------------------------------------------
# What is made of it
# ----------------------------------------------------------------------------------------------------------------


def token_contributions(layer: Layer, reference: float | str, scale: float) -> np.ndarray:
    """Return (W, H, n): the sum over queries i of A_ij <dO_i, V_j - what it is compared with>."""
    num_windows, num_heads, num_queries, num_tokens = layer.attention.shape
    contributions = np.zeros((num_windows, num_heads, num_tokens))
    for head in range(num_heads):
        mean = None
        if reference != "output":
            mean = reference * mean_of_tokens(layer.value[:, head], layer.covered, layer.num_prefix)
        for window in range(num_windows):
            for query in range(num_queries):
                against = layer.output[window, head, query] / scale if mean is None else mean
                slopes = (layer.value[window, head] - against) @ layer.output_gradient[window, head, query]
                contributions[window, head] += layer.attention[window, head, query] * slopes
    return contributions


def edge_contributions(layer: Layer) -> np.ndarray:
    """Return (W, H, n): the sum over queries i of A_ij G_ij, from the gradient of the attention itself."""
    return (layer.attention * layer.gradient).sum(axis=2)


def spread(number: float, covered: np.ndarray, patches: np.ndarray) -> None:
    """Add a token's number to the patches that it covers, the same to each."""
    patches[covered] += number / covered.sum()


def head_maps(reference: Reference, value_reference: float | str) -> tuple[np.ndarray, np.ndarray]:
    """Return maps (L, H, rows, cols) and padding's parts (L, H); NaN of heads that a layer lacks."""
    num_layers, num_heads = len(reference.layers), reference.num_heads
    maps = np.full((num_layers, num_heads, reference.rows, reference.cols), np.nan)
    padding = np.full((num_layers, num_heads), np.nan)
    for index, layer in enumerate(reference.layers):
        contributions = token_contributions(layer, value_reference, reference.scale)
        for head in range(layer.num_heads):
            maps[index, head], padding[index, head] = 0, 0
            for window, of_window in enumerate(layer.covered):
                for token, covered in enumerate(of_window):
                    number = contributions[window, head, token]
                    if covered.any():
                        spread(number, covered, maps[index, head])
                    else:
                        padding[index, head] += number
    return maps, padding


def head_contributions(reference: Reference) -> np.ndarray:
    """Return (L, H): the sum of A_ij G_ij over all windows and pairs, padding included, before the scale."""
    contributions = np.full((len(reference.layers), reference.num_heads), np.nan)
    for index, layer in enumerate(reference.layers):
        contributions[index, : layer.num_heads] = edge_contributions(layer).sum(axis=(0, 2)) / reference.scale
    return contributions


def centred_head_contributions(reference: Reference) -> np.ndarray:
    """Return (L, H): the sum over tokens i, without padding, of <O_i - mean_k O_k, dO_i>, outputs before the scale."""
    contributions = np.full((len(reference.layers), reference.num_heads), np.nan)
    for index, layer in enumerate(reference.layers):
        for head in range(layer.num_heads):
            covered_by_queries, num_prefix = layer.covered_by_queries, layer.num_prefix
            mean, total = mean_of_tokens(layer.output[:, head], covered_by_queries, num_prefix), 0.0
            for window, of_window in enumerate(covered_by_queries):
                for token, covered in enumerate(of_window):
                    if token < num_prefix or covered.any():
                        beyond = layer.output[window, head, token] - mean
                        total += float(np.dot(beyond, layer.output_gradient[window, head, token]))
            contributions[index, head] = total / reference.scale
    return contributions


def readout(reference: Reference) -> np.ndarray:
    """Return (rows, cols): norms of the gradient by what the head is handed, as shares, spread over the patches."""
    norms = np.linalg.norm(reference.hidden_gradient, axis=1)
    patches = np.zeros((reference.rows, reference.cols))
    for covered, norm in zip(reference.covered_by_hidden, norms, strict=True):
        if covered.any():
            spread(norm / norms.sum(), covered, patches)
    return patches
