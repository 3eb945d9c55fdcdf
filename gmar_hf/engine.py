"""The way a batch goes: one SDPA forward, one backward a target, a map and head scores."""

import inspect
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
import transformers
from torch import nn

from ._version import __version__
from .borrow import frozen, full_precision, gradients_on
from .capture import class_name, unsupported, unwrapped
from .errors import ArgumentError, ArgumentTypeError, GMARError
from .explanation import Explanation
from .patches import find_grid, pair
from .targets import Choice, Target, choose_target
from .trace import Trace
from .walk import Request, Walk


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
    request = Request(method, norm, residual_weight, start_layer, return_maps, return_head_maps)
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
    _check_model(model, model_kwargs)
    with gradients_on(), frozen(model):
        trace = Trace(model, request.start)
        _forward(trace, checked_pixels(model, pixel_values), model_kwargs)
        if request.start_layer >= len(trace.layers):
            raise ArgumentError(f"`start_layer` must be in [0, {len(trace.layers) - 1}]; got {request.start_layer}.")
        patch_size = pair(_vision_setting(trace, "patch_size"))
        grid = find_grid(pair(pixel_values.shape[-2:]), patch_size, trace.hidden.shape[1])
        choice = choose(trace.logits.clone())  # the chooser may write into its own
        found = []
        with full_precision(trace.hidden.device):
            for number, score in enumerate(choice.scores, start=1):
                walk = Walk(trace, request, trace.head_gradient(score))
                walk.go(retain_graph=number < len(choice.scores))
                found.append(walk.results(grid))
    results = {}
    for name in found[0]:
        tensors = [tensor for one in found if (tensor := one[name]) is not None]
        if tensors:
            tensor = torch.stack(tensors, dim=1) if choice.has_axis else tensors[0]
            results[name] = tensor.detach().to(pixel_values.device, torch.float32)
    return Explanation(
        logits=trace.logits.detach().to(pixel_values.device, torch.float32),
        target=None if choice.target is None else choice.target.to(pixel_values.device),
        settings={
            **asdict(request),
            "grid": grid._asdict(),
            "patch_size": list(patch_size),
            "model_class": class_name(model),
            "model_dtype": str(trace.hidden.dtype).removeprefix("torch."),
            "versions": versions(),
        },
        **results,
    )


def versions() -> dict[str, str]:
    """What an explanation was made with, by package."""
    return {"gmar_hf": __version__, "torch": str(torch.__version__), "transformers": transformers.__version__}


def _check_model(model: nn.Module, model_kwargs: dict[str, Any]) -> None:
    """Refuse what is no model, and keyword arguments that transformers would silently swallow."""
    if not isinstance(model, nn.Module):
        raise ArgumentTypeError(
            f"`model` must be an image classifier of transformers; got {type(model).__name__}. "
            "Load it with `AutoModelForImageClassification.from_pretrained`."
        )
    if "labels" in model_kwargs:
        raise ArgumentError("`labels` must not be given (there is no loss here). Say what to explain by `target`.")
    known = _known_kwargs(model)
    for name in model_kwargs:
        if name not in known:
            size = _setting(getattr(unwrapped(model), "config", None), "image_size")
            own = [one for one in inspect.signature(explain).parameters.values() if one.kind is one.KEYWORD_ONLY]
            advice = f" `explain` itself has target, method, {', '.join(one.name for one in own)}."
            if "interpolate" in name and size:
                advice = f" It was made for images of {_by(size)} pixels: resize to that, or leave the argument out."
            raise ArgumentError(f"`{name}` must be an argument that {class_name(model)} knows; it does not.{advice}")
    if any(parameter.is_inference() for parameter in model.parameters()):
        raise ArgumentError(
            "`model` must have been loaded outside `torch.inference_mode` (no gradient can pass its weights); "
            "got inference tensors. Load it again outside the block."
        )


