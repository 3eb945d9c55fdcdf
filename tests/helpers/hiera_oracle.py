"""The method for Hiera, written from its description alone: slow loops, float64, transformers' own explicit attention.

It shares no code with the package. Where a token lies is asked of the pixels: attention is taken out of the model, so
that all that reaches a token are the pixels that it was made of, and each patch in turn is changed.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator

import numpy as np
import torch
from transformers import HieraForImageClassification

from tests.helpers.oracle import select_scalar
from tests.helpers.window_oracle import Layer, Reference

NUM_CHANGES = 6  # of each patch; a merged token shows one that is the largest of its channels, before or after it


def reference_runs(
    model: HieraForImageClassification, pixel_values: torch.Tensor, target: list[int], scale: float = 1.0
) -> list[Reference]:
    """Run a float64 copy with explicit attention, its outputs times `scale`, and differentiate one logit an image."""
    explicit = copy.deepcopy(model).double().eval()
    kept: dict[str, list[torch.Tensor]] = {name: [] for name in ("attention", "projected", "output")}
    for attention in attentions_of(explicit):
        attention.qkv.register_forward_hook(lambda module, args, output: kept["projected"].append(output))
        attention.proj.register_forward_pre_hook(lambda module, args: _keep(kept["output"], scale * args[0]))
        attention.register_forward_hook(lambda module, args, results: kept["attention"].append(results[1]))
    hidden: list[torch.Tensor] = []
    explicit.hiera.encoder.register_forward_hook(lambda module, args, output: hidden.append(output.last_hidden_state))
    with torch.enable_grad():
        images = pixel_values.detach().double().requires_grad_(True)
        logits = explicit(pixel_values=images, output_attentions=True).logits
        scalar = select_scalar(logits, target).sum()
        tensors = [*kept["attention"], *kept["output"], *hidden]
        gradients = torch.autograd.grad(scalar, tensors)
    num_layers, covered = len(kept["attention"]), covered_patches(model, tuple(pixel_values.shape[-2:]))
    assert num_layers == sum(model.config.depths) == len(covered) - 1
    references = []
    for image in range(len(images)):
        layers = []
        for index in range(num_layers):
            attention = kept["attention"][index][image].transpose(0, 1)  # (W, H, m, n)
            num_windows, num_heads, _, num_tokens = attention.shape

            def windows(by_token: torch.Tensor, num_windows: int = num_windows, num_heads: int = num_heads):
                """Cut (tokens, channels) into (W, H, n, d): one token of each window after the other."""
                rows = [by_token[window::num_windows].unflatten(1, (num_heads, -1)) for window in range(num_windows)]
                return torch.stack(rows).transpose(1, 2).detach().numpy()

            value = kept["projected"][index][image].chunk(3, dim=1)[2]
            layers.append(
                Layer(
                    attention=attention.detach().numpy(),
                    gradient=gradients[index][image].transpose(0, 1).numpy(),
                    value=windows(value),
                    output=windows(kept["output"][index][image]),
                    output_gradient=windows(gradients[num_layers + index][image]),
                    covered=np.stack([covered[index][window::num_windows] for window in range(num_windows)]),
                    covered_by_queries=np.stack(
                        [covered[index + 1][window::num_windows] for window in range(num_windows)]
                    ),
                )
            )
            assert layers[-1].covered.shape[1] == num_tokens
            np.testing.assert_allclose(layers[-1].output, scale * layers[-1].attention @ layers[-1].value)
        hidden_gradient = gradients[-1][image].numpy()
        references.append(Reference(layers, hidden_gradient, covered[-1], logits[image].detach().numpy(), scale))
    return references


def _keep(kept: list[torch.Tensor], tensor: torch.Tensor) -> tuple[torch.Tensor]:
    kept.append(tensor)
    return (tensor,)


def attentions_of(model: torch.nn.Module) -> Iterator[torch.nn.Module]:
    return (module for module in model.modules() if type(module).__name__ == "HieraMaskUnitAttention")


@functools.lru_cache(maxsize=4)
def covered_patches(model: HieraForImageClassification, image_size: tuple[int, int]) -> list[np.ndarray]:
    """Return the patches (tokens, rows, cols) that each token of each layer's input covers, and of the last output.

    A patch is where its kernel's centre lies: that pixel is in no other token's kernel.
    """
    alone = copy.deepcopy(model).double().eval()
    states: list[torch.Tensor] = []
    for attention in attentions_of(alone):
        attention.register_forward_hook(lambda module, args, results: (0 * results[0], None))
    for layer in (module for module in alone.modules() if type(module).__name__ == "HieraLayer"):
        layer.register_forward_pre_hook(lambda module, args: states.append(args[0]))
    alone.hiera.encoder.register_forward_hook(lambda module, args, output: states.append(output.last_hidden_state))
    config, generator = model.config, torch.Generator().manual_seed(0)
    rows, cols = (size // stride for size, stride in zip(image_size, config.patch_stride, strict=True))
    before = torch.randn(NUM_CHANGES, config.num_channels, *image_size, generator=generator).double()
    found: list[np.ndarray] = []
    with torch.no_grad():
        alone(pixel_values=before)
        reference = [state.repeat(cols, 1, 1) for state in states]
        for row in range(rows):  # the patches of a row as one batch
            after = before.repeat(cols, 1, 1, 1)
            for col in range(cols):
                pixel = [
                    place * stride - padding + (size - 1) // 2
                    for place, stride, padding, size in zip(
                        (row, col), config.patch_stride, config.patch_padding, config.patch_size, strict=True
                    )
                ]
                change = 5 * torch.randn(NUM_CHANGES, config.num_channels, generator=generator)
                after[col * NUM_CHANGES : (col + 1) * NUM_CHANGES, :, pixel[0], pixel[1]] += change
            states.clear()
            alone(pixel_values=after)
            for index, (one, other) in enumerate(zip(reference, states, strict=True)):
                if len(found) <= index:
                    found.append(np.zeros((one.shape[1], rows, cols), dtype=bool))
                moved = ((one - other).abs().amax(dim=2) > 1e-9).unflatten(0, (cols, NUM_CHANGES))
                found[index][:, row] = moved.any(dim=1).T.numpy()
    for covered in found:  # every patch is in one token, which are of one size
        assert (covered.sum(axis=0) == 1).all()
        assert (covered.sum(axis=(1, 2)) == rows * cols // len(covered)).all()
    return found
