"""A batch whose logits can be had without some heads, for measurements of many choices of heads."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from gmar_hf.errors import ArgumentError, NonFiniteError
from gmar_hf.models.attention import recording
from gmar_hf.models.freezing import frozen
from gmar_hf.models.hooks import BorrowedHook
from gmar_hf.models.introspection import encoder_layers
from gmar_hf.models.layer_order import LayerOrder
from gmar_hf.models.model_check import checked_model
from gmar_hf.models.model_inputs import check_known_kwargs, checked_pixels, logits_of
from gmar_hf.models.recorders import AttentionCall, Recorder, is_recording
from gmar_hf.models.refusals import OFF_THE_INTERFACE, unsupported
from gmar_hf.utils.checks import check_choice
from gmar_hf.utils.tensors import at_least_float32

ABLATIONS = ("zero", "mean")
UNEVEN = "its attention is not over one grid of the same tokens and heads in every layer, once a forward"


class AblatedModel(Recorder):
    """A batch whose logits can be had without some heads. Made by [`ablated`]; lives as long as its block.

    One forward with every head comes first. A forward without heads takes many choices of heads at once: a row is an
    image under one choice. Layers below the first that has a silent head see each image once; at that layer, the
    entrance, the batch is repeated into rows.

    Args:
        model (`nn.Module`): The classifier.
        pixel_values (`torch.Tensor` of shape (batch, channels, height, width)): The images, ready for the model.
        ablation (`str`): "zero" or "mean", what stands for a silent head's output.
        kwargs (`dict[str, Any]`): Handed to the model.

    Attributes:
        logits (`torch.Tensor` of shape (batch, classes)): With every head; at least float32.
        num_layers, num_heads (`int`): Of the encoder.
    """

    logits: torch.Tensor

    def __init__(self, model: nn.Module, pixel_values: torch.Tensor, ablation: str, kwargs: dict[str, Any]) -> None:
        self._model = model
        self._pixel_values = pixel_values
        self._model_kwargs = kwargs
        self.layers = list(encoder_layers(model)[1])
        self._order, self._entering = LayerOrder(self.layers), LayerOrder(self.layers)
        self._keep_means = ablation == "mean"
        self._means: dict[int, torch.Tensor] = {}  # (heads, tokens, head_dim) by layer
        self._seen: dict[int, torch.Size] = {}  # the queries of every layer, with every head
        self._silent: torch.Tensor | None = None  # (rows, layers, heads); None with every head
        self._touched: set[int] = set()  # the layers that have a silent head
        self._entrance = 0  # the first layer that sees a row for each choice

    @property
    def num_layers(self) -> int:
        return len(self.layers)

    @property
    def num_heads(self) -> int:
        return self._seen[0][1]

    def run(self) -> None:
        """Make the forward with every head, which comes first.

        Raises:
            NonFiniteError: If a logit is NaN or infinite.
            UnsupportedModelError: If heads cannot be silenced.
        """
        self.logits = self._forward()
        if not self._seen:
            raise unsupported(self._model, OFF_THE_INTERFACE)
        batch = len(self._pixel_values)
        if len(set(self._seen.values())) > 1 or len(self._seen) != self.num_layers or self._seen[0][0] != batch:
            raise unsupported(self._model, UNEVEN)

    def without(self, silent: torch.Tensor) -> torch.Tensor:
        """Return the logits without some heads.

        Args:
            silent (`torch.Tensor` of shape (choices, batch, layers, heads), bool): True for the heads left out.

        Returns:
            `torch.Tensor` of shape (choices, batch, classes): At least float32.

        Raises:
            NonFiniteError: If a logit is NaN or infinite.
        """
        # Layers that have a silent head under some choice; rows begin at the first of them.
        self._touched = set(silent.any(dim=3).any(dim=1).any(dim=0).nonzero()[:, 0].tolist())
        self._entrance = min(self._touched, default=0)
        self._silent = silent.flatten(0, 1).to(self._pixel_values.device)
        return self._forward().unflatten(0, silent.shape[:2])

    def begin(self) -> None:
        self._order.begin()
        self._entering.begin()

    def edit(self, call: AttentionCall, output: torch.Tensor) -> torch.Tensor:
        layer = self._order.find(call.module)
        if layer is None or (self._silent is None and layer in self._seen):
            raise unsupported(self._model, UNEVEN)
        if self._silent is None:
            self._note(layer, call.query.shape, output)
        elif layer in self._touched:
            silent = self._silent[:, layer, :, None, None].to(output.device)
            filling = self._means[layer] if self._keep_means else torch.zeros_like(output[0])
            output = torch.where(silent, filling, output)
        return output

    def _note(self, layer: int, query_shape: torch.Size, output: torch.Tensor) -> None:
        self._seen[layer] = query_shape
        if self._keep_means:
            self._means[layer] = at_least_float32(output).mean(dim=0).to(output.dtype)

    def enter(self, layer: nn.Module, inputs: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
        """Repeat the batch into rows at the entrance, and masks that come behind it: a hook before every layer."""
        if self._silent is None or not is_recording(layer, self):
            return None
        index = self._entering.find(layer)
        if index is None or index < self._entrance:
            return None
        repeats = len(self._silent) // len(self._pixel_values)

        def spread(value: Any) -> Any:
            # A bias of one matrix for all images broadcasts by itself; timm's rotations are the same for all.
            of_images = isinstance(value, torch.Tensor) and value.ndim > 2 and len(value) == len(self._pixel_values)
            return torch.cat([value] * repeats) if of_images else value

        return tuple(map(spread, inputs)), {
            name: value if name == "rope" else spread(value) for name, value in kwargs.items()
        }

    def _forward(self) -> torch.Tensor:
        logits = logits_of(self._model, self._pixel_values, **self._model_kwargs)
        if not logits.isfinite().all():
            raise NonFiniteError(
                "The logits must be finite; got NaN or infinity. Check `pixel_values` and the model's weights for "
                "NaN, or use bfloat16 or float32 instead of float16."
            )
        return at_least_float32(logits)


@contextmanager
def ablated(
    model: nn.Module, pixel_values: torch.Tensor, ablation: str, model_kwargs: dict[str, Any]
) -> Iterator[AblatedModel]:
    """Let heads of a model be silenced inside the block; it is in eval mode there, and as it was afterwards.

    Args:
        model (`nn.Module`): An image classifier of transformers.
        pixel_values (`torch.Tensor` of shape (batch, channels, height, width)): What the user gave.
        ablation (`str`): What stands for a silent head's output: "zero", or "mean", the batch's mean, token by token.
        model_kwargs (`dict[str, Any]`): Handed to the model.

    Raises:
        ArgumentError, ArgumentTypeError: If model, pixels or ablation cannot be used.
        NonFiniteError: If a logit is NaN or infinite.
        UnsupportedModelError: If heads of this model cannot be silenced.
    """
    check_choice("ablation", ablation, ABLATIONS)
    model = checked_model(model)
    check_known_kwargs(model, model_kwargs)
    pixels = checked_pixels(model, pixel_values)
    if ablation == "mean" and len(pixels) < 2:
        raise ArgumentError(
            '`ablation` must not be "mean" for a batch of one image (its mean is the image\'s own); got one. '
            'Pass more images, or `ablation="zero"`.'
        )
    # Borrowed for the block: gradients, flags, attention, and a hook before every layer.
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(frozen(model))
        ablated_model = AblatedModel(model, pixels, ablation, model_kwargs)
        stack.enter_context(recording(model, ablated_model))
        for layer in dict.fromkeys(ablated_model.layers):  # once each, also where one stands for several
            stack.callback(layer.register_forward_pre_hook(BorrowedHook(ablated_model.enter), with_kwargs=True).remove)
        ablated_model.run()
        yield ablated_model