def _known_kwargs(model: nn.Module) -> set[str]:
    """Arguments that the classifier, or the backbone it hands the rest to, has by name."""
    classifier = unwrapped(model)
    known = dict(inspect.signature(classifier.forward).parameters)
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values()):
        for part in classifier.children():
            if isinstance(part, transformers.PreTrainedModel):
                known.update(inspect.signature(part.forward).parameters)
    return set(known) - {"pixel_values", "labels", "kwargs"}


def checked_pixels(model: nn.Module, pixel_values: torch.Tensor) -> torch.Tensor:
    """`pixel_values` ready for the model: detached, in its dtype.

    Args:
        model (`nn.Module`): The classifier.
        pixel_values (`torch.Tensor` of shape (batch, channels, height, width)): As the user gave them.

    Raises:
        ArgumentError: If the shape, the channels or the dtype do not fit.
        ArgumentTypeError: If it is no tensor.
    """
    if not isinstance(pixel_values, torch.Tensor):
        raise ArgumentTypeError(
            f"`pixel_values` must be a tensor (batch, channels, height, width); got {type(pixel_values).__name__}. "
            'Make it with the image processor: `image_processor(images, return_tensors="pt")["pixel_values"]`.'
        )
    if pixel_values.ndim != 4 or pixel_values.shape[0] == 0 or not pixel_values.is_floating_point():
        raise ArgumentError(
            "`pixel_values` must be floating point (batch, channels, height, width) with at least one image; got "
            f"{str(pixel_values.dtype).removeprefix('torch.')} {tuple(pixel_values.shape)}. One image needs "
            "a batch axis, `pixel_values[None]`; models that take other inputs, such as SigLIP2 NaFlex's flattened "
            "patches, are not supported."
        )
    channels = _setting(getattr(unwrapped(model), "config", None), "num_channels")
    if channels is not None and pixel_values.shape[1] != channels:
        raise ArgumentError(
            f"`pixel_values` must have {channels} channel{'s' * (channels > 1)} for {class_name(model)}; "
            f"got {pixel_values.shape[1]}. Convert the images."
        )
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), pixel_values.dtype)
    return _usable(pixel_values).to(dtype)


def _usable(value: Any) -> Any:
    """A tensor without a graph, which a backward can keep even if it was made in inference mode."""
    return value.detach().clone() if isinstance(value, torch.Tensor) else value


def _forward(trace: Trace, pixels: torch.Tensor, model_kwargs: dict[str, Any]) -> None:
    """Run the model; where it refuses a size that is not its own, say which it takes."""
    size = _setting(getattr(unwrapped(trace.model), "config", None), "image_size")
    try:
        trace.run(pixels, **{name: _usable(value) for name, value in model_kwargs.items()})
    except (ValueError, RuntimeError) as error:
        own_size = size is None or pair(size) == tuple(pixels.shape[-2:])
        if own_size or trace.layers or isinstance(error, GMARError | torch.OutOfMemoryError):
            raise
        advice = "Resize to that"
        if "interpolate_pos_encoding" in _known_kwargs(trace.model):
            advice += ", or pass `interpolate_pos_encoding=True`"
        raise ArgumentError(
            f"`pixel_values` must be {_by(size)} pixels for {class_name(trace.model)}; "
            f"got {pixels.shape[-2]} x {pixels.shape[-1]}. {advice}."
        ) from error


def _vision_setting(trace: Trace, name: str) -> Any:
    """A setting of the vision encoder, from the config that its attention modules hold."""
    setting = _setting(getattr(trace.layers[0].module, "config", None), name)
    if setting is None:
        raise unsupported(trace.model, f"its config has no `{name}`")
    return setting


def _setting(config: Any, name: str) -> Any:
    """`config.name`, or that of its vision part (CLIP, SigLIP)."""
    return getattr(config, name, None) or getattr(getattr(config, "vision_config", None), name, None)


def _by(size: Any) -> str:
    return " x ".join(map(str, pair(size)))
