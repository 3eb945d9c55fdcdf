"""Maps of other families, from well-kept libraries: for comparison only, and with the optional extra `compare`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from gmar_hf.errors import ArgumentError
from gmar_hf.explanation.engine import explain
from gmar_hf.images.baselines import baseline_pixels
from gmar_hf.models.freezing import frozen, gradients_on
from gmar_hf.models.gradient_flow import gradients_passing
from gmar_hf.models.hooks import of_this_thread
from gmar_hf.models.introspection import encoder_layers
from gmar_hf.models.model_inputs import checked_pixels, forward
from gmar_hf.models.patches import patch_grid, patch_size, sum_over_patches
from gmar_hf.utils.tensors import copies_at_once

_IG_STEPS = 32
_MAX_ROWS = 256  # images that a model gets at once, at most

Logits = Callable[[torch.Tensor], torch.Tensor]


def integrated_gradients(model: nn.Module, pixel_values: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Draw integrated gradients of the logit (Sundararajan, Taly, Yan 2017), by captum, summed over each patch.

    There are 32 midpoint steps from the blurred image, whose Gaussian is as wide as a patch is high.
    """
    with _differentiable(model, pixel_values) as (logits, pixels):
        blurred = baseline_pixels(pixels, "blur", blur_sigma=float(patch_size(model)[0]))
        attribution = _integrated(logits, pixels, blurred, target, _IG_STEPS)
    return sum_over_patches(model, attribution)


