"""Explicit attention probabilities, with gradients, for those who want the matrices."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import overload

import torch
from torch import nn

from gmar_hf.models.attention import checked_configs, recording
from gmar_hf.models.recorders import AttentionCall, ComputingRecorder


class RetainedAttentions(ComputingRecorder, Sequence[torch.Tensor]):
    """The last forward's attention probabilities, a tensor (batch, heads, tokens, tokens) a layer, in layer order.

    Each row sums to one. After a backward every tensor's `.grad` holds the gradient of what was differentiated, also
    where all parameters are frozen. Under `torch.no_grad` the probabilities come without gradients.
    """

    def __init__(self, model: nn.Module) -> None:
        self._retained: dict[tuple[int, int], torch.Tensor] = {}  # by the module's id, and which call of it
        self._num_begun = 0
        self._begun_with: dict[int, int] = {}  # the forward that the retained ones are of, by the module's id
        self._num_calls: Counter[int] = Counter()  # of every module, in that forward and its backward
        # In how many places a module stands: layers may share theirs.
        self._num_places = Counter(id(module) for _, module in model.named_modules(remove_duplicate=False))

    @overload
    def __getitem__(self, index: int) -> torch.Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> list[torch.Tensor]: ...
    def __getitem__(self, index: int | slice) -> torch.Tensor | list[torch.Tensor]:
        return list(self._retained.values())[index]

    def __len__(self) -> int:
        return len(self._retained)

    def begin(self) -> None:
        self._num_begun += 1

    def attend(self, call: AttentionCall) -> tuple[torch.Tensor, torch.Tensor]:
        probabilities = call.compute_probabilities()
        self._retain(id(call.module), probabilities)
        return call.output_of(probabilities), probabilities

    def _retain(self, module: int, probabilities: torch.Tensor) -> None:
        if torch.is_grad_enabled():
            # With frozen parameters the probabilities of the first layer are a leaf, which then wants its gradient.
            probabilities.retain_grad() if probabilities.requires_grad else probabilities.requires_grad_()
        if self._begun_with.get(module, self._num_begun) != self._num_begun:  # another forward has begun
            self._retained.clear()
            self._num_calls.clear()
            self._begun_with.clear()
        self._begun_with[module] = self._num_begun
        repeat, place = divmod(self._num_calls[module], self._num_places[module])
        self._num_calls[module] += 1
        if repeat == 0:
            self._retained[module, place] = probabilities
            return
        # Gradient checkpointing computes the layers once more in the backward, the last one first. Where the first
        # call's tensor has a graph, it has the gradient; else checkpointing is reentrant, and the second call's has.
        key = module, self._num_places[module] - 1 - place
        if not self._retained[key].requires_grad:
            self._retained[key] = probabilities


@contextmanager
def retain_attention(model: nn.Module) -> Iterator[RetainedAttentions]:
    """Run the model with explicit attention inside the block and keep every layer's probabilities.

    Memory grows with tokens squared; [`explain`] needs none of it. The model's own attention implementation is back
    after the block, also after an exception; what was retained stays usable. With gradient checkpointing, run the
    backward inside the block: it computes the attention once more.

    Args:
        model (`nn.Module`): A transformers model, or one wrapped by PEFT, on the attention interface.

    Yields:
        [`RetainedAttentions`]: Filled by each forward of `model`.

    Raises:
        ArgumentTypeError: If `model` is not a transformers model.

    Example:
        >>> import gmar_hf, gmar_hf.demo
        >>> model, image_processor = gmar_hf.demo.load("vit")
        >>> image = gmar_hf.demo.scenes(1)[0]["image"]
        >>> with gmar_hf.retain_attention(model) as attentions:
        ...     logits = model(**image_processor(image, return_tensors="pt")).logits
        ...     logits[:, 0].sum().backward()
        >>> len(attentions), attentions[3].shape, attentions[3].grad.shape
        (6, torch.Size([1, 8, 65, 65]), torch.Size([1, 8, 65, 65]))
    """
    checked_configs(model)
    attentions = RetainedAttentions(model)
    with recording(model, attentions):
        yield attentions
