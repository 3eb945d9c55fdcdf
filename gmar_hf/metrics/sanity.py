"""Whether a map has to do with the class, and with what the model has learned."""

import copy
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from gmar_hf.errors import ArgumentError, ArgumentTypeError, UnsupportedModelError
from gmar_hf.metrics.localization import checked_maps, energy_pointing_game
from gmar_hf.models.introspection import encoder_layers
from gmar_hf.models.model_check import checked_model
from gmar_hf.models.model_state import has_disabled_adapters
from gmar_hf.models.recorders import silenced_heads
from gmar_hf.models.wrappers import class_name, unwrapped
from gmar_hf.utils.checks import check_seed, check_whole
from gmar_hf.utils.correlation import pearson, spearman

ExplainFunction = Callable[[Any], torch.Tensor]
"""Turns a model into its maps (batch, rows, cols) for images and targets of its own."""


@dataclass(frozen=True, eq=False)
class ClassSensitivity:
    """How much a map for one class looks like that for another.

    Args:
        correlation (`torch.Tensor` of shape (batch,)): Pearson's, of the two maps, in [-1, 1]; NaN where one of them
            is constant. Near 1 the map does not tell the classes apart.
        energy_on_other (`torch.Tensor` of shape (batch,), *optional*): The share of the map's positive mass that is
            on the other class's object, in [0, 1].
    """

    correlation: torch.Tensor
    energy_on_other: torch.Tensor | None = None


def class_sensitivity(
    attribution: torch.Tensor, other_attribution: torch.Tensor, other_masks: torch.Tensor | None = None
) -> ClassSensitivity:
    """Compare a map with that for another class of the same image.

    Args:
        attribution (`torch.Tensor` of shape (batch, rows, cols)): The maps for one class.
        other_attribution (`torch.Tensor` of the same shape): Those for the other.
        other_masks (`torch.Tensor` of shape (batch, height, width), bool, *optional*): True on the pixels of the other
            class's object.

    Returns:
        [`ClassSensitivity`]: float32, on the maps' device; lower for maps that tell classes apart.

    Raises:
        ArgumentError: If maps and masks do not fit together, or a map is not finite.
        ArgumentTypeError: If an argument is of the wrong kind.

    Example:
        >>> maps = torch.tensor([[[4.0, 0.0], [0.0, 0.0]]])
        >>> class_sensitivity(maps, -maps).correlation
        tensor([-1.])
    """
    maps, other_maps = checked_maps("attribution", attribution), checked_maps("other_attribution", other_attribution)
    if maps.shape != other_maps.shape:
        raise ArgumentError(
            f"`other_attribution` must be of the shape of `attribution`, {tuple(maps.shape)}; "
            f"got {tuple(other_maps.shape)}."
        )
    return ClassSensitivity(
        correlation=pearson(maps.flatten(1), other_maps.flatten(1)).to(maps.device, torch.float32),
        energy_on_other=None if other_masks is None else energy_pointing_game(attribution, other_masks),
    )


@dataclass(frozen=True, eq=False)
class RandomizationCheck:
    """What is left of a map while a model forgets what it has learned, from its head down.

    Args:
        stages (`tuple[str, ...]`): What has been forgotten last, on top of all before it: "head" (whatever follows
            the encoder's layers), the last layer ("layer 11", ...) to the first ("layer 0"), "embeddings".
        correlation (`torch.Tensor` of shape (stages, batch)): Spearman's rank correlation of the map then with the
            trained model's, in [-1, 1], averaged over the draws of new weights; NaN where a map is constant. A map
            that shows what the model has learned comes near 0.
        spread (`torch.Tensor` of shape (stages, batch)): The standard deviation of that correlation over the draws
            (of a sample: by draws less one); NaN for a single draw.
    """

    stages: tuple[str, ...]
    correlation: torch.Tensor
    spread: torch.Tensor


