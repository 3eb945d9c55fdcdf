"""Which architectures of transformers are explained: tried one by one, on a tiny random model of each."""

import copy
import warnings
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING,
    MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING,
)

from gmar_hf.errors import ArgumentError, GMARError, UnsupportedModelError
from gmar_hf.explanation.engine import explain
from gmar_hf.explanation.explicit_maps import map_errors
from gmar_hf.explanation.methods import METHODS
from gmar_hf.explanation.parity import TOLERANCE, check_parity
from gmar_hf.models.model_check import is_dual_encoder
from gmar_hf.models.refusals import ADVICE
from gmar_hf.models.text_classifier import TextClassifier, checked_encoder
from gmar_hf.models.tiny_models import tiny_model
from gmar_hf.utils.text import shown

Task = Literal["image-classification", "zero-shot-image-classification"]
_MAPPINGS: dict[Task, Any] = {
    "image-classification": MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING,
    "zero-shot-image-classification": MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING,
}
_SIZES = (32, 64, 224)  # of images, in pixels
_LEAST_DEMANDING = "contribution"  # a model that this method refuses is refused by all


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A class of transformers that a task is done with.

    Args:
        task (`str`): "image-classification" or "zero-shot-image-classification".
        model_class (`type`): Such as `ViTForImageClassification`.
        config_class (`type`): The class of its config.
    """

    task: Task
    model_class: Any
    config_class: Any

    @property
    def name(self) -> str:
        """The name of the class."""
        return str(self.model_class.__name__)


@dataclass(frozen=True, kw_only=True)
class ArchitectureCheck:
    """What came of trying an architecture.

    Args:
        architecture ([`Architecture`]): Which.
        methods (`tuple[str, ...]`): The methods of [`explain`] that give a map.
        error (`float`, *optional*): The largest of the errors of [`check_parity`] and [`map_errors`], in float32
            against float64; None where nothing is served.
        is_right (`bool`): Whether nothing is wrong: what is served agrees with explicit attention and with the logits'
            own gradient, and what is not is refused in words of this package.
        sentence (`str`): Why not all methods are served, or what is wrong; else empty.
    """

    architecture: Architecture
    methods: tuple[str, ...] = ()
    error: float | None = None
    is_right: bool = True
    sentence: str = ""

    @property
    def is_tried(self) -> bool:
        """Whether what the architecture needs is installed."""
        return " requires the " not in self.sentence

    @property
    def reason(self) -> str:
        """The sentence without the name that it begins with, and without the advice that every refusal ends with."""
        name = self.architecture.name
        bare = self.sentence.removesuffix(ADVICE).strip().removesuffix(".")
        return bare.removeprefix(f"{name} cannot be explained: ").removeprefix(name).strip()


def architectures() -> list[Architecture]:
    """List the architectures that transformers knows for image classification, and for the zero-shot kind of it."""
    return [
        Architecture(task=task, model_class=model_class, config_class=config_class)
        for task, mapping in _MAPPINGS.items()
        for config_class, model_classes in mapping.items()
        for model_class in (model_classes if isinstance(model_classes, tuple) else (model_classes,))
    ]


def check_architecture(architecture: Architecture) -> ArchitectureCheck:
    """Try every method on a tiny random model of an architecture, and hold it against explicit attention.

    What fails in another way than by a sentence of this package is told of, not raised: one architecture must not hide
    the rest.

    Args:
        architecture ([`Architecture`]): One of [`architectures`].

    Returns:
        [`ArchitectureCheck`]
    """
    # Warnings of transformers about tiny configs are nobody's business here.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            model = tiny_model(architecture.model_class, architecture.config_class)
            return _check(architecture, _of_texts(model) if is_dual_encoder(model) else model)
        except UnsupportedModelError as error:  # of a dual encoder, before any image
            return ArchitectureCheck(architecture=architecture, sentence=str(error))
        except ImportError as error:  # of a package that the architecture needs, and that is not installed
            sentence = shown(str(error).strip().split(". ")[0].splitlines()[0])
            return ArchitectureCheck(architecture=architecture, sentence=sentence)
        except Exception as error:
            sentence = f"a foreign error, {type(error).__name__}: {shown(error)}"
            return ArchitectureCheck(architecture=architecture, is_right=False, sentence=sentence)


def _of_texts(model: Any) -> TextClassifier:
    """Make a classifier of two texts of a dual encoder, whose tokens mean nothing."""
    encoder = checked_encoder(model)
    with torch.no_grad():
        text_embeds = encoder.get_text_features(input_ids=torch.tensor([[0, 2, 3, 1], [0, 4, 5, 1]])).pooler_output
    return TextClassifier(encoder, text_embeds, ["2 3", "4 5"])


def _check(architecture: Architecture, model: nn.Module) -> ArchitectureCheck:
    # Images of the first size that the model takes; it may be refused whatever the size.
    for size in _SIZES:
        pixels = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0), device="cpu")
        refusal = _refusal(model, pixels, _LEAST_DEMANDING)
        if not isinstance(refusal, ArgumentError):
            break
    if refusal is not None:
        return ArchitectureCheck(architecture=architecture, sentence=str(refusal))
    # It is served: by which methods, and do they say what explicit attention says?
    refusals = {method: _refusal(model, pixels, method) for method in METHODS}
    sentence = next((str(error) for error in refusals.values() if error is not None), "")
    reference = copy.deepcopy(model).double()
    parity = check_parity(model, pixels, reference)
    errors = {**parity.errors, **map_errors(model, pixels, reference)}
    name, error = max(errors.items(), key=lambda item: item[1])
    if error > TOLERANCE:
        sentence = f"{architecture.name}: {name} differs from explicit attention."
    elif not parity.gradient_agrees:
        sentence = f"{architecture.name}: the gradient is not the logits' own."
    return ArchitectureCheck(
        architecture=architecture,
        methods=tuple(method for method, error in refusals.items() if error is None),
        error=error,
        is_right=parity.gradient_agrees and error <= TOLERANCE,
        sentence=sentence,
    )


def _refusal(model: nn.Module, pixels: torch.Tensor, method: str) -> GMARError | None:
    """Return the error by which a method refuses a model or its images; None where it gives a map."""
    try:
        explain(model, pixels, method=method)
    except (ArgumentError, UnsupportedModelError) as error:
        return error
    return None
