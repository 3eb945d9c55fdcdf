"""The way a batch goes: one SDPA forward, one backward for each target, a map and head scores."""

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import transformers
from torch import nn

from gmar_hf._version import __version__
from gmar_hf.errors import ArgumentError
from gmar_hf.explanation.backward import Walk
from gmar_hf.explanation.head_weights import GivenWeights, check_head_weights, open_report, weights_of_targets
from gmar_hf.explanation.masking import masked_images
from gmar_hf.explanation.request import Request
from gmar_hf.explanation.result import Explanation
from gmar_hf.explanation.trace import Trace, traced
from gmar_hf.images.baselines import Baseline
from gmar_hf.models.freezing import full_precision, gradients_on
from gmar_hf.models.introspection import check_model, class_name, known_kwargs, setting, unsupported
from gmar_hf.models.model_inputs import checked_pixels, usable_kwargs
from gmar_hf.models.patches import Grid, by_size, find_grid, pair
from gmar_hf.models.targets import Choice, Target, choose_target

if TYPE_CHECKING:
    from gmar_hf.explanation.head_weights import HeadWeights
    from gmar_hf.report.head_importance_report import HeadImportanceReport


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
    head_weights: "HeadWeights | None" = None,
    num_masks: int = 0,
    mask_baseline: Baseline = "blur",
    mask_pattern: str = "pairs",
    seed: int = 0,
    **model_kwargs: Any,
) -> Explanation:
    """Explain a batch of images by one forward, and one backward for each target that an image has.

    The model is as it was afterwards: attention implementation, train/eval flags, `requires_grad`, `.grad`, hooks.

    Args:
        model (`nn.Module`): An image classifier of transformers on the attention interface, or one wrapped by PEFT.
        pixel_values (`torch.Tensor` of shape (batch, channels, height, width)): What the image processor makes.
        target: Which logit to explain. None means the predicted class (of a regression head, its output). An int
            names one class for all images, (batch,) ints one an image. With (batch, targets) ints one forward serves
            all, and results get a targets axis after the batch. A callable turns float32 logits (batch, classes) into
            one scalar an image, which must depend on that image's logits only.
        method (`str`, defaults to "gmar"): How the map is made: "gmar", "contribution", "rollout", "gradient-rollout"
            or "attention"; `gmar_hf.explanation.methods` says what each is.
        norm (`str`, defaults to "l1"): The norm of each head's attention gradient that "gmar" weighs by, "l1" or "l2".
        residual_weight (`float`, defaults to 1.0): The weight of the skip connection in the rollouts, beside the
            attention's 1.
        start_layer (`int`, defaults to 0): The first layer that counts; layers before it are left out of the map.
        return_maps (`bool`, defaults to True): Whether to make the map over the patches.
        return_head_maps (`bool`, defaults to False): Whether to give every head's contribution by patch, which takes a
            backward with every method.
        head_weights ([`HeadImportanceReport`], its repo id or folder, or `torch.Tensor`, *optional*): For "gmar":
            weigh heads as this report does for the explained class, in place of by the gradient; then one forward is
            enough. Where the report saw too few images of the class, or `target` is a callable, the weights of all
            images are used (`settings["head_weights"]` of the result says for which classes). A tensor (layers, heads)
            or (batch, layers, heads), not negative, holds weights of your own, which are divided by their sum in each
            layer.
        num_masks (`int`, defaults to 0): For "contribution": average maps and head contributions over this many images
            of which some patches are hidden, by masks that are drawn once for the batch. Each takes a forward, and a
            backward for each target; logits and predicted class are the whole image's. The average estimates what a
            patch adds in the company of random others (Okhrati and Lipani 2021).
        mask_baseline (`str` or `torch.Tensor`, defaults to "blur"): What hidden patches show: "blur" (the image under
            a Gaussian as wide as a patch), "zero", "mean" (of each channel of the image), or pixel values that
            broadcast to the images. A map that used a baseline shines where it is measured with the same one.
        mask_pattern (`str`, defaults to "pairs"): "pairs" of opposite halves, an even number of masks, each patch
            averaged over all of them; or a "partition" of the patches, of which each mask hides another part, each
            patch averaged over the masks that show it. A partition of 4 hides less, and is nearer to the image.
        seed (`int`, defaults to 0): The seed that the masks are drawn from.
        **model_kwargs: Handed to the model, which must know them, such as `interpolate_pos_encoding=True`.

    Returns:
        [`Explanation`]: float32, detached, on the device of `pixel_values`.

    Raises:
        ArgumentError: If a value cannot be used; the message says which can.
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
    # A report is open by now, and the request checks itself.
    request = Request(
        method=method,
        norm=norm,
        residual_weight=residual_weight,
        start_layer=start_layer,
        return_maps=return_maps,
        return_head_maps=return_head_maps,
        has_head_weights=head_weights is not None,
        num_masks=num_masks,
        mask_baseline=mask_baseline,
        mask_pattern=mask_pattern,
        seed=seed,
    )
    return explain_scores(
        model, pixel_values, lambda logits: choose_target(target, logits), request, model_kwargs, head_weights
    )


def explain_scores(
    model: nn.Module,
    pixel_values: torch.Tensor,
    choose: Callable[[torch.Tensor], Choice],
    request: Request,
    model_kwargs: dict[str, Any],
    head_weights: "HeadImportanceReport | torch.Tensor | None" = None,
) -> Explanation:
    """Explain what `choose` takes from the logits: [`explain`] for callers that choose in a way of their own.

    Args:
        model (`nn.Module`): The classifier.
        pixel_values (`torch.Tensor` of shape (batch, channels, height, width)): What the image processor made.
        choose (`Callable`): From logits (batch, classes), with their graph, to the scores to explain.
        request ([`Request`]): What is asked for.
        model_kwargs (`dict[str, Any]`): Handed to the model, which must know them.
        head_weights ([`HeadImportanceReport`] or `torch.Tensor`, *optional*): Weights in place of the gradient's; a
            report must be opened already.
    """
    # The door: what the user gave is checked and copied here, once.
    check_model(model)
    _check_kwargs(model, model_kwargs)
    pixels, kwargs = checked_pixels(model, pixel_values), usable_kwargs(model_kwargs)
    if head_weights is not None:
        check_head_weights(head_weights, model, len(pixels))
    # Of masked images the whole image gives the logits and the classes, and nothing else.
    with traced(model, pixels, "head" if request.num_masks else request.start, kwargs) as trace:
        patches = _find_patches(trace, request, pixels)
        choice = choose(trace.logits.clone())  # the chooser may write into its argument
        weights = None
        if head_weights is not None:
            weights = weights_of_targets(head_weights, request.norm, choice.classes, len(pixels))
        if not request.num_masks:
            results = _walk_back(trace, request, choice, choice.scores, patches, weights)
    if request.num_masks:
        results = _average_over_masks(model, pixels, kwargs, request, choice, patches)
    # Whatever the model computed in, users get float32 where their pixels are.
    results = {name: tensor.to(pixel_values.device, torch.float32) for name, tensor in results.items()}
    return Explanation(
        logits=trace.logits.detach().to(pixel_values.device, torch.float32),
        target=None if choice.target is None else choice.target.to(pixel_values.device),
        settings={
            **request.settings(),
            "head_weights": None if weights is None else weights.origin,
            "grid": patches.grid._asdict(),
            "patch_size": list(patches.size),
            "model_class": class_name(model),
            "model_dtype": str(trace.hidden.dtype).removeprefix("torch."),
            "versions": versions(),
        },
        **results,
    )


class _Patches(NamedTuple):
    """Where the patches stand among the tokens, and their height and width in pixels."""

    grid: Grid
    size: tuple[int, int]


def _find_patches(trace: Trace, request: Request, pixels: torch.Tensor) -> _Patches:
    num_layers = len(trace.layers)
    if request.start_layer >= num_layers:
        raise ArgumentError(f"`start_layer` must be in [0, {num_layers - 1}]; got {request.start_layer}.")
    size = setting(trace.layers[0].module, "patch_size")
    if size is None:
        raise unsupported(trace.model, "its config has no `patch_size`")
    return _Patches(find_grid(pair(pixels.shape[-2:]), pair(size), trace.hidden.shape[1]), pair(size))


def _average_over_masks(
    model: nn.Module,
    pixels: torch.Tensor,
    kwargs: dict[str, Any],
    request: Request,
    choice: Choice,
    patches: _Patches,
) -> dict[str, torch.Tensor]:
    """Explain the batch under one mask after the other, and sum what each adds to the average."""
    results: dict[str, torch.Tensor] = {}
    with gradients_on():  # for the masked images too, which a backward keeps
        for masked, token_weights in masked_images(pixels, request, patches.grid, patches.size):
            with traced(model, masked, request.start, kwargs) as trace:
                scores = choice.again(trace.logits.clone())
                part = _walk_back(trace, request, choice, scores, patches, token_weights=token_weights)
            part["readout"] = part["readout"] / request.num_masks
            results = part if not results else {name: total + part[name] for name, total in results.items()}
    return results


def _walk_back(
    trace: Trace,
    request: Request,
    choice: Choice,
    scores: list[torch.Tensor],
    patches: _Patches,
    weights: GivenWeights | None = None,
    token_weights: torch.Tensor | None = None,
) -> dict[str, torch.Tensor]:
    """Walk back once for every score, and return the tensors of an [`Explanation`] that there are, by field name."""
    by_score = []
    with full_precision(trace.hidden.device):
        for number, score in enumerate(scores):
            walk = Walk(
                trace,
                request,
                trace.head_gradient(score),
                given_weights=None if weights is None else weights.by_target[number],
                token_weights=token_weights,
            )
            walk.go(retain_graph=number + 1 < len(scores))
            by_score.append(walk.results(patches.grid))
    # Every walk has the same fields; those that nobody asked for are None.
    results = {}
    for name in by_score[0]:
        tensors = [tensor for fields in by_score if (tensor := fields[name]) is not None]
        if tensors:
            results[name] = (torch.stack(tensors, dim=1) if choice.has_axis else tensors[0]).detach()
    return results


def versions() -> dict[str, str]:
    """Return what an explanation was made with: versions by package."""
    return {"gmar_hf": __version__, "torch": str(torch.__version__), "transformers": transformers.__version__}


def _check_kwargs(model: nn.Module, model_kwargs: dict[str, Any]) -> None:
    """Refuse keyword arguments that transformers would silently swallow."""
    if "labels" in model_kwargs:
        raise ArgumentError("`labels` must not be given (there is no loss here). Say what to explain by `target`.")
    unknown = sorted(set(model_kwargs) - known_kwargs(model))
    if not unknown:
        return
    # The likeliest mistake gets an advice of its own.
    size = setting(model, "image_size")
    if "interpolate" in unknown[0] and size:
        advice = f" It was made for images of {by_size(size)} pixels: resize to that, or leave the argument out."
    else:
        parameters = inspect.signature(explain).parameters.values()
        keywords = ", ".join(parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY)
        advice = f" `explain` itself has target, method, {keywords}."
    raise ArgumentError(f"`{unknown[0]}` must be an argument that {class_name(model)} knows; it does not.{advice}")
