"""Whether a map has to do with the class, and with what the model has learned."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from gmar_hf.errors import ArgumentError, ArgumentTypeError, UnsupportedModelError
from gmar_hf.metrics.localization import checked_maps, energy_pointing_game
from gmar_hf.models.introspection import check_model, class_name, encoder_layers, unwrapped
from gmar_hf.utils.checks import check_seed
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
            trained model's, in [-1, 1]; NaN where one of them is constant. A map that shows what the model has
            learned comes near 0.
    """

    stages: tuple[str, ...]
    correlation: torch.Tensor


def randomization_check(model: nn.Module, explain_fn: ExplainFunction, *, seed: int = 0) -> RandomizationCheck:
    """Give a copy of the model new weights part by part, from the head down, and see what its maps still show.

    The cascading randomisation of Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018. New weights are
    those of a model made from the config, so what always begins with zeros or ones does so again.

    Args:
        model (`nn.Module`): An image classifier of transformers, or one wrapped by PEFT (whose adapters are merged
            into the copy). It is not touched.
        explain_fn (`Callable`): From a model to its maps (batch, rows, cols), of the same images for the same targets
            each time: give it their indices, as the predicted class changes with the weights.
        seed (`int`, defaults to 0): Of the new weights; the global random state stays as it is.

    Returns:
        [`RandomizationCheck`]: `stages` and `correlation` (stages, batch), float32 on the maps' device.

    Raises:
        ArgumentError: If weights are not loaded, or the maps are not finite, or change their shape.
        ArgumentTypeError: If an argument is of the wrong kind.
        UnsupportedModelError: If the encoder's layers are not found, or the model's class cannot make it from its
            config.

    Example:
        >>> import gmar_hf, gmar_hf.demo
        >>> model, image_processor = gmar_hf.demo.load("vit")
        >>> inputs = image_processor([scene["image"] for scene in gmar_hf.demo.scenes(2)], return_tensors="pt")
        >>> def explain(model):
        ...     return gmar_hf.explain(model, inputs["pixel_values"], target=[0, 3], method="contribution").attribution
        >>> check = randomization_check(model, explain)
        >>> check.stages[0], check.stages[1], check.stages[-1], check.correlation.shape
        ('head', 'layer 5', 'embeddings', torch.Size([8, 2]))
    """
    if not callable(explain_fn):
        raise ArgumentTypeError(
            f"`explain_fn` must be a function from a model to maps; got {type(explain_fn).__name__}."
        )
    check_seed("seed", seed)
    # The copy's weights are changed where they lie: what is copied into `weights` is in the model.
    copied = _plain_copy(model)
    weights = copied.state_dict()
    new_weights = _new_weights(copied, seed)
    stages = _stages(copied, list(weights))
    trained = checked_maps("explain_fn", explain_fn(copied))

    # Each stage forgets on top of those before it.
    correlations = []
    for names in stages.values():
        with torch.no_grad():
            for name in names:
                weights[name].copy_(new_weights[name])
        maps = checked_maps("explain_fn", explain_fn(copied))
        if maps.shape != trained.shape:
            raise ArgumentError(
                f"`explain_fn` must give maps of one shape; got {tuple(maps.shape)} after {tuple(trained.shape)}."
            )
        correlations.append(spearman(trained.flatten(1), maps.flatten(1)))
    return RandomizationCheck(tuple(stages), torch.stack(correlations).to(trained.device, torch.float32))


def _plain_copy(model: nn.Module) -> PreTrainedModel:
    """Copy the transformers model itself, without compilation, with adapters merged."""
    check_model(model)
    if not isinstance(unwrapped(model), PreTrainedModel):
        raise ArgumentTypeError(
            f"`model` must be a transformers model or a PEFT wrapper of one; got {type(model).__name__}. "
            "Load it with `AutoModelForImageClassification.from_pretrained`."
        )
    if any(parameter.is_meta for parameter in model.parameters()):
        raise ArgumentError(
            "`model` must have its weights in memory; got some that are offloaded. Load it without a device map."
        )
    copied: Any = copy.deepcopy(getattr(model, "_orig_mod", model))
    return copied.merge_and_unload() if hasattr(copied, "merge_and_unload") else unwrapped(copied)


def _new_weights(model: PreTrainedModel, seed: int) -> dict[str, torch.Tensor]:
    """Return the weights, by name, of a new model of the same class and config."""
    config = copy.deepcopy(model.config)
    config._attn_implementation = "eager"  # nothing is computed; others look for devices and packages
    try:
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            torch.default_generator.manual_seed(seed)  # the accelerators' generators are left alone
            new_weights: dict[str, torch.Tensor] = type(model)(config).state_dict()
    except Exception as error:
        raise _not_made(model, f"it raised {type(error).__name__}: {error}") from error
    for name, weight in model.state_dict().items():
        if name not in new_weights or new_weights[name].shape != weight.shape:
            raise _not_made(model, f"`{name}` came out otherwise")
    return new_weights


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
