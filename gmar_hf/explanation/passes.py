"""The passes of a call, a forward and a backward each: of the images as they are, masked, or with attention scaled."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from gmar_hf.explanation.backward import Walk, go_back, readout_of
from gmar_hf.explanation.head_weights import GivenWeights
from gmar_hf.explanation.masking import masked_images
from gmar_hf.explanation.patch_layout import Patches, find_patches
from gmar_hf.explanation.path import path_points
from gmar_hf.explanation.request import Request
from gmar_hf.explanation.trace import Start, Trace, traced
from gmar_hf.models.freezing import full_precision, gradients_on
from gmar_hf.models.targets import Choice
from gmar_hf.models.wrappers import class_name
from gmar_hf.utils.blame import blaming

_OF_NO_TOKEN = ("readout", "head_contribution_centred")  # averages over passes that no token weights are part of
Results = dict[str, torch.Tensor]
Choose = Callable[[torch.Tensor], Choice]


class Images:
    """The images of a call, with what the first forward over them settles: what is explained, and where patches are.

    Args:
        model (`nn.Module`): The classifier.
        pixels (`torch.Tensor` of shape (batch, channels, height, width)): From `checked_pixels`.
        kwargs (`dict[str, Any]`): Handed to the model, from `usable_kwargs`.
        choose (`Callable`): From logits (batch, classes), with their graph, to the scores to explain.

    Attributes:
        choice ([`Choice`]): What is explained.
        patches ([`Patches`]): Where the patches stand.
        dtype (`torch.dtype`): What the model computes in.
        num_heads (`list[int]`): How many heads each layer has.
    """

    choice: Choice
    patches: Patches
    dtype: torch.dtype
    num_heads: list[int]

    def __init__(self, model: nn.Module, pixels: torch.Tensor, kwargs: dict[str, Any], choose: Choose) -> None:
        self.model = model
        self.pixels = pixels
        self.kwargs = kwargs
        self._choose = choose
        self._is_settled = False

    def scores(self, trace: Trace, requests: Sequence[Request]) -> list[torch.Tensor]:
        """Return the scores (batch,) to explain of a forward over these images, or over masked ones."""
        logits = trace.logits.clone()  # the chooser may write into its argument
        if self._is_settled:
            return self.choice.again(logits)
        trace.check_images_are_separate()
        self.patches = find_patches(trace, requests, self.pixels)
        self.choice = self._choose(logits)
        self.dtype = trace.hidden.dtype
        self.num_heads = [call.query.shape[1] for call in trace.layers]
        self._is_settled = True
        return self.choice.scores


@dataclass(frozen=True, kw_only=True)
class Pass:
    """One of several passes whose results are averaged.

    Args:
        pixels (`torch.Tensor` of shape (batch, channels, height, width)): What the model sees.
        attention_scale (`float`): What the outputs of all attention layers are multiplied by.
        point_weight (`float`): Its share among the passes of the same pixels.
        token_weights (`torch.Tensor` of shape (tokens,), *optional*): The share of the same pixels' passes in each
            token's average; over the passes, times `point_weight`, it sums to one.
    """

    pixels: torch.Tensor
    attention_scale: float
    point_weight: float
    token_weights: torch.Tensor | None


def start_of_all(requests: Sequence[Request]) -> Start:
    """Return where the graph over the whole images has to begin: as early as any of the requests that share it needs.

    Of requests with passes of their own the whole images give the logits and the classes, and nothing else.
    """
    starts = {request.start for request in requests if not request.has_passes}
    return next((start for start in ("value", "output") if start in starts), "head")


def walk_back(
    trace: Trace,
    requests: Sequence[Request],
    images: Images,
    scores: list[torch.Tensor],
    *,
    given_weights: GivenWeights | None = None,
    token_weights: torch.Tensor | None = None,
) -> list[Results]:
    """Walk back once for every score, for all requests together.

    Args:
        trace ([`Trace`]): The pass's forward.
        requests (`Sequence` of [`Request`]): What is asked for of this pass.
        images ([`Images`]): What the forward was made of.
        scores (`list` of `torch.Tensor` of shape (batch,)): What is explained, from this forward's logits.
        given_weights ([`GivenWeights`], *optional*): Head weights in place of the gradient's.
        token_weights (`torch.Tensor` of shape (tokens,), *optional*): The share of each token's contribution that
            counts.

    Returns:
        `list` of `dict[str, torch.Tensor]`: For each request the tensors of an [`Explanation`], by field name.
    """
    by_score: list[list[dict[str, torch.Tensor | None]]] = []
    with full_precision(trace.hidden.device):
        for number, score in enumerate(scores):
            head_gradient = trace.head_gradient(score)
            given = None if given_weights is None else given_weights.by_target[number]
            walks = [
                Walk(
                    request,
                    readout_of(head_gradient, trace),
                    given if request.has_head_weights else None,
                    token_weights,
                )
                for request in requests
            ]
            go_back(trace, head_gradient, [walk.visit for walk in walks], retain_graph=number + 1 < len(scores))
            by_score.append([walk.results(images.patches.grid) for walk in walks])
    return [_stack(list(fields), images.choice.has_axis) for fields in zip(*by_score, strict=True)]


def average_over_passes(images: Images, request: Request) -> Results:
    """Make the passes that a request has to itself, one after the other, and sum what each adds to the average.

    Args:
        images ([`Images`]): What is explained; settled already if there are masks.
        request ([`Request`]): One that `has_passes`.

    Returns:
        `dict[str, torch.Tensor]`: The tensors of an [`Explanation`], by field name.
    """
    results: Results = {}
    with gradients_on():  # for the masked images too, which a backward keeps
        for one_pass in _passes(images, request):
            with _blaming_baseline(images, request, one_pass):
                part = _one_part(images, request, one_pass)
            for name, tensor in part.items():
                # Tokens have their own shares of the masks; what belongs to no token is their plain mean.
                num_masks = max(request.num_masks, 1) if name in _OF_NO_TOKEN else 1
                weighted = tensor * (one_pass.point_weight / num_masks)
                results[name] = weighted if name not in results else results[name] + weighted
    return results


def _one_part(images: Images, request: Request, one_pass: Pass) -> Results:
    """Make a pass; return what it adds to the average, not weighted yet."""
    with traced(images.model, one_pass.pixels, request.start, images.kwargs, one_pass.attention_scale) as trace:
        scores = images.scores(trace, [request])
        (part,) = walk_back(trace, [request], images, scores, token_weights=one_pass.token_weights)
    return part


def _blaming_baseline(images: Images, request: Request, one_pass: Pass) -> AbstractContextManager[None]:
    """Name `mask_baseline` in an error about images that show it, where the images themselves can be explained."""
    baseline = request.mask_baseline
    if not request.num_masks or not isinstance(baseline, torch.Tensor):
        return nullcontext()
    whole = replace(one_pass, pixels=images.pixels, token_weights=None)
    return blaming(
        lambda: (
            f"`mask_baseline` must hold pixel values that {class_name(images.model)} can compute with, as the images' "
            f"own are; got up to {baseline.abs().max():.3g}. "
            "Give it values of the size that the image processor makes."
        ),
        without=lambda: _one_part(images, request, whole),
    )


def completeness_gap(images: Images, scores: list[torch.Tensor], results: Results) -> torch.Tensor:
    """Return all contributions less what they should come to: the score with attention less the score without any.

    Args:
        images ([`Images`]): What is explained.
        scores (`list` of `torch.Tensor` of shape (batch,)): The score of each target, of the whole images.
        results (`dict[str, torch.Tensor]`): Of a request on the path.

    Returns:
        `torch.Tensor` of shape (batch,) or (batch, targets): In logits.
    """
    with traced(images.model, images.pixels, "head", images.kwargs, attention_scale=0.0) as trace:
        without = images.choice.again(trace.logits.clone())
    differences = [(score - rest).detach() for score, rest in zip(scores, without, strict=True)]
    expected = torch.stack(differences, dim=1) if images.choice.has_axis else differences[0]
    total = results["head_contribution"].nan_to_num(0.0).sum(dim=(-2, -1))  # heads that a layer lacks are NaN
    return total - expected.to(total)


def _passes(images: Images, request: Request) -> Iterator[Pass]:
    points = path_points(request.describes, request.num_points)
    seen: Iterator[tuple[torch.Tensor, torch.Tensor | None]] = iter([(images.pixels, None)])
    if request.num_masks:
        seen = masked_images(images.pixels, request, images.patches.grid, images.patches.size)
    for pixels, token_weights in seen:
        for scale, weight in points:
            yield Pass(
                pixels=pixels,
                attention_scale=scale,
                point_weight=weight,
                token_weights=token_weights,
            )


def _stack(by_score: list[dict[str, torch.Tensor | None]], has_axis: bool) -> Results:
    """Put the targets' tensors side by side; every target has the same fields, and those not asked for are None."""
    results = {}
    for name in by_score[0]:
        tensors = [tensor for fields in by_score if (tensor := fields[name]) is not None]
        if tensors:
            results[name] = (torch.stack(tensors, dim=1) if has_axis else tensors[0]).detach()
    return results
