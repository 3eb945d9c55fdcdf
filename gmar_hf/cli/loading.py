"""Loading what a command was pointed at. Commands import this module when they run, as it imports torch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import typer
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.constants import CONFIG_NAME

# From where pipelines have it: transformers 5.9 shows it under its own name only where torchvision is.
from transformers.models.auto.image_processing_auto import AutoImageProcessor

from gmar_hf._pipeline.texts import find_tokenizer
from gmar_hf.cli.app import tell
from gmar_hf.errors import ArgumentError
from gmar_hf.explanation.patch_layout import methods_of
from gmar_hf.models.auto_model import AutoModelForImageClassification
from gmar_hf.models.model_check import is_dual_encoder
from gmar_hf.models.text_classifier import TEMPLATE, text_classifier
from gmar_hf.models.wrappers import class_name
from gmar_hf.pipeline import GMARExplainer
from gmar_hf.utils.text import printable


def load_explainer(
    model: str, revision: str | None, device: str | None, parameters: dict[str, Any], default_methods: Sequence[str]
) -> tuple[GMARExplainer, list[str]]:
    """Make the pipeline for a model's name or folder; return it and the methods that it draws.

    Args:
        model (`str`): Hub id or folder of an image classifier.
        revision (`str`, *optional*): Branch, tag or commit of the model on the Hub.
        device (`str`, *optional*): Where to run; a GPU where there is one.
        parameters (`dict[str, Any]`): The pipeline's; those that are None are left at their defaults.
        default_methods (`Sequence[str]`): Where the parameters name no `method`, those of these that the model has.

    Raises:
        ArgumentError: If it cannot be loaded, there is no such device, or a parameter is wrong.
    """
    place = checked_device(device)
    loaded = load_model(model, revision)
    if is_dual_encoder(loaded):
        _check_labels(loaded, parameters.get("candidate_labels"))
    defined = methods_of(loaded)
    methods = parameters["method"] or [name for name in default_methods if name in defined]
    parameters = {**parameters, "method": methods}
    explainer = GMARExplainer(
        model=loaded,
        image_processor=load_image_processor(model, revision),
        device=place,
        **{name: value for name, value in parameters.items() if value is not None},
    )
    return explainer, methods


def load_model(name: str, revision: str | None, dtype: Any = "auto") -> Any:
    """Load a classifier, or a model that compares images with texts; say on standard error if a part is untrained.

    Raises:
        ArgumentError: If it cannot be loaded, or brings code of its own, which is never run and never asked about; the
            message holds what transformers says. Or if its head has no weights.
    """
    tell(f"Loading {name} ..." if _is_here(name, revision) else f"Downloading {name}, once, into the Hub's cache ...")
    model, info = _load(AutoModelForImageClassification, name, revision, dtype=dtype, output_loading_info=True)
    missing = sorted(info["missing_keys"])
    if head := [key for key in missing if not key.startswith(f"{model.base_model_prefix}.")]:
        raise ArgumentError(
            f"`--model` must be a trained classifier; got {name!r}, which has no weights for {', '.join(head[:3])}: "
            "they would be random, and so would what is explained. Use a model that was trained to classify images."
        )
    if missing:
        typer.echo(
            f"gmar-hf: {printable(name)} has no weights for {', '.join(missing[:3])}{' ...' if missing[3:] else ''}: "
            "these are random now, and what is explained is too.",
            err=True,
        )
    return model


def load_classifier(
    name: str,
    revision: str | None,
    *,
    labels: list[str] | None,
    hypothesis_template: str | None,
    dtype: Any = "auto",
) -> Any:
    """Load a classifier; of a model that compares images with texts make that of the texts.

    Args:
        name (`str`): Hub id or folder.
        revision (`str`, *optional*): Branch, tag or commit of the model on the Hub.
        labels (`list[str]`, *optional*): The texts; none, unless the model compares images with texts.
        hypothesis_template (`str`, *optional*): What each is put into.
        dtype (`torch.dtype` or `str`, defaults to "auto"): Of the weights.

    Raises:
        ArgumentError: See [`load_model`]; or if texts are missing, of no use, or cannot be read by the model.
    """
    model = load_model(name, revision, dtype)
    if is_dual_encoder(model):
        _check_labels(model, labels)
        return text_classifier(model, find_tokenizer(None, model), labels or [], hypothesis_template or TEMPLATE)
    if labels or hypothesis_template:
        raise ArgumentError(
            f"`{'--label' if labels else '--hypothesis-template'}` must come with a model that compares images with "
            f"texts (CLIP, SigLIP); got {class_name(model)}, which has labels of its own. Leave it out."
        )
    return model


def _check_labels(model: Any, labels: list[str] | None) -> None:
    """Refuse a model that compares images with texts where none were given."""
    if not labels:
        raise ArgumentError(
            f"`--label` must be given ({class_name(model)} compares images with texts, and has no labels of its "
            'own); got none. Pass such as --label "a cat" --label "a dog".'
        )


def load_image_processor(name: str, revision: str | None) -> Any:
    """Load the image processor of a model.

    Raises:
        ArgumentError: If there is none.
    """
    return _load(AutoImageProcessor, name, revision)


def checked_device(device: str | None) -> torch.device | None:
    """Return the device of that name, or None where none was named.

    Raises:
        ArgumentError: If this machine has no such device.
    """
    if device is None:
        return None
    try:
        place = torch.device(device)
        torch.empty(1, device=place)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise ArgumentError(f"`--device` must be one that this machine has; got {device!r}. Use cpu.") from error
    return place


def _is_here(name: str, revision: str | None) -> bool:
    """Tell whether a model is a folder, or in the Hub's cache; of what is no name at all the error says more."""
    try:
        return Path(name).is_dir() or isinstance(try_to_load_from_cache(name, CONFIG_NAME, revision=revision), str)
    except ValueError:
        return True


def _load(loader: Any, name: str, revision: str | None, **kwargs: Any) -> Any:
    try:
        # Said by nobody, transformers would ask on standard output whether to run a repository's code.
        return loader.from_pretrained(name, revision=revision, trust_remote_code=False, **kwargs)
    except Exception as error:  # broken files end in errors of any kind: ValueError, SafetensorError, ImportError, ...
        reason = " ".join(str(error).split())
        if "trust_remote_code" in reason:  # which transformers advises to pass
            raise ArgumentError(
                f"`--model` must be of a class that transformers has; got {name!r}, which needs code of its own "
                "(`auto_map`), and the command line runs none. If you trust it, load it in Python and call "
                "`gmar_hf.explain`."
            ) from error
        # A path is no id, whatever the Hub's client says of it.
        if "Repo id must" in reason and not Path(name).exists():
            reason = "there is no such folder"
        advice = "Check the name and the connection."
        if Path(name).is_dir():
            saver = "image_processor" if loader is AutoImageProcessor else "model"
            advice = f"Look what the folder lacks, and save it there (`{saver}.save_pretrained`)."
        if "Unrecognized configuration class" in reason:
            reason = reason.partition(" for this kind of ")[0]
            advice = "It is a model of another kind; `gmar-hf check --all` shows which are served."
        raise ArgumentError(
            "`--model` must be the Hub id or the folder of an image classifier with its image processor; got "
            f"{name!r} ({reason if len(reason) <= 300 else reason[:300] + '...'}). {advice}"
        ) from error
