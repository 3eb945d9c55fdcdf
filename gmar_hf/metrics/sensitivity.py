"""How much a map changes when the image hardly does."""

from collections.abc import Callable

import torch

from gmar_hf.errors import ArgumentError, ArgumentTypeError
from gmar_hf.metrics.localization import checked_maps
from gmar_hf.utils.blame import blaming
from gmar_hf.utils.checks import check_number, check_seed, check_whole
from gmar_hf.utils.tensors import check_images

DrawFunction = Callable[[torch.Tensor], torch.Tensor]
"""Turns pixel values (batch, channels, height, width) into maps (batch, rows, cols), of the same classes each time."""


def max_sensitivity(
    draw_fn: DrawFunction,
    pixel_values: torch.Tensor,
    attribution: torch.Tensor | None = None,
    *,
    radius: float = 0.02,
    num_samples: int = 10,
    seed: int = 0,
) -> torch.Tensor:
    """Return the largest change of a map under small noise, `max_e |map(x + e) - map(x)| / |map(x)|`.

    It is max-sensitivity (Yeh et al., "On the (In)fidelity and Sensitivity of Explanations", NeurIPS 2019), with the
    Frobenius norm, relative to the map's own norm so that maps in other units compare; as captum's `sensitivity_max`.

    Args:
        draw_fn (`Callable`): From pixel values (batch, channels, height, width) to their maps (batch, rows, cols), of
            the same classes each time. It is called `num_samples` times, and once more without `attribution`: the
            metric costs so many maps.
        pixel_values (`torch.Tensor` of shape (batch, channels, height, width)): The images.
        attribution (`torch.Tensor` of shape (batch, rows, cols), *optional*): Their maps, if they are drawn already.
        radius (`float`, defaults to 0.02): Noise is uniform in [-radius, radius], in pixel values as the model sees
            them; where these run from -1 to 1 the default is two and a half grey levels.
        num_samples (`int`, defaults to 10): How often noise is drawn. The true maximum lies above that of a sample.
        seed (`int`, defaults to 0): Of the noise, which is the same for all images of a size.

    Returns:
        `torch.Tensor` of shape (batch,): 0 or more, 0 for a map that stays as it is, NaN where the map is zero
            everywhere; float32 on the maps' device. Lower is steadier: a map that never looks at the image gets 0.

    Raises:
        ArgumentError: If an argument cannot be used, or the maps are not finite, or change their shape.
        ArgumentTypeError: If an argument is of the wrong kind.

    Example:
        >>> def draw(pixel_values):
        ...     return pixel_values.sum(dim=1)
        >>> max_sensitivity(draw, torch.ones(2, 3, 4, 4), radius=0.1).shape
        torch.Size([2])
    """
    if not callable(draw_fn):
        raise ArgumentTypeError(
            f"`draw_fn` must be a function from pixel values to maps; got {type(draw_fn).__name__}. "
            "Wrap `gmar_hf.explain`, with the classes' indices as its target."
        )
    check_images(pixel_values)
    radius = check_number("radius", radius, above=0)
    check_whole("num_samples", num_samples, minimum=1)
    generator = torch.Generator().manual_seed(check_seed("seed", seed))
    images = pixel_values.detach()
    maps = checked_maps("attribution", draw_fn(images) if attribution is None else attribution)

    # Divided by their largest number: no square in a norm goes out of range, whatever the size of the maps.
    size = maps.abs().amax(dim=(1, 2), keepdim=True)
    relative = maps / size
    largest = torch.zeros(len(maps), device=maps.device, dtype=maps.dtype)
    for _ in range(num_samples):
        noise = radius * (2 * torch.rand(images.shape[1:], generator=generator, device="cpu") - 1)
        if not (noisy := images + noise.to(images)).isfinite().all():
            raise ArgumentError(
                f"`radius` must leave the pixel values in {str(images.dtype).removeprefix('torch.')}; got {radius:g}."
            )
        with blaming(
            lambda: f"`radius` must leave pixel values that `draw_fn` can draw maps of; got {radius:g}. Lower it.",
            without=lambda: draw_fn(images),
        ):
            drawn = draw_fn(noisy)
        noisy_maps = checked_maps("draw_fn", drawn).to(maps)
        if noisy_maps.shape != maps.shape:
            raise ArgumentError(
                f"`draw_fn` must give maps of one shape; got {tuple(noisy_maps.shape)} after {tuple(maps.shape)}."
            )
        largest = largest.maximum((noisy_maps / size - relative).flatten(1).norm(dim=1))
    return (largest / relative.flatten(1).norm(dim=1)).float()
