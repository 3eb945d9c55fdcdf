"""What a head is like: where it looks, and what it says to the logit itself."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from gmar_hf.explanation.finiteness import check_encoder_gradients
from gmar_hf.explanation.forward_errors import forward_errors_worded
from gmar_hf.explanation.head_scores import head_contribution
from gmar_hf.explanation.rollout import attention_blocks
from gmar_hf.models.attention import recording
from gmar_hf.models.freezing import frozen, full_precision, gradients_on
from gmar_hf.models.hooks import of_this_thread
from gmar_hf.models.introspection import encoder_layers, encoder_shape
from gmar_hf.models.model_check import checked_model
from gmar_hf.models.model_inputs import check_known_kwargs, checked_pixels, forward, usable_kwargs
from gmar_hf.models.patches import Grid, find_grid, patch_size
from gmar_hf.models.recorders import AttentionCall, ComputingRecorder
from gmar_hf.models.refusals import miscounted
from gmar_hf.models.targets import Choice, Target, choose_target
from gmar_hf.utils.tensors import at_least_float32

_HALF_SCALE = 2.0**10  # of the gradients of a float16 model, which would underflow
NO_SKIP = "some head's output reaches the logit only through a layer norm of its own layer"
NOT_LINEAR = "what follows the last layer, or a branch without a layer norm before it, is not linear"


@dataclass(frozen=True, eq=False)
class HeadDescription:
    """What the heads are like on a batch of images: float32, detached, on the inputs' device.

    Attention is that of the patch tokens: means over the rows of all patches that attend to something, and not over
    those of prefix tokens.

    Args:
        attention_distance (`torch.Tensor` of shape (batch, layers, heads)): How far from its own place a patch looks,
            in patches: the distance between the patches' centres (a patch is one unit high and wide), weighted by the
            attention, which is divided by its sum over the patches (Dosovitskiy et al., ICLR 2021, in pixels there;
            Raghu et al., NeurIPS 2021).
        attention_entropy (`torch.Tensor` of shape (batch, layers, heads)): The entropy of a row over all tokens, in
            nats; 0 for one token, the logarithm of their number for all alike (Clark et al., BlackboxNLP 2019).
        prefix_attention (`torch.Tensor` of shape (batch, layers, heads)): The share of a row on the prefix tokens, in
            [0, 1]: the resting places of heads that have nothing to say (Darcet et al., ICLR 2024).
        direct_effect (`torch.Tensor` of shape (batch, [targets,] layers, heads), *optional*): What the head itself
            says to the logit, in logits: its output through the output projection's weight (no bias) and its layer
            scale, the skip connections, the final norm with its scale held at its value, and the classifier, past all
            later layers (direct logit attribution: Elhage et al., "A Mathematical Framework for Transformer
            Circuits", 2021; nostalgebraist, "interpreting GPT: the logit lens", 2020). None where it is undefined.
        undefined (`str`, *optional*): Why there is no `direct_effect`.
    """

    attention_distance: torch.Tensor
    attention_entropy: torch.Tensor
    prefix_attention: torch.Tensor
    direct_effect: torch.Tensor | None
    undefined: str | None


def describe_heads(
    model: nn.Module, pixel_values: torch.Tensor, target: Target = None, **model_kwargs: Any
) -> HeadDescription:
    """Describe the heads: attention distance, entropy, share on prefix tokens, direct effect on the logit.

    One forward, whose attention matrices are made piece by piece, layer by layer, and reduced at once; the
    direct effect takes a backward through output projections and skip connections alone.

    Args:
        model (`nn.Module`): An image classifier of transformers, or one wrapped by PEFT; it is left as it was.
        pixel_values (`torch.Tensor` of shape (batch, channels, height, width)): What the image processor makes.
        target: Which logit the direct effect is on, as [`explain`] takes it; None for the predicted class.
        **model_kwargs: Handed to the model, such as `interpolate_pos_encoding=True`.

    Returns:
        [`HeadDescription`]

    Raises:
        ArgumentError, ArgumentTypeError, NonFiniteError: If something cannot be used.
        UnsupportedModelError: If the model's attention or tokens are of a kind that cannot be described.

    Example:
        >>> import gmar_hf, gmar_hf.demo
        >>> model, image_processor = gmar_hf.demo.load("vit")
        >>> pixel_values = image_processor(gmar_hf.demo.scenes(1)[0]["image"], return_tensors="pt")["pixel_values"]
        >>> description = gmar_hf.describe_heads(model, pixel_values)
        >>> description.attention_distance.shape, description.direct_effect.shape
        (torch.Size([1, 6, 8]), torch.Size([1, 6, 8]))
    """
    model = checked_model(model)
    check_known_kwargs(model, model_kwargs)
    pixels = checked_pixels(model, pixel_values)
    with gradients_on(), frozen(model), _direct_path(model):
        recorder = _Recorder(model, pixels)
        with recording(model, recorder), forward_errors_worded(model, pixels, recorder.looks, model_kwargs):
            logits = forward(model, pixels, **usable_kwargs(model_kwargs)).logits
        recorder.check()
        choice = choose_target(target, at_least_float32(logits))
        with full_precision(pixels.device):
            effect, undefined = _direct_effect(choice, recorder.outputs)
    looks = _by_layer(recorder.looks, pixel_values.device)
    check_encoder_gradients(looks, *([] if effect is None else [effect]))
    distance, entropy, on_prefix = looks.unbind(dim=-1)
    return HeadDescription(
        attention_distance=distance,
        attention_entropy=entropy,
        prefix_attention=on_prefix,
        direct_effect=None if effect is None else effect.to(pixel_values.device, torch.float32),
        undefined=undefined,
    )


def describe_attention(call: AttentionCall, grid: Grid) -> torch.Tensor:
    """Reduce a layer's attention from the patch tokens, piece by piece.

    Args:
        call ([`AttentionCall`]): The layer's queries, keys, bias and scaling.
        grid ([`Grid`]): Where the patches stand among the tokens.

    Returns:
        `torch.Tensor` of shape (batch, heads, 3): Attention distance, entropy and share on the prefix tokens, as
            [`HeadDescription`] defines them; at least float32.
    """
    num_patches, device = grid.rows * grid.cols, call.query.device
    places = torch.arange(num_patches, device=device)
    centres = torch.stack([places // grid.cols, places % grid.cols], dim=1).float()
    total = at_least_float32(call.query).new_zeros(*call.query.shape[:2], 3)
    for piece, attention in attention_blocks(call):
        rows = piece.rows
        first = max(rows.start, grid.prefix)  # rows of prefix tokens are passed over
        if first >= rows.stop:
            continue
        attention = attention[:, :, first - rows.start :]
        to_patches = attention[..., grid.prefix :]
        distance = torch.cdist(centres[first - grid.prefix : rows.stop - grid.prefix], centres).to(attention)
        share = to_patches.sum(dim=-1)
        # A row that gives the patches nothing that a float can hold looks nowhere: its distance counts as 0.
        mean_distance = (to_patches * distance).sum(dim=-1) / share.clamp_min(torch.finfo(share.dtype).tiny)
        entropy = torch.special.entr(attention).sum(dim=-1)
        on_prefix = attention[..., : grid.prefix].sum(dim=-1)
        total[piece[:2]] += torch.stack([mean_distance, entropy, on_prefix], dim=-1).sum(dim=2)
    return total / _num_attending(call, num_patches)


def _num_attending(call: AttentionCall, num_patches: int) -> torch.Tensor | int:
    """Count the patches whose rows attend to something, (batch or 1, heads or 1, 1); all of them without padding."""
    if (idle := call.idle_queries) is None:
        return num_patches
    of_patches = idle.expand(-1, -1, call.query.shape[2], -1)[:, :, -num_patches:]
    return (~of_patches).sum(dim=2).clamp_min(1)


class _Recorder(ComputingRecorder):
    """Describes each layer's attention, and lets gradients begin at every layer's output alone."""

    def __init__(self, model: nn.Module, pixels: torch.Tensor) -> None:
        self._model = model
        self._pixels = pixels
        self.outputs: list[torch.Tensor] = []
        self.looks: list[torch.Tensor] = []

    def attend(self, call: AttentionCall) -> tuple[torch.Tensor, None]:
        height, width = self._pixels.shape[-2:]
        grid = find_grid((height, width), patch_size(self._model), call.query.shape[2])
        with torch.no_grad(), full_precision(self._pixels.device):
            self.looks.append(describe_attention(call, grid))
        output = call.compute_output().detach().requires_grad_()
        self.outputs.append(output)
        return output, None

    def check(self) -> None:
        num_layers, _ = encoder_shape(self._model)
        if len(self.outputs) != num_layers:
            raise miscounted(self._model, len(self.outputs), num_layers)


@contextmanager
def _direct_path(model: nn.Module) -> Iterator[None]:
    """Leave gradients no way from a head to the logit but the direct one; values stay as they are.

    In the layers, whose branches begin with a norm, what comes out of a norm has no gradient: later heads and MLPs are
    constants. Behind them norms keep their scale: they are linear.
    """
    inside = {id(part) for layer in encoder_layers(model)[1] for part in layer.modules()}
    with ExitStack() as stack:
        for part in model.modules():
            if isinstance(part, nn.LayerNorm | nn.RMSNorm) or type(part).__name__.endswith("Norm"):
                hook: Callable[..., Any] = _detach if id(part) in inside else _hold_scale
                stack.callback(part.register_forward_hook(of_this_thread(hook)).remove)
        yield


def _detach(norm: nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
    return output.detach()


def _hold_scale(norm: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> torch.Tensor | None:
    """Return the same output, whose scale is a constant for gradients."""
    (hidden,) = inputs
    if not hidden.requires_grad or not isinstance(norm, nn.LayerNorm | nn.RMSNorm):
        return None  # of another kind: it is not linear, which is noticed
    dims = tuple(range(-len(norm.normalized_shape), 0))
    wide = at_least_float32(hidden)
    if isinstance(norm, nn.LayerNorm):
        wide = wide - wide.mean(dim=dims, keepdim=True)
    eps = norm.eps if norm.eps is not None else torch.finfo(hidden.dtype).eps
    scale = (wide.detach().square().mean(dim=dims, keepdim=True) + eps).rsqrt()
    held = (wide * scale).to(output.dtype)
    if norm.weight is not None:
        held = held * norm.weight
    bias = getattr(norm, "bias", None)  # which a root mean square norm has not
    return held if bias is None else held + bias


def _direct_effect(choice: Choice, outputs: Sequence[torch.Tensor]) -> tuple[torch.Tensor, None] | tuple[None, str]:
    """The direct effects (batch, [targets,] layers, heads), or the reason why they are undefined."""
    scale = _HALF_SCALE if outputs[0].dtype == torch.float16 else 1.0
    effects = []
    for score in choice.scores:
        if not score.requires_grad:
            return None, NO_SKIP
        # With a graph of its own: the gradient of what is linear depends on nothing, and has none.
        gradients = torch.autograd.grad(
            score, list(outputs), torch.full_like(score, scale), create_graph=True, allow_unused=True
        )
        if any(gradient is None for gradient in gradients):
            return None, NO_SKIP
        if any(gradient.requires_grad for gradient in gradients):
            return None, NOT_LINEAR
        by_layer = [
            head_contribution(output.detach(), gradient) / scale
            for output, gradient in zip(outputs, gradients, strict=True)
        ]
        effects.append(torch.stack([effect.to(by_layer[0].device) for effect in by_layer], dim=1))
    return torch.stack(effects, dim=1) if choice.has_axis else effects[0], None


def _by_layer(tensors: Sequence[torch.Tensor], device: torch.device) -> torch.Tensor:
    """Stack per-layer tensors (batch, heads, 3) as (batch, layers, heads, 3)."""
    return torch.stack([tensor.to(device, torch.float32) for tensor in tensors], dim=1)
