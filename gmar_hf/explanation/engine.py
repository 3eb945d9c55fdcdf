"""The way a batch goes: one SDPA forward, one backward a target, a map and head scores."""

import inspect
from collections.abc import Callable
from typing import Any

import torch
import transformers
from torch import nn

from gmar_hf._version import __version__
from gmar_hf.errors import ArgumentError
from gmar_hf.explanation.backward import Walk
from gmar_hf.explanation.head_weights import HeadWeights, check_same_model, check_weights, open_report
from gmar_hf.explanation.masking import masked_images
from gmar_hf.explanation.request import Request
from gmar_hf.explanation.result import Explanation
from gmar_hf.explanation.trace import Start, Trace, traced
from gmar_hf.images.baselines import Baseline
from gmar_hf.models.freezing import full_precision
from gmar_hf.models.inputs import checked_pixels
from gmar_hf.models.introspection import check_model, class_name, known_kwargs, setting, unsupported, unwrapped
from gmar_hf.models.patches import Grid, by_size, find_grid, pair
from gmar_hf.models.targets import Choice, Target, choose_target


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
    head_weights: HeadWeights | None = None,
    num_masks: int = 0,
    mask_baseline: Baseline = "blur",
    mask_pattern: str = "pairs",
    seed: int = 0,
    **model_kwargs: Any,
) -> Explanation:
    """Explain a batch of images: one forward, and one backward for each target an image has.

    The model is as it was afterwards: attention implementation, train/eval flags, `requires_grad`, `.grad`, hooks.

    Args:
        model (`nn.Module`): An image classifier of transformers on the attention interface, or one wrapped by PEFT.
        pixel_values (`torch.Tensor` of shape (batch, channels, height, width)): What the image processor makes.
        target: Which logit to explain: None (the predicted class; of a regression head, its output), an int, (batch,)
            ints, (batch, targets) ints (one forward for all; results get a targets axis after the batch), or a
            callable from float32 logits (batch, classes) to one scalar an image that depends on that image's only.
        method (`str`, defaults to "gmar"): "gmar", "contribution", "rollout", "gradient-rollout" or "attention".
        norm (`str`, defaults to "l1"): "l1" or "l2", the norm of each head's attention gradient that "gmar" weighs by.
        residual_weight (`float`, defaults to 1.0): Weight of the skip connection in the rollouts, beside the
            attention's 1.
        start_layer (`int`, defaults to 0): Layers before it are left out of the map.
        return_maps (`bool`, defaults to True): Whether to make the map over the patches.
        return_head_maps (`bool`, defaults to False): Whether to give every head's contribution by patch, which takes a
            backward with every method.
        head_weights ([`HeadImportanceReport`], its repo id or folder, or `torch.Tensor`, *optional*): Of "gmar": weigh
            heads as this report does for the explained class, or for all images where it saw too few of the class or
            `target` is a callable (`settings["head_weights"]` of the result says for which classes), in place of by
            the gradient. Then one forward is enough. Weights of your own may be given as a tensor (layers, heads) or
            (batch, layers, heads), not negative; they are divided by their sum in each layer.
        num_masks (`int`, defaults to 0): Of "contribution": average maps and head contributions over so many images
            of which some patches are hidden, by masks that are drawn once for the batch. Each takes a forward and a
            backward for each target; logits and predicted class are the whole image's. It estimates what a patch adds
            in the company of random others (Okhrati and Lipani 2021).
        mask_baseline (`str` or `torch.Tensor`, defaults to "blur"): What hidden patches show: "blur" (the image under
            a Gaussian as wide as a patch), "zero", "mean" (of each channel of the image), or pixel values that
            broadcast to the images. A map that used a baseline shines where it is measured with the same one.
        mask_pattern (`str`, defaults to "pairs"): "pairs" of opposite halves, an even number of masks, each patch
            averaged over all of them; or a "partition" of the patches, of which each mask hides another part, each
            patch averaged over the masks that show it. A partition of 4 hides less, and is nearer to the image.
        seed (`int`, defaults to 0): Of the masks.
        **model_kwargs: Handed to the model, which must know them, such as `interpolate_pos_encoding=True`.

    Returns:
        [`Explanation`]: float32, detached, on the device of `pixel_values`.

    Raises:
        ArgumentError: For a value that cannot be used; the message says what can.
        ArgumentTypeError: For an argument of the wrong kind.
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
    request = Request(
        method,
        norm,
        residual_weight,
        start_layer,
        return_maps,
        return_head_maps,
        head_weights,
        num_masks,
        mask_baseline,
        mask_pattern,
        seed,
    )
    return explain_scores(model, pixel_values, lambda logits: choose_target(target, logits), request, model_kwargs)


def explain_scores(
    model: nn.Module,
    pixel_values: torch.Tensor,
    choose: Callable[[torch.Tensor], Choice],
    request: Request,
    model_kwargs: dict[str, Any],
) -> Explanation:
    """[`explain`] for whoever chooses from the logits in another way, such as the pipeline.

    Args:
        model, pixel_values, model_kwargs: As in [`explain`].
        choose (`Callable`): From logits (batch, classes), with their graph, to the scores to explain.
        request ([`Request`]): What is asked for.
    """
    check_model(model)
    _check_kwargs(model, model_kwargs)
    if isinstance(request.head_weights, torch.Tensor):
        check_weights(request.head_weights, model, len(checked_pixels(model, pixel_values)))
    elif request.head_weights is not None:
        check_same_model(request.head_weights, model)
    # Of masked images the whole image gives the logits and the classes, and nothing else.
    start: Start = "head" if request.num_masks else request.start
    with traced(model, pixel_values, start, model_kwargs) as trace:
        if request.start_layer >= len(trace.layers):
            raise ArgumentError(f"`start_layer` must be in [0, {len(trace.layers) - 1}]; got {request.start_layer}.")
        patch_size = pair(_vision_setting(trace, "patch_size"))
        grid = find_grid(pair(pixel_values.shape[-2:]), patch_size, trace.hidden.shape[1])
        choice = choose(trace.logits.clone())  # the chooser may write into its own
        results: dict[str, torch.Tensor] = {}
        if not request.num_masks:
            results = _walk_back(trace, request, choice, choice.scores, grid)
    if request.num_masks:
        images = masked_images(
            checked_pixels(model, pixel_values),
            request.num_masks,
            request.mask_baseline,
            request.mask_pattern,
            request.seed,
            grid,
            patch_size,
        )
        for masked, token_weights in images:
            with traced(model, masked, request.start, model_kwargs) as part:
                found = _walk_back(part, request, choice, choice.again(part.logits.clone()), grid, token_weights)
            found["readout"] = found["readout"] / request.num_masks
            results = found if not results else {name: tensor + found[name] for name, tensor in results.items()}
    results = {name: tensor.to(pixel_values.device, torch.float32) for name, tensor in results.items()}
    return Explanation(
        logits=trace.logits.detach().to(pixel_values.device, torch.float32),
        target=None if choice.target is None else choice.target.to(pixel_values.device),
        settings={
            **request.settings(),
            "head_weights": _origin(request, choice),
            "grid": grid._asdict(),
            "patch_size": list(patch_size),
            "model_class": class_name(model),
            "model_dtype": str(trace.hidden.dtype).removeprefix("torch."),
            "versions": versions(),
        },
        **results,
    )


def _walk_back(
    trace: Trace,
    request: Request,
    choice: Choice,
    scores: list[torch.Tensor],
    grid: Grid,
    token_weights: torch.Tensor | None = None,
) -> dict[str, torch.Tensor]:
    """What the request asks for, for every score: the tensors of an [`Explanation`] that there are, by field name.

    Args:
        token_weights (`torch.Tensor` of shape (tokens,), *optional*): As of [`Walk`].
    """
    found = []
    with full_precision(trace.hidden.device):
        for number, (score, classes) in enumerate(zip(scores, choice.classes, strict=True), start=1):
            walk = Walk(trace, request, trace.head_gradient(score), classes, token_weights)
            walk.go(retain_graph=number < len(scores))
            found.append(walk.results(grid))
    results = {}
    for name in found[0]:
        tensors = [tensor for one in found if (tensor := one[name]) is not None]
        if tensors:
            results[name] = (torch.stack(tensors, dim=1) if choice.has_axis else tensors[0]).detach()
    return results


def versions() -> dict[str, str]:
    """What an explanation was made with, by package."""
    return {"gmar_hf": __version__, "torch": str(torch.__version__), "transformers": transformers.__version__}


def _check_kwargs(model: nn.Module, model_kwargs: dict[str, Any]) -> None:
    """Refuse keyword arguments that transformers would silently swallow."""
    if "labels" in model_kwargs:
        raise ArgumentError("`labels` must not be given (there is no loss here). Say what to explain by `target`.")
    known = known_kwargs(model)
    for name in model_kwargs:
        if name not in known:
            size = setting(getattr(unwrapped(model), "config", None), "image_size")
            own = [one for one in inspect.signature(explain).parameters.values() if one.kind is one.KEYWORD_ONLY]
            advice = f" `explain` itself has target, method, {', '.join(one.name for one in own)}."
            if "interpolate" in name and size:
                advice = (
                    f" It was made for images of {by_size(size)} pixels: resize to that, or leave the argument out."
                )
            raise ArgumentError(f"`{name}` must be an argument that {class_name(model)} knows; it does not.{advice}")


def _vision_setting(trace: Trace, name: str) -> Any:
    """A setting of the vision encoder, from the config that its attention modules hold."""
    found = setting(getattr(trace.layers[0].module, "config", None), name)
    if found is None:
        raise unsupported(trace.model, f"its config has no `{name}`")
    return found


def _origin(request: Request, choice: Choice) -> dict[str, Any] | None:
    """Which report the head weights came from, and for which classes they are its all-images weights."""
    report = request.head_weights
    if report is None:
        return None
    if isinstance(report, torch.Tensor):
        return {"tensor": list(report.shape)}
    classes = [] if choice.target is None else sorted(set(choice.target.flatten().tolist()))
    few = [index for index in classes if not report.class_weights(torch.tensor(index))[1]]
    return {
        "model": report.settings["model"]["id"],
        "num_images": report.num_images,
        "all_images_for": None if choice.target is None else few,
    }
