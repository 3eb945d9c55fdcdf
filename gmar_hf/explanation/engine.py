"""The way a batch goes: one SDPA forward, one backward for each target, a map and head scores."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, overload

import torch
import transformers
from torch import nn

from gmar_hf._version import __version__
from gmar_hf.errors import ArgumentError
from gmar_hf.explanation.finiteness import as_float32
from gmar_hf.explanation.head_weights import check_head_weights, open_report, weights_of_targets
from gmar_hf.explanation.passes import (
    Images,
    Results,
    average_over_passes,
    completeness_gap,
    start_of_all,
    walk_back,
)
from gmar_hf.explanation.request import Request, requests_of
from gmar_hf.explanation.result import Explanation
from gmar_hf.explanation.trace import traced
from gmar_hf.images.baselines import Baseline
from gmar_hf.models.introspection import setting
from gmar_hf.models.model_check import checked_model
from gmar_hf.models.model_inputs import check_known_kwargs, checked_pixels, usable_kwargs
from gmar_hf.models.model_state import describe_state
from gmar_hf.models.patches import by_size
from gmar_hf.models.targets import Choice, Target, choose_target
from gmar_hf.models.wrappers import class_name
from gmar_hf.utils.tensors import described
from gmar_hf.utils.text import did_you_mean

if TYPE_CHECKING:
    from gmar_hf.explanation.head_weights import HeadWeights
    from gmar_hf.report.head_importance_report import HeadImportanceReport


@overload  # in full, as editors show and complete these
def explain(
    model: nn.Module,
    pixel_values: torch.Tensor,
    target: Target = None,
    method: str = "gmar",
    *,
    norm: str = "l1",
    residual_weight: float = 1.0,
    start_layer: int = 0,
    return_maps: bool = True,
    return_head_maps: bool = False,
    return_logits: bool = True,
    head_weights: "HeadWeights | None" = None,
    num_masks: int = 0,
    mask_baseline: Baseline = "blur",
    mask_pattern: str = "pairs",
    seed: int = 0,
    num_points: int | None = None,
    value_reference: float | str | None = None,
    **model_kwargs: Any,
) -> Explanation: ...


@overload
def explain(
    model: nn.Module,
    pixel_values: torch.Tensor,
    target: Target = None,
    *,
    method: Sequence[str],
    norm: str = "l1",
    residual_weight: float = 1.0,
    start_layer: int = 0,
    return_maps: bool = True,
    return_head_maps: bool = False,
    return_logits: bool = True,
    head_weights: "HeadWeights | None" = None,
    num_masks: int = 0,
    mask_baseline: Baseline = "blur",
    mask_pattern: str = "pairs",
    seed: int = 0,
    num_points: int | None = None,
    value_reference: float | str | None = None,
    **model_kwargs: Any,
) -> list[Explanation]: ...


def explain(
    model: nn.Module,
    pixel_values: torch.Tensor,
    target: Target = None,
    method: str | Sequence[str] = "gmar",
    *,
    norm: str = "l1",
    residual_weight: float = 1.0,
    start_layer: int = 0,
    return_maps: bool = True,
    return_head_maps: bool = False,
    return_logits: bool = True,
    head_weights: "HeadWeights | None" = None,
    num_masks: int = 0,
    mask_baseline: Baseline = "blur",
    mask_pattern: str = "pairs",
    seed: int = 0,
    num_points: int | None = None,
    value_reference: float | str | None = None,
    **model_kwargs: Any,
) -> Explanation | list[Explanation]:
    """Explain a batch of images by one forward, and one backward for each target that an image has.

    The model is as it was afterwards: attention implementation, train/eval flags, `requires_grad`, `.grad`, hooks.

    Args:
        model (`nn.Module`): An image classifier of transformers on the attention interface, or one wrapped by PEFT.
        pixel_values (`torch.Tensor` of shape (batch, channels, height, width)): What the image processor makes.
        target: Which logit to explain. None means the predicted class (of a regression head, its output). An int
            names one class for all images, (batch,) ints one an image. With (batch, targets) ints one forward serves
            all, and results get a targets axis after the batch. A callable turns float32 logits (batch, classes) into
            one scalar an image, which must depend on that image's logits only.
        method (`str` or `Sequence[str]`, defaults to "gmar"): How the map is made: "gmar", "contribution", "removal",
            "path", "recommended" (a path), "rollout", "gradient-rollout" or "attention";
            `gmar_hf.explanation.methods` says what each is. Of several, all but the paths are made from one forward
            and one backward.
        norm (`str`, defaults to "l1"): The norm of each head's attention gradient that "gmar" weighs by, "l1" or "l2".
        residual_weight (`float`, defaults to 1.0): The weight of the skip connection in the rollouts, beside the
            attention's 1.
        start_layer (`int`, defaults to 0): The first layer that counts; layers before it are left out of the map.
        return_maps (`bool`, defaults to True): Whether to make the map over the patches.
        return_head_maps (`bool`, defaults to False): Whether to give every head's contribution by patch, which takes a
            backward with every method.
        return_logits (`bool`, defaults to True): Whether a path gives the logits and its completeness gap, by two more
            forwards, which its map does without if `target` names classes; other methods have the logits from the
            forward that they make, and give them always.
        head_weights ([`HeadImportanceReport`], its repo id or folder, or `torch.Tensor`, *optional*): For "gmar":
            weigh heads as this report does for the explained class, in place of by the gradient; then one forward is
            enough. Where the report saw too few images of the class, or `target` is a callable, the weights of all
            images are used (`settings["head_weights"]` of the result says for which classes). A tensor (layers, heads)
            or (batch, layers, heads), not negative, holds weights of your own, which are divided by their sum in each
            layer.
        num_masks (`int`, defaults to 0): For "contribution", "removal" and paths: average maps and head contributions
            over this many images of which some patches are hidden, by masks that are drawn once for the batch. Each
            takes a forward, and a backward for each target; logits and predicted class are the whole image's. The
            average estimates what a patch adds in the company of random others (Okhrati and Lipani 2021).
        mask_baseline (`str` or `torch.Tensor`, defaults to "blur"): What hidden patches show: "blur" (the image under
            a Gaussian as wide as a patch), "zero", "mean" (of each channel of the image), or pixel values that
            broadcast to the images. A map that used a baseline shines where it is measured with the same one.
        mask_pattern (`str`, defaults to "pairs"): "pairs" of opposite halves, an even number of masks, each patch
            averaged over all of them; or a "partition" of the patches, of which each mask hides another part, each
            patch averaged over the masks that show it. A partition of 4 hides less, and is nearer to the image.
        seed (`int`, defaults to 0): The seed that the masks are drawn from.
        num_points (`int`, *optional*): For "path" and "recommended": at how many points of the path from no attention
            to the model as it is gradients are taken, a forward and a backward each. 2 by default. They are those of
            Gauss and Legendre's rule; two of "recommended" are where attention is scaled by 1/3 and by 3/4, weighted
            3/5 and 2/5, which is exact where the gradient is linear in the scale.
        value_reference (`float` or "output", *optional*): For "contribution" and the paths: what a token's value is
            compared with before it is multiplied by its gradient. 0 (the default; 0.5 for "recommended"): nothing, so
            that the parts of all tokens sum to `head_contribution`. A share in (0, 1] of the mean value over the
            tokens: what the token brings beyond the average one. "output": the head's own output, so that all parts
            of a head sum to zero; "contribution" with it is "removal".
        **model_kwargs: Handed to the model, which must know them, such as `interpolate_pos_encoding=True`.

    Returns:
        [`Explanation`]: float32, detached, on the device of `pixel_values`; of several methods a list, in their order.

    Raises:
        ArgumentError: If a value cannot be used; the message says which can. Or if another thread changes the weights
            at the same time by training, which loses nothing but the dropout of its forwards meanwhile.
        ArgumentTypeError: If an argument is of the wrong kind.
        NonFiniteError: If logits or gradients are NaN or infinite.
        UnsupportedModelError: If the model's attention, tokens or head are of a kind that cannot be explained.

    Example:
        >>> import gmar_hf, gmar_hf.demo
        >>> model, image_processor = gmar_hf.demo.load("vit")
        >>> scene = gmar_hf.demo.scenes(1)[0]
        >>> inputs = image_processor(scene["image"], return_tensors="pt")
        >>> out = gmar_hf.explain(model, inputs["pixel_values"], target=scene["labels"][0], method="contribution")
        >>> out.attribution.shape, out.head_contribution.shape
        (torch.Size([1, 8, 8]), torch.Size([1, 6, 8]))
    """
    if head_weights is not None and not isinstance(head_weights, torch.Tensor):
        head_weights = open_report(head_weights)
    requests = requests_of(
        method,
        norm=norm,
        residual_weight=residual_weight,
        start_layer=start_layer,
        return_maps=return_maps,
        return_head_maps=return_head_maps,
        return_logits=return_logits,
        has_head_weights=head_weights is not None,
        num_masks=num_masks,
        mask_baseline=mask_baseline,
        mask_pattern=mask_pattern,
        seed=seed,
        num_points=num_points,
        value_reference=value_reference,
    )
    if not return_logits and target is None:
        raise ArgumentError(
            "`return_logits` must be True where the predicted class is explained (it is read off the logits); got "
            "False. Name the class by `target`."
        )
    explanations = explain_scores(
        model, pixel_values, lambda logits: choose_target(target, logits), requests, model_kwargs, head_weights
    )
    return explanations[0] if isinstance(method, str) else explanations


def explain_scores(
    model: nn.Module,
    pixel_values: torch.Tensor,
    choose: Callable[[torch.Tensor], Choice],
    requests: Sequence[Request],
    model_kwargs: dict[str, Any],
    head_weights: "HeadImportanceReport | torch.Tensor | None" = None,
) -> list[Explanation]:
    """Explain what `choose` takes from the logits: [`explain`] for callers that choose in a way of their own.

    Args:
        model (`nn.Module`): The classifier.
        pixel_values (`torch.Tensor` of shape (batch, channels, height, width)): What the image processor made.
        choose (`Callable`): From logits (batch, classes), with their graph, to the scores to explain.
        requests (`Sequence` of [`Request`]): What is asked for; those that can share passes do.
        model_kwargs (`dict[str, Any]`): Handed to the model, which must know them.
        head_weights ([`HeadImportanceReport`] or `torch.Tensor`, *optional*): Weights in place of the gradient's; a
            report must be opened already.

    Returns:
        `list` of [`Explanation`]: One a request.
    """
    # The door: what the user gave is checked and copied here, once.
    model = checked_model(model)
    _check_kwargs(model, model_kwargs)
    pixels, kwargs = checked_pixels(model, pixel_values), usable_kwargs(model_kwargs)
    if head_weights is not None:
        check_head_weights(head_weights, model, len(pixels))
    images = Images(model, pixels, kwargs, choose)
    sharing = [request for request in requests if not request.has_passes]
    sharing_results: Iterator[Results] = iter(())
    logits, scores, weights = None, [], None
    if any(request.needs_whole_images for request in requests):
        with traced(model, pixels, start_of_all(requests), kwargs) as trace:
            scores, logits = images.scores(trace, requests), trace.logits.detach()
            if head_weights is not None:
                weights = weights_of_targets(head_weights, requests[0].norm, images.choice.classes, len(pixels))
            if sharing:
                sharing_results = iter(walk_back(trace, sharing, images, scores, given_weights=weights))
        del trace  # and with it what every layer computed
    by_request: list[Results] = []
    for request in requests:
        results = average_over_passes(images, request) if request.has_passes else next(sharing_results)
        if request.has_gap:
            results["completeness_gap"] = completeness_gap(images, scores, results)
        by_request.append(results)
    state = describe_state(model)
    settings = {
        "grid": images.patches.grid._asdict(),
        "patch_size": list(images.patches.size),
        **({"num_heads": images.num_heads} if len(set(images.num_heads)) > 1 else {}),
        "model_class": class_name(model),
        **({} if state is None else {"model_state": state}),
        "model_dtype": str(images.dtype).removeprefix("torch."),
        "model_kwargs": {name: described(value) for name, value in model_kwargs.items()},
        "versions": versions(),
    }
    target = images.choice.target
    return [
        Explanation(
            logits=None if logits is None else as_float32(logits).to(pixel_values.device),
            target=None if target is None else target.to(pixel_values.device),
            settings={
                **request.settings(),
                "head_weights": weights.origin if weights is not None and request.has_head_weights else None,
                **settings,
            },
            **{name: as_float32(tensor).to(pixel_values.device) for name, tensor in results.items()},
        )
        for request, results in zip(requests, by_request, strict=True)
    ]


def versions() -> dict[str, str]:
    """Return what an explanation was made with: versions by package."""
    return {"gmar_hf": __version__, "torch": str(torch.__version__), "transformers": transformers.__version__}


def _check_kwargs(model: nn.Module, model_kwargs: dict[str, Any]) -> None:
    """Refuse keyword arguments that transformers would silently swallow."""
    if "labels" in model_kwargs:
        raise ArgumentError("`labels` must not be given (there is no loss here). Say what to explain by `target`.")

    def advise(name: str) -> str:
        size = setting(model, "image_size")
        if "interpolate" in name and size:
            return f" It was made for images of {by_size(size)} pixels: resize to that, or leave the argument out."
        parameters = inspect.signature(explain).parameters.values()
        keywords = [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]
        own = ["target", "method", *keywords]
        return f" `explain` itself has {', '.join(own)}.{did_you_mean(name, own)}"

    check_known_kwargs(model, model_kwargs, advise)