def randomization_check(
    model: nn.Module, explain_fn: ExplainFunction, *, num_draws: int = 5, seed: int = 0
) -> RandomizationCheck:
    """Give a copy of the model new weights part by part, from the head down, and see what its maps still show.

    The cascading randomisation of Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018. Each new weight is
    drawn from the normal distribution that has the mean and the spread of its tensor in a new model made from the
    config, so what always begins with zeros or ones does so again, and so do buffers and what is never trained. The
    new model's own weights are not taken: one that was trained from the same seed would get its first ones back.

    Args:
        model (`nn.Module`): An image classifier of transformers, or one wrapped by PEFT (whose adapters are merged
            into the copy). It is not touched.
        explain_fn (`Callable`): From a model to its maps (batch, rows, cols), of the same images for the same targets
            each time: give it their indices, as the predicted class changes with the weights. It is called once, and
            once for each stage of each draw.
        num_draws (`int`, defaults to 5): How often new weights are drawn; one draw can be far from the mean.
        seed (`int`, defaults to 0): Of the new weights, from a stream of this check's own; the global random state
            stays as it is.

    Returns:
        [`RandomizationCheck`]: `stages`, and `correlation` and `spread` (stages, batch), float32 on the maps' device.

    Raises:
        ArgumentError: If weights are not loaded, heads are silenced, adapters are disabled, or the maps are not
            finite, or change their shape.
        ArgumentTypeError: If an argument is of the wrong kind.
        UnsupportedModelError: If the encoder's layers are not found, or the model's class cannot make it from its
            config.

    Example:
        >>> import gmar_hf, gmar_hf.demo
        >>> model, image_processor = gmar_hf.demo.load("vit")
        >>> inputs = image_processor([scene["image"] for scene in gmar_hf.demo.scenes(2)], return_tensors="pt")
        >>> def explain(model):
        ...     return gmar_hf.explain(model, inputs["pixel_values"], target=[0, 3], method="contribution").attribution
        >>> check = randomization_check(model, explain, num_draws=2)
        >>> check.stages[0], check.stages[1], check.stages[-1], check.correlation.shape
        ('head', 'layer 5', 'embeddings', torch.Size([8, 2]))
    """
    if not callable(explain_fn):
        raise ArgumentTypeError(
            f"`explain_fn` must be a function from a model to maps; got {type(explain_fn).__name__}."
        )
    check_whole("num_draws", num_draws, minimum=1)
    check_seed("seed", seed)
    # The copy's weights are changed where they lie: what is copied into `weights` is in the model.
    copied = _plain_copy(model)
    weights = copied.state_dict()
    trained_weights = {name: weight.clone() for name, weight in weights.items()}
    stages = _stages(copied, list(weights))
    new_model = _new_model(copied, seed)
    trained = checked_maps("explain_fn", explain_fn(copied))

    # In each draw each stage forgets on top of those before it.
    correlations = []
    for draw in range(num_draws):
        new_weights = _new_weights(new_model, _generator(seed, draw))
        _copy(trained_weights, weights, list(weights))
        for names in stages.values():
            _copy(new_weights, weights, names)
            maps = checked_maps("explain_fn", explain_fn(copied))
            if maps.shape != trained.shape:
                raise ArgumentError(
                    f"`explain_fn` must give maps of one shape; got {tuple(maps.shape)} after {tuple(trained.shape)}."
                )
            correlations.append(spearman(trained.flatten(1), maps.flatten(1)))
    of_draws = torch.stack(correlations).unflatten(0, (num_draws, len(stages)))
    spread = of_draws.std(dim=0) if num_draws > 1 else torch.full_like(of_draws[0], torch.nan)
    return RandomizationCheck(
        stages=tuple(stages),
        correlation=of_draws.mean(dim=0).to(trained.device, torch.float32),
        spread=spread.to(trained.device, torch.float32),
    )


