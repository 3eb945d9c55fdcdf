"""Where the patches stand among the tokens of a forward, and which methods are defined there."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

from gmar_hf.errors import ArgumentError
from gmar_hf.explanation.methods import METHODS
from gmar_hf.explanation.request import Request
from gmar_hf.explanation.trace import Trace
from gmar_hf.models.patches import Grid, by_size, find_grid, pair, patch_size_in, tokens_of
from gmar_hf.models.refusals import unsupported
from gmar_hf.models.windows import has_stages
from gmar_hf.models.wrappers import class_name
from gmar_hf.utils.text import quoted


class Patches(NamedTuple):
    """Where the patches stand among the tokens, and their height and width in pixels."""

    grid: Grid
    size: tuple[int, int]


def find_patches(trace: Trace, requests: Sequence[Request], pixels: torch.Tensor) -> Patches:
    """Find the patches among the tokens of a forward.

    Args:
        trace ([`Trace`]): The forward.
        requests (`Sequence` of [`Request`]): What is asked for of it.
        pixels (`torch.Tensor` of shape (batch, channels, height, width)): What the model saw.

    Raises:
        ArgumentError: If a request starts at a layer that the model does not have.
        UnsupportedModelError: If the tokens are not those of the patches with some before them.
    """
    num_layers = len(trace.layers)
    for request in requests:
        if request.start_layer >= num_layers:
            raise ArgumentError(f"`start_layer` must be in [0, {num_layers - 1}]; got {request.start_layer}.")
    size = patch_size_in(trace.layers[0].config)
    if size is None:
        raise unsupported(trace.model, "its config has no `patch_size`")
    if (grid := trace.grid) is not None:
        _check_stages(trace, grid, requests, pixels, size)
        return Patches(grid, size)
    return Patches(find_grid(pair(pixels.shape[-2:]), size, tokens_of(trace.hidden).shape[1]), size)


def methods_of(model: nn.Module) -> list[str]:
    """Return the methods that are defined for a model: of layers in stages those that multiply no attention matrices.

    Args:
        model (`nn.Module`): The classifier.
    """
    if not has_stages(model):
        return list(METHODS)
    return [name for name, method in METHODS.items() if method.value_reference is not None]


def _check_stages(
    trace: Trace, grid: Grid, requests: Sequence[Request], pixels: torch.Tensor, patch_size: tuple[int, int]
) -> None:
    """Refuse what is not defined for layers that stand in stages.

    Raises:
        ArgumentError: If a method multiplies attention matrices, or the images are not made of whole patches.
        UnsupportedModelError: If some stage's tokens reach beyond the patches.
    """
    defined = methods_of(trace.model)
    for request in requests:
        if request.method not in defined:
            raise ArgumentError(
                f"`method` must be one of {quoted(defined)} for {class_name(trace.model)} (its layers stand in "
                "stages, each on a map of its own, and the others multiply attention over all tokens); "
                f"got {request.method!r}."
            )
    height, width = pixels.shape[-2:]
    if height % patch_size[0] or width % patch_size[1]:
        raise ArgumentError(
            f"`pixel_values` must be whole patches of {by_size(patch_size)} pixels for {class_name(trace.model)} (it "
            f"would pad or cut them); got {height} x {width}. Resize to that."
        )
    # Convolutions whose kernels are even make a row and a column more than there are patches.
    layouts = [call.layout.of_outputs for call in trace.layers if call.layout is not None]
    fits = (grid.rows * patch_size[0], grid.cols * patch_size[1]) == (height, width) and all(
        (layout.rows - 1) * layout.covers[0] < grid.rows and (layout.cols - 1) * layout.covers[1] < grid.cols
        for layout in layouts
    )
    if not fits:
        raise unsupported(trace.model, "its patches, or the tokens of a later stage, do not cover the image evenly")
