"""One layer of a backward: its tensors, and what the maps and scores of all methods are made of, each made once."""

from collections.abc import Iterator
from functools import cached_property

import torch

from gmar_hf.explanation.head_scores import (
    head_contribution,
    l1_norm,
    l2_norm,
    mean_output_contribution,
    token_contribution,
)
from gmar_hf.explanation.rollout import attend_back
from gmar_hf.models.patches import Grid
from gmar_hf.models.recorders import AttentionCall
from gmar_hf.models.window_layout import on_patches
from gmar_hf.utils.tensors import at_least_float32, is_not_zero, reached_rows

NORMS = {"l1": l1_norm, "l2": l2_norm}
OUTPUT = "output"  # as a value reference: what is left when attention to a token goes to the others


class LayerGradients:
    """One layer of one pass, for one explained score.

    Args:
        call ([`AttentionCall`]): Queries, keys, values, bias and scaling.
        index (`int`): The layer's number; the first is 0.
        is_last (`bool`): Whether it is the encoder's last layer, the first that a backward meets.
        output (`torch.Tensor` of shape (batch, heads, tokens, head_dim), *optional*): The heads' outputs, times
            `attention_scale`; None without a backward, like both gradients.
        output_grad (`torch.Tensor` of shape (batch, heads, tokens, head_dim), *optional*): The gradient of `output`,
            divided by `gradient_size`; at least float32.
        value_grad (`torch.Tensor` of shape (batch, heads, tokens, head_dim), *optional*): The gradient of the values,
            divided by `gradient_size`; None where no token's part is asked for.
        gradient_size (`torch.Tensor` of shape (batch, 1)): A power of two for every image.
        attention_scale (`float`): What the outputs of all layers were multiplied by in this pass, in (0, 1].
        grid ([`Grid`], *optional*): Of a layer in a stage, where the patches are, see [`Trace.grid`].

    Inside windows "batch" of the tensors that come in is images times windows; what goes out belongs to images.
    """

    def __init__(
        self,
        *,
        call: AttentionCall,
        index: int,
        is_last: bool,
        output: torch.Tensor | None,
        output_grad: torch.Tensor | None,
        value_grad: torch.Tensor | None,
        gradient_size: torch.Tensor,
        attention_scale: float,
        grid: Grid | None = None,
    ) -> None:
        self.call = call
        self.index = index
        self.is_last = is_last
        self.output_grad = output_grad
        self.gradient_size = gradient_size
        self.output = output
        self._value_grad = value_grad
        self._factor = gradient_size / attention_scale
        self._grid = grid
        self._norms: dict[str, torch.Tensor] = {}
        self._by_token: dict[float | str, torch.Tensor] = {}

    @cached_property
    def head_contribution(self) -> torch.Tensor | None:
        """`<O, g>` (batch, heads) in logits, `O` the outputs before they were scaled and `g` the gradient behind."""
        if self.output is None or self.output_grad is None:
            return None
        return head_contribution(*self._of_images(self.output, self.output_grad)) * self._factor

    @cached_property
    def head_contribution_centred(self) -> torch.Tensor | None:
        """`<O - mean(O), g>` (batch, heads) in logits, the mean over the tokens; None without a backward."""
        if self.head_contribution is None or self.output is None or self.output_grad is None:
            return None
        mean = mean_output_contribution(*self._of_images(self.output, self.output_grad))
        return self.head_contribution - mean * self._factor

    def gradient_norm(self, norm: str) -> torch.Tensor:
        """Return the norms (batch, heads) of the attention's gradient, divided by `gradient_size`.

        Inside windows they are those over all pairs of all windows of an image.
        """
        if norm not in self._norms:
            assert self.output_grad is not None
            # Rows of the gradient that are zero add nothing; there are such rows in the last layer alone.
            rows = reached_rows(is_not_zero(self.output_grad)) if self.is_last else None
            output_grad = self.output_grad if rows is None else self.output_grad[:, :, rows]
            norms = NORMS[norm](output_grad, self.call.value.detach())
            if self.call.layout is not None:
                by_window = norms.unflatten(0, (-1, self.call.layout.num_windows))
                norms = torch.linalg.vector_norm(by_window, ord={"l1": 1, "l2": 2}[norm], dim=1)
            self._norms[norm] = norms
        return self._norms[norm]

    def token_contribution(self, reference: float | str) -> torch.Tensor | None:
        """Return `sum_i A_ij <g_i, V_j - reference>` (batch, heads, tokens) in logits; None where not asked for.

        Inside windows "tokens" are the patches, over which those of merged tokens are spread evenly, and before them
        padding and class tokens as one, if any layer has some.

        Args:
            reference (`float` or `str`): What each value is compared with: 0 nothing, a share of the mean value over
                the tokens, or "output", the head's output `O_i`. With the last it is the derivative of the logit by an
                additive bias on key j, and sums to zero over the tokens: softmax gives j what it takes from others.
        """
        if self._value_grad is None:
            return None
        if reference not in self._by_token:
            by_token = on_patches(self._contribute(reference), self.call.layout, self._grid)
            self._by_token[reference] = by_token * self._factor[:, :, None]
        return self._by_token[reference]

    def _contribute(self, reference: float | str) -> torch.Tensor:
        assert self._value_grad is not None
        value = at_least_float32(self.call.value.detach())
        if reference == OUTPUT:
            assert self.output is not None
            assert self.output_grad is not None
            by_query = (at_least_float32(self.output) * self.output_grad).sum(dim=-1)
            return token_contribution(value, self._value_grad) - attend_back(by_query, self.call)
        if reference:
            mean = self.call.by_image(value).mean(dim=2, keepdim=True)
            layout = self.call.layout
            value = value - float(reference) * (mean if layout is None else layout.by_window(mean))
        return token_contribution(value, self._value_grad)

    def _of_images(self, *tensors: torch.Tensor) -> Iterator[torch.Tensor]:
        return map(self.call.outputs_by_image, tensors)
