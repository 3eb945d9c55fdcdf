"""Maps that ought to lose: they know nothing of the model, or have been told something wrong."""

import hashlib

import torch
from torch import nn
from torch.nn.functional import conv2d, pad

from gmar_hf.explanation.engine import explain
from gmar_hf.models.introspection import encoder_shape
from gmar_hf.models.patches import patch_grid, sum_over_patches

_BLOB_SIGMA = 0.25  # of each side
_SOBEL = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])


def random(model: nn.Module, pixel_values: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Draw uniform noise, another for each image and class."""
    grid = patch_grid(model, pixel_values)
    maps = [
        torch.rand(grid.rows, grid.cols, generator=generator, device="cpu")
        for generator in generators(pixel_values, target)
    ]
    return torch.stack(maps).to(pixel_values.device)


def centre_blob(model: nn.Module, pixel_values: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Draw a Gaussian in the middle, a quarter of each side wide."""
    grid = patch_grid(model, pixel_values)
    sides = [
        torch.exp(-(((torch.arange(side) + 0.5) / side - 0.5) ** 2) / (2 * _BLOB_SIGMA**2))
        for side in (grid.rows, grid.cols)
    ]
    return torch.outer(*sides).expand(len(pixel_values), -1, -1).to(pixel_values.device)


def edges(model: nn.Module, pixel_values: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Draw the magnitude of the Sobel gradient, summed over the channels and pixels of each patch."""
    pixels = pixel_values.float().flatten(0, 1)[:, None]
    kernels = torch.stack([_SOBEL, _SOBEL.T])[:, None].to(pixels)
    magnitude = conv2d(pad(pixels, (1, 1, 1, 1), mode="replicate"), kernels).norm(dim=1)
    return sum_over_patches(model, magnitude.view(pixel_values.shape))


def shuffled_weights(model: nn.Module, pixel_values: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Draw GMAR (L1) with the head weights of every layer dealt out anew: what is left is not due to the weights."""
    weights = explain(model, pixel_values, target, return_maps=False).head_importance
    assert weights is not None
    shuffled = torch.empty_like(weights)
    for image, generator in enumerate(generators(pixel_values, target)):
        for layer, layer_weights in enumerate(weights[image]):
            order = torch.randperm(len(layer_weights), generator=generator, device="cpu")
            shuffled[image, layer] = layer_weights[order.to(layer_weights.device)]
    return _fused(model, pixel_values, target, shuffled)


def uniform_weights(model: nn.Module, pixel_values: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Draw GMAR with equal head weights, which is attention rollout."""
    return _fused(model, pixel_values, target, torch.ones(encoder_shape(model)))


def generators(pixel_values: torch.Tensor, target: torch.Tensor) -> list[torch.Generator]:
    """Make a generator for each image and class, seeded by both: the same in whatever batch, order and process."""
    seeded = []
    for pixels, label in zip(pixel_values.detach().float().cpu(), target.tolist(), strict=True):
        content = hashlib.sha256(pixels.contiguous().numpy().tobytes() + str(label).encode())
        seeded.append(torch.Generator().manual_seed(int.from_bytes(content.digest()[:7])))
    return seeded


def _fused(model: nn.Module, pixel_values: torch.Tensor, target: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    maps = explain(model, pixel_values, target, head_weights=weights).attribution
    assert maps is not None
    return maps