def _plain_copy(model: nn.Module) -> PreTrainedModel:
    """Copy the transformers model itself, without compilation, with adapters merged."""
    model = checked_model(model)
    if not isinstance(unwrapped(model), PreTrainedModel):
        raise ArgumentTypeError(
            f"`model` must be a transformers model or a PEFT wrapper of one; got {type(model).__name__}. "
            "Load it with `AutoModelForImageClassification.from_pretrained`."
        )
    if any(parameter.is_meta for parameter in model.parameters()):
        raise ArgumentError(
            "`model` must have its weights in memory; got some that are offloaded. Load it without a device map."
        )
    if silenced_heads(model):
        raise ArgumentError(
            "`model` must have all its heads (they are silenced in the model, and would not be in the copy that is "
            "explained); got a call inside `silence_heads`. Leave the block, or silence heads in `explain_fn`."
        )
    if has_disabled_adapters(model):
        raise ArgumentError(
            "`model` must have its adapters enabled (they are merged into the copy that is explained); got some of "
            "PEFT that are disabled. Enable them, or pass the model as it was before it was wrapped."
        )
    copied: Any = copy.deepcopy(model)
    return copied.merge_and_unload() if hasattr(copied, "merge_and_unload") else unwrapped(copied)


def _new_model(model: PreTrainedModel, seed: int) -> PreTrainedModel:
    """Make a new model of the same class and config, on the CPU."""
    config = copy.deepcopy(model.config)
    config._attn_implementation = "eager"  # nothing is computed; others look for devices and packages
    try:
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            # The accelerators' generators are left alone.
            torch.default_generator.manual_seed(_generator(seed).initial_seed())
            made: PreTrainedModel = type(model)(config)
    except Exception as error:
        raise _not_made(model, f"it raised {type(error).__name__}: {error}") from error
    new_weights = made.state_dict()
    for name, weight in model.state_dict().items():
        if name not in new_weights or new_weights[name].shape != weight.shape:
            raise _not_made(model, f"`{name}` came out otherwise")
    return made


def _new_weights(new_model: PreTrainedModel, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Return weights by name: where a new model's are trained, drawn with the mean and spread of each tensor."""
    new_weights: dict[str, torch.Tensor] = dict(new_model.state_dict())
    for name, parameter in new_model.named_parameters(remove_duplicate=False):
        begun = parameter.detach().float()
        if parameter.requires_grad and name in new_weights and begun.amin() < begun.amax():
            noise = torch.randn(begun.shape, generator=generator, device="cpu")
            new_weights[name] = begun.mean() + begun.std(correction=0) * noise
    return new_weights


def _generator(*numbers: int) -> torch.Generator:
    """Make a generator on the CPU, of a stream that no training uses: its seed is a hash of this check's name."""
    content = ":".join(("gmar_hf.metrics.randomization_check", *map(str, numbers)))
    return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(content.encode()).digest()[:7]))


def _copy(source: dict[str, torch.Tensor], weights: dict[str, torch.Tensor], names: list[str]) -> None:
    with torch.no_grad():
        for name in names:
            weights[name].copy_(source[name])


def _stages(model: PreTrainedModel, names: list[str]) -> dict[str, list[str]]:
    """Sort the names of the weights by stage, from the head down.

    Whatever the family calls them, transformers defines the parts of a model in the order in which images pass them:
    first the embeddings, then the layers, then the head.
    """
    prefix, layers = encoder_layers(model)
    inside = [index for index, name in enumerate(names) if name.startswith(f"{prefix}.")]
    stages = {"head": names[inside[-1] + 1 :]}
    for number in reversed(range(len(layers))):
        stages[f"layer {number}"] = [name for name in names if name.startswith(f"{prefix}.{number}.")]
    stages["embeddings"] = names[: inside[0]]
    return stages


def _not_made(model: nn.Module, reason: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"{class_name(model)} cannot be given new weights: its class must make it from its config alone, but {reason}."
    )
