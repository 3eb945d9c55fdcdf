"""Whether a model's patches are where a map takes them to be: on the pixels that were given, last of the tokens."""

import inspect
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from gmar_hf.errors import UnsupportedModelError
from gmar_hf.models.flat_patches import takes_flat_patches
from gmar_hf.models.freezing import full_precision
from gmar_hf.models.hooks import of_this_thread
from gmar_hf.models.introspection import encoder_layers
from gmar_hf.models.patches import known_patch_size
from gmar_hf.models.windows import has_stages
from gmar_hf.models.wrappers import class_name, is_sharded

_ROUNDING = 2.0**-7  # of the largest value: bfloat16 rounds by up to 2^-9


@contextmanager
def patches_in_place(model: nn.Module, pixels: torch.Tensor) -> Iterator[None]:
    """Refuse, in a forward inside the block, patches that are not where a map would show them.

    The patch embedding is known as the convolution that is as wide as a patch apart. It must be given the images' own
    pixels, at most normalised; and of the tokens that the first layer is given the last ones must depend on the
    patches, the first of these on the first patch. Gradients tell that, through the embeddings alone. Where there is
    no such convolution nothing is known, and nothing is refused; of a sharded model the tokens are not looked at.

    Args:
        model (`nn.Module`): What computes inside the block, frozen, with gradients on.
        pixels (`torch.Tensor` of shape (batch, channels, height, width)): What it is given.

    Raises:
        UnsupportedModelError: With what is wrong.
    """
    embeddings = _patch_embeddings(model, pixels.shape[1])
    places = _Places(model, pixels)
    with ExitStack() as stack:
        for embedding in embeddings:
            stack.callback(embedding.register_forward_pre_hook(of_this_thread(places.check_pixels)).remove)
        for module in filter(takes_flat_patches, model.modules()):
            hook = of_this_thread(places.check_no_padding)
            stack.callback(module.register_forward_pre_hook(hook, with_kwargs=True).remove)
        first = _first_layer(model)
        # A backward inside the forward of a sharded model would take the weights away that its layers have gathered.
        if embeddings and first is not None and not is_sharded(model):
            for embedding in embeddings:
                stack.callback(embedding.register_forward_hook(of_this_thread(places.begin)).remove)
            hook = of_this_thread(places.check_tokens)
            stack.callback(first.register_forward_pre_hook(hook, with_kwargs=True).remove)
        yield


def _patch_embeddings(model: nn.Module, num_channels: int) -> list[nn.Conv2d]:
    size = known_patch_size(model)
    convolutions = (module for module in model.modules() if isinstance(module, nn.Conv2d))
    return [each for each in convolutions if each.in_channels == num_channels and tuple(each.stride) == size]


def _first_layer(model: nn.Module) -> nn.Module | None:
    """Return the first layer of those that get one grid of tokens; None where there is none, or it is not found."""
    try:
        return encoder_layers(model)[1][0]
    except UnsupportedModelError:
        return None


class _Places:
    """What is known of one forward.

    Args:
        model (`nn.Module`): What computes.
        pixels (`torch.Tensor` of shape (batch, channels, height, width)): What it was given.
    """

    def __init__(self, model: nn.Module, pixels: torch.Tensor) -> None:
        self._model, self._pixels = model, pixels
        self._patches: torch.Tensor | None = None  # (batch, channels, rows, cols), where gradients arrive

    def check_pixels(self, embedding: nn.Module, inputs: Any) -> None:
        """Look at what the patch embedding is given; those with windows pad it, below and at the right."""
        seen, pixels = inputs[0], self._pixels
        if has_stages(self._model) and seen.ndim == 4:
            seen = seen[..., : pixels.shape[-2], : pixels.shape[-1]]
        if seen.shape != pixels.shape:
            how = f"resized, cut or padded to {tuple(seen.shape)}, from {tuple(pixels.shape)}"
        elif _is_normalised(seen.detach(), pixels):
            return
        else:
            how = "moved or otherwise changed"
        raise UnsupportedModelError(
            f"{class_name(self._model)} cannot be explained: its patch embedding gets other pixels than "
            f"`pixel_values`, {how}, so a map would lie elsewhere than what it shows. Do that to the images first."
        )

    def check_no_padding(self, module: nn.Module, inputs: Any, kwargs: Any) -> None:
        """Refuse flattened patches of which some are padding, which stands behind them, where a map takes patches."""
        mask = inspect.signature(module.forward).bind_partial(*inputs, **kwargs).arguments.get("pixel_attention_mask")
        if isinstance(mask, torch.Tensor) and not mask.all():
            raise UnsupportedModelError(
                f"{class_name(self._model)} cannot be explained with padded patches (they stand behind the others, so "
                "a map would lie elsewhere than it shows). Give it patches without padding, one shape at a time."
            )

    def begin(self, embedding: nn.Module, inputs: Any, output: Any) -> torch.Tensor | None:
        """Let gradients arrive at the patches, until the first layer begins."""
        if self._patches is not None or not isinstance(output, torch.Tensor) or output.requires_grad:
            return None
        self._patches = output.detach().requires_grad_()
        return self._patches.clone()  # which may be written into

    def check_tokens(self, layer: nn.Module, inputs: Any, kwargs: Any) -> tuple[Any, Any] | None:
        """See on which patches the first tokens depend that a map takes for patches; the graph ends here."""
        tokens = inputs[0] if inputs else kwargs.get("hidden_states")
        patches, self._patches = self._patches, None
        if patches is None or not isinstance(tokens, torch.Tensor) or not tokens.requires_grad:
            return None
        num_patches = patches.shape[-2:].numel()
        prefix = tokens.shape[1] - num_patches
        if prefix >= 0:  # else it is refused in other words
            with full_precision(tokens.device):
                depends = _dependence(tokens[0, prefix : prefix + 2], patches)
            if not depends[: min(2, num_patches)].all():
                raise UnsupportedModelError(
                    f"{class_name(self._model)} cannot be explained: the last {num_patches} of its {tokens.shape[1]} "
                    "tokens are not the patches, row by row, so a map would lie elsewhere than what it shows. Put "
                    "other tokens before the patches."
                )
        detached = tokens.detach()
        return ((detached, *inputs[1:]), kwargs) if inputs else ((), {**kwargs, "hidden_states": detached})


def _dependence(tokens: torch.Tensor, patches: torch.Tensor) -> torch.Tensor:
    """Return for every patch of the first image whether tokens (tokens, hidden_size) depend on it."""
    # Weights that no normalisation cancels.
    weights = torch.randn(tokens.shape, generator=torch.Generator().manual_seed(0), device="cpu").to(tokens)
    (gradient,) = torch.autograd.grad((tokens * weights).sum(), patches)
    return (gradient[0] != 0).any(dim=0).flatten()


def _is_normalised(seen: torch.Tensor, pixels: torch.Tensor) -> bool:
    """Tell whether what is seen is the pixels, or a weighted sum of each one's channels, and a constant."""
    if torch.equal(seen.to(pixels.dtype), pixels):
        return True
    channels = pixels.shape[1]
    given = pixels[:4].double().movedim(1, -1).reshape(-1, channels)
    got = seen[:4].double().movedim(1, -1).reshape(-1, channels)
    if not (given.isfinite().all() and got.isfinite().all()):
        return True  # which the logits will tell
    given, got = given - given.mean(dim=0), got - got.mean(dim=0)
    weights = torch.linalg.pinv(given.T @ given) @ (given.T @ got)
    return bool((given @ weights - got).abs().max() <= _ROUNDING * got.abs().max())