def expected_gradients(model: nn.Module, pixel_values: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Draw the mean of integrated gradients from four fillings (after Erion et al. 2021), by captum, over each patch.

    They are the image under a Gaussian as wide as a patch is high and under one four times as wide, zero, and each
    channel's mean; of the 32 midpoint steps each has 8.
    """
    width = float(patch_size(model)[0])
    fillings = [("blur", width), ("blur", 4 * width), ("zero", width), ("mean", width)]
    with _differentiable(model, pixel_values) as (logits, pixels):
        attributions = [
            _integrated(logits, pixels, baseline_pixels(pixels, name, blur_sigma=sigma), target, _IG_STEPS // 4)
            for name, sigma in fillings
        ]
    return sum_over_patches(model, torch.stack(attributions).mean(dim=0))


def _integrated(
    logits: Logits, pixels: torch.Tensor, baseline: torch.Tensor, target: torch.Tensor, num_steps: int
) -> torch.Tensor:
    from captum.attr import IntegratedGradients

    attribution: torch.Tensor = IntegratedGradients(logits).attribute(
        pixels,
        baseline,
        target=target,
        n_steps=num_steps,
        method="riemann_middle",
        internal_batch_size=copies_at_once(pixels, _MAX_ROWS) * len(pixels),
    )
    return attribution


def input_x_gradient(model: nn.Module, pixel_values: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Draw pixel values times the logit's gradient (Shrikumar et al. 2016), by captum, summed over each patch."""
    from captum.attr import InputXGradient

    with _differentiable(model, pixel_values) as (logits, pixels):
        attribution = InputXGradient(logits).attribute(pixels.requires_grad_(), target=target)
    return sum_over_patches(model, attribution.detach())


def occlusion(model: nn.Module, pixel_values: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Draw what the logit loses when one patch shows the blurred image (Zeiler and Fergus 2014), by captum.

    An image that is explained for several classes goes through the model once for all of them.
    """
    from captum.attr import FeatureAblation

    grid, (height, width) = patch_grid(model, pixel_values), patch_size(model)
    number = torch.arange(grid.rows * grid.cols, device=pixel_values.device).view(1, 1, grid.rows, grid.cols)
    patches = number.repeat_interleave(height, dim=2).repeat_interleave(width, dim=3)
    beyond = [whole - part for whole, part in zip(pixel_values.shape[-2:], patches.shape[-2:], strict=True)]
    # Captum wants a part for every pixel: those beyond the last whole patch are one more.
    parts = torch.nn.functional.pad(patches, (0, beyond[1], 0, beyond[0]), value=grid.rows * grid.cols)
    with _differentiable(model, pixel_values) as (logits, pixels), torch.no_grad():
        attribution = FeatureAblation(_once_for_equal_images(logits, pixels)).attribute(
            pixels,
            baseline_pixels(pixels, "blur", blur_sigma=float(height)),
            target=target,
            feature_mask=parts,
            perturbations_per_eval=copies_at_once(pixels, _MAX_ROWS),
        )
    # Each pixel and channel has its patch's figure.
    return attribution[:, 0, : grid.rows * height : height, : grid.cols * width : width].float()


def _once_for_equal_images(logits: Logits, pixels: torch.Tensor) -> Logits:
    """Make of a function to logits one for copies of a batch, one after the other, each with patches hidden alike."""
    distinct, place = pixels.unique(dim=0, return_inverse=True)
    places = place.tolist()
    firsts = [places.index(number) for number in range(len(distinct))]

    def of_copies(rows: torch.Tensor) -> torch.Tensor:
        found = logits(rows.unflatten(0, (-1, len(pixels)))[:, firsts].flatten(0, 1))
        return found.unflatten(0, (-1, len(firsts)))[:, place].flatten(0, 1)

    return of_copies


def grad_cam(model: nn.Module, pixel_values: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Draw Grad-CAM (Selvaraju et al. 2017), by torch-cam, of the patch tokens of the last place the logit hears of.

    That is the last encoder layer's output where the head reads patches; where it reads other tokens alone, such as a
    class token, it is behind the first layer norm of that layer. Positive parts only: many patches are zero, alike.
    """
    from torchcam.methods import GradCAM

    grid = patch_grid(model, pixel_values)
    with _differentiable(model, pixel_values) as (logits, pixels):
        readout = explain(model, pixels[:1], target[:1], method="rollout", return_maps=False).readout
        assert readout is not None
        reads_patches = bool(readout[:, -grid.rows * grid.cols :].any())
        place = encoder_layers(model)[1][-1] if reads_patches else _last_norm(model, logits, pixels)
        adapter = TokensAsImage(logits, place, grid.rows, grid.cols)
        adapter.eval()
        with GradCAM(adapter, target_layer="image") as extractor:
            scores = adapter(pixels.requires_grad_())  # torch-cam wants a graph from the very start
            (maps,) = extractor(target.tolist(), scores, normalized=False)
    return maps.detach().float()


@contextmanager
def _differentiable(model: nn.Module, pixel_values: torch.Tensor) -> Iterator[tuple[Logits, torch.Tensor]]:
    """Give the classifier as a function to logits, and pixels that a graph can begin with; the model is frozen."""
    with gradients_on(), frozen(model), gradients_passing(model):
        yield lambda pixels: forward(model, pixels).logits, checked_pixels(model, pixel_values)


def _last_norm(model: nn.Module, logits: Logits, pixels: torch.Tensor) -> nn.Module:
    """Find the layer norm that the last encoder layer calls first."""
    _, layers = encoder_layers(model)
    called: list[nn.Module] = []  # in this order
    norms = [module for module in layers[-1].modules() if isinstance(module, nn.LayerNorm)]
    note = of_this_thread(lambda module, args, output: called.append(module))
    hooks = [norm.register_forward_hook(note) for norm in norms]
    try:
        with torch.no_grad():
            logits(pixels[:1])
    finally:
        for hook in hooks:
            hook.remove()
    if not called:
        raise ArgumentError("`model` must have a layer norm in its last encoder layer for Grad-CAM; it has none.")
    return called[0]


class TokensAsImage(nn.Module):
    """Runs a classifier and shows the patch tokens behind one of its modules as an image to whoever hooks `image`.

    Args:
        logits (`Callable`): The classifier.
        place (`nn.Module`): Where the tokens are taken, (batch, tokens, channels), the patches last.
        rows, cols (`int`): Of the patches.
    """

    def __init__(self, logits: Logits, place: nn.Module, rows: int, cols: int) -> None:
        super().__init__()
        self.image = nn.Identity()
        self._logits, self._shape = logits, (rows, cols)
        self._places = [place]  # in a list, or it would be a part of this module

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        def show(module: nn.Module, args: Any, output: Any) -> Any:
            tokens = output if isinstance(output, torch.Tensor) else output[0]
            prefix = tokens.shape[1] - self._shape[0] * self._shape[1]
            image = self.image(tokens[:, prefix:].transpose(1, 2).unflatten(-1, self._shape))
            shown = torch.cat([tokens[:, :prefix], image.flatten(2).transpose(1, 2)], dim=1)
            return shown if isinstance(output, torch.Tensor) else (shown, *output[1:])

        hook = self._places[0].register_forward_hook(of_this_thread(show))
        try:
            return self._logits(pixel_values)
        finally:
            hook.remove()
