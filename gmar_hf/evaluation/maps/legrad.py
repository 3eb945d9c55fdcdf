"""LeGrad: every layer asked by itself what its attention does for the class (Bousselham et al. 2024)."""

from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from gmar_hf.errors import NonFiniteError
from gmar_hf.explanation.blocks import pieces
from gmar_hf.models.attention import recording
from gmar_hf.models.freezing import frozen, gradients_on
from gmar_hf.models.gradient_flow import gradients_passing
from gmar_hf.models.hooks import BorrowedHook
from gmar_hf.models.introspection import encoder_layers
from gmar_hf.models.model_check import checked_model
from gmar_hf.models.model_inputs import checked_pixels, forward
from gmar_hf.models.patches import find_grid, pair, patch_size, to_grid
from gmar_hf.models.recorders import AttentionCall, ComputingRecorder, is_recording
from gmar_hf.models.refusals import unsupported
from gmar_hf.models.targets import choose_target, class_scores
from gmar_hf.models.wrappers import unwrapped
from gmar_hf.utils.tensors import at_least_float32

_HALF_SCALE = 2.0**10  # fp16 gradients of a head that averages many tokens would underflow


def legrad(model: nn.Module, pixel_values: torch.Tensor, target: Any) -> torch.Tensor:
    """Draw the map of LeGrad by one SDPA forward and one backward.

    The method is that of "LeGrad: An Explainability Method for Vision Transformers via Feature Formation Sensitivity"
    (arXiv 2404.03214). With `y_l` the logit that the model's own norm, pooling and head make of the tokens behind
    layer l, and `A_l` that layer's attention, it is the sum over layers of `mean_h mean_i relu(dy_l / dA_l)`, on the
    patch tokens. The authors read `y_l` from a CLIP text embedding; ours is the classifier's. They divide the sum by
    its range; ours is raw. Their published code sums over the last two layers by default (`layer_index=-2` of
    `LeWrapper` in github.com/WalBouss/LeGrad), ours over all, as the formula has it.

    Args:
        model (`nn.Module`): An image classifier, as for [`explain`].
        pixel_values (`torch.Tensor` of shape (batch, channels, height, width)): The images.
        target: The classes: None (predicted), an int, or ints of shape (batch,).

    Returns:
        `torch.Tensor` of shape (batch, rows, cols): Not negative, float32.

    Raises:
        ArgumentError, ArgumentTypeError: If an argument cannot be used.
        NonFiniteError: If a gradient is NaN or infinite.
        UnsupportedModelError: If the model's layers cannot be asked one by one.

    Example:
        >>> import gmar_hf.demo
        >>> model, _ = gmar_hf.demo.load("vit")
        >>> legrad(model, torch.zeros(2, 3, 64, 64), 0).shape
        torch.Size([2, 8, 8])
    """
    model = checked_model(model)
    pixels = checked_pixels(model, pixel_values)
    recorder = _Layers()
    # One forward gives the logits of every layer's tokens, one backward the gradients of every layer's attention.
    with gradients_on(), frozen(model), ExitStack() as stack:
        stack.enter_context(recording(model, recorder))
        stack.enter_context(gradients_passing(model))
        tokens = _separated(model, recorder, stack)
        logits = forward(model, pixels).logits
        layers = len(recorder.values)
        batch = len(pixels)
        if len(tokens) != layers or logits.shape[0] != layers * batch:
            raise unsupported(unwrapped(model), "its layers' tokens cannot be handed to its head one by one")
        classes = choose_target(target, logits[-batch:].detach()).target  # the last layer's are the model's own
        assert classes is not None
        score = class_scores(logits.float(), classes.repeat(layers))[0]
        scale = _HALF_SCALE if pixels.dtype == torch.float16 else 1.0
        gradients = torch.autograd.grad(score.sum() * scale, recorder.outputs, allow_unused=True)

    # The layers' maps are added up, each a mean over heads and queries.
    grid = find_grid(pair(pixels.shape[-2:]), patch_size(model), recorder.values[0].shape[2])
    total = torch.zeros(batch, recorder.values[0].shape[2], device=pixels.device)
    for gradient, value in zip(gradients, recorder.values, strict=True):
        if gradient is None:
            raise unsupported(unwrapped(model), "the tokens of one of its layers do not depend on its attention")
        total += _positive_mean(gradient, value).to(total) / scale
    if not total.isfinite().all():
        raise NonFiniteError("The gradients must be finite; got NaN or infinity. Load the model in float32.")
    return to_grid(total, grid).to(pixel_values.device)


class _Layers(ComputingRecorder):
    """Keeps every layer's values, and outputs that begin a graph of their own."""

    def __init__(self) -> None:
        self.values: list[torch.Tensor] = []
        self.outputs: list[torch.Tensor] = []

    def attend(self, call: AttentionCall) -> tuple[torch.Tensor, None]:
        output = call.compute_output().detach().requires_grad_()
        self.values.append(call.value.detach())
        self.outputs.append(output)
        return output, None


def _separated(model: nn.Module, recorder: _Layers, stack: ExitStack) -> list[torch.Tensor]:
    """Cut each layer off from the one before, and let the last one give the tokens of all layers, as one batch.

    Returns:
        `list`: Filled by the forward with the layers' tokens (batch, tokens, hidden_size).
    """
    _, layers = encoder_layers(model)
    tokens: list[torch.Tensor] = []

    def cut(
        module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        if not is_recording(module, recorder):  # another thread's forward
            return None
        if args:
            return (args[0].detach(), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": kwargs["hidden_states"].detach()}

    def keep(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        if not is_recording(module, recorder):
            return None
        tokens.append(output if isinstance(output, torch.Tensor) else output[0])
        if module is not layers[-1]:
            return None
        everything = torch.cat(tokens)
        return everything if isinstance(output, torch.Tensor) else (everything, *output[1:])

    for layer in layers:
        stack.callback(layer.register_forward_pre_hook(BorrowedHook(cut), with_kwargs=True).remove)
        stack.callback(layer.register_forward_hook(BorrowedHook(keep)).remove)
    return tokens


def _positive_mean(output_grad: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Average relu(G), `G = dO V^T`, over heads and queries, piece by piece: (batch, tokens)."""
    output_grad, values = at_least_float32(output_grad), at_least_float32(value).transpose(-2, -1)
    batch, heads, num_tokens, _ = value.shape
    total = output_grad.new_zeros(batch, num_tokens)
    for piece in pieces(output_grad, value):
        gradient = output_grad[piece] @ values[piece.images, piece.heads]
        total[piece.images] += gradient.clamp_min_(0).sum(dim=(1, 2))
    return total / (heads * num_tokens)
