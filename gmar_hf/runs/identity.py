"""What a survey is of: written into its checkpoints, compared when one is gone on with, and kept in its report."""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.constants import CONFIG_NAME
from PIL import Image
from torch import nn

from gmar_hf.data import MapData, StreamData
from gmar_hf.errors import ArgumentTypeError
from gmar_hf.models.auto_model import Revision, revision_of
from gmar_hf.models.introspection import encoder_shape, heads_by_layer, label_names
from gmar_hf.models.labels import check_label_names
from gmar_hf.models.model_state import WHOLE, describe_state
from gmar_hf.models.refusals import OFF_THE_INTERFACE, unsupported
from gmar_hf.models.text_classifier import TextClassifier
from gmar_hf.models.wrappers import class_name, config_of, unwrapped
from gmar_hf.runs.plan import Plan
from gmar_hf.utils.text import quantity


def describe_model(model: nn.Module, model_id: str | None, revision: str | None) -> dict[str, Any]:
    """The report's entry for a model.

    Args:
        model (`nn.Module`): The classifier.
        model_id (`str`, *optional*): What to call it; by default what it was loaded as.
        revision (`str`, *optional*): The revision that was asked for; without, what is known of it, see
            [`revision_of`].

    Raises:
        ArgumentError: If its config does not name its outputs.
        ArgumentTypeError: If it is no transformers classifier.
        UnsupportedModelError: If it has no layers of heads.
    """
    config = config_of(model)
    (num_layers, num_heads), by_layer = encoder_shape(model), heads_by_layer(model)
    labels = label_names(model)
    if not labels:
        raise ArgumentTypeError(
            f"`model` must be an image classifier of transformers; got {type(model).__name__}. "
            "Load it with `AutoModelForImageClassification.from_pretrained`."
        )
    if not num_layers or not num_heads:
        raise unsupported(model, OFF_THE_INTERFACE)
    check_label_names(model)
    loaded_as = getattr(config, "_name_or_path", "")
    name = model_id or loaded_as or class_name(model)
    may_be_repo = re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) and not os.path.isdir(name)
    commit = getattr(config, "_commit_hash", None)  # of older transformers
    if commit is None and may_be_repo and name == loaded_as:
        known = Revision(revision) if revision is not None else revision_of(model, name)
        commit = None if known is None else _cached_commit(name, known.name)
    is_repo = may_be_repo and (commit or model_id)
    parameter = next(parameter for parameter in model.parameters() if parameter.is_floating_point())
    classifier = unwrapped(model)
    texts = {"hypothesis_template": classifier.hypothesis_template} if isinstance(classifier, TextClassifier) else {}
    state = describe_state(model)
    return {
        "id": name if is_repo else Path(name).name or name,
        "is_local": not is_repo,
        "revision": revision,
        "commit": commit,
        "class": class_name(model),
        "num_layers": num_layers,
        "num_heads": num_heads,
        **({"heads_by_layer": list(by_layer)} if len(set(by_layer)) > 1 else {}),
        "labels": [labels[index] for index in range(len(labels))],
        **texts,  # where the labels are texts: what each was put into
        **({} if state is None else {"state": state}),  # of a model that is not whole, or has adapters
        "dtype": str(parameter.dtype).removeprefix("torch."),
        "attention": "sdpa",
    }


def identity(
    plan: Plan,
    model: Mapping[str, Any],
    weight_sample: torch.Tensor,
    data: MapData | StreamData,
    image_processor: Any,
    num_processes: int | None,
) -> dict[str, Any]:
    """What must be the same when a survey is gone on with, by the name a user knows it by.

    Args:
        plan ([`Plan`]): Of the survey.
        model (`Mapping`): The report's entry for the model; its place may change if it is a local one.
        data ([`MapData`] or [`StreamData`]): What is surveyed; its place may change, too.
        weight_sample (`torch.Tensor`): Of the model.
        image_processor: Of the model, or None.
        num_processes (`int`, *optional*): Of a stream, whose shares depend on it.
    """
    return {
        "model": None if model["is_local"] else model["id"],
        "model revision": model["commit"],
        "model class": model["class"],
        "texts": model["labels"] if "hypothesis_template" in model else None,
        "template of texts": model.get("hypothesis_template"),
        "state of the model": model.get("state"),
        "model weights": _digest(weight_sample.numpy().tobytes()),
        "dtype": model["dtype"],
        "image processor": processor_digest(image_processor),
        "data": None if data.identity["is_local"] else data.identity["id"],
        "data revision": data.identity["revision"],
        "split": data.identity["split"],
        "data fingerprint": data.identity["fingerprint"],
        "number of images": data.identity["num_images"],
        "reading of labels": data.label_reading,
        "target": plan.target,
        "batch size": plan.batch_size,
        "limit": plan.limit,
        "shuffle seed": plan.shuffle_seed,
        "part": None if plan.part is None else "{}/{}".format(*plan.part),
        "until stable": plan.until_stable,
        "number of processes, of streaming data": num_processes,
    }


def image_processing(image_processor: Any) -> dict[str, Any] | None:
    """Return what an image processor does with images, as plain JSON, by its own names; None of none.

    Args:
        image_processor: The model's, or None.
    """
    if image_processor is None:
        return None
    settings: dict[str, Any] = json.loads(json.dumps(image_processor.to_dict(), default=str))
    if isinstance(resample := settings.get("resample"), int):
        settings["resample"] = Image.Resampling(resample).name.lower()
    return {name: value for name, value in sorted(settings.items()) if value is not None and not name.startswith("_")}


def processor_digest(image_processor: Any) -> str | None:
    """Return 16 hexadecimal digits by which an image processor's settings are known again; None of none."""
    if image_processor is None:
        return None
    return _digest(json.dumps(image_processor.to_dict(), sort_keys=True, default=str).encode())


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Say in words what differs between two runs."""
    # The number of images tells of other data in words; older checkpoints have none.
    names = [name for name in dict.fromkeys([*now, *before]) if name != "number of images"]
    return [_difference(name, before, now) for name in names if before.get(name) != now.get(name)]


def _difference(name: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Say in words how an entry differs; digests say nothing to anybody."""
    if name == "data fingerprint":
        old, new = (settings.get("number of images") for settings in (before, now))
        if old is None or new is None:
            return "the data were others"
        images = quantity(old, "image")
        if old == new:
            return f"the data were others, of the same number ({images})"
        return f"the data were others ({images}, now {new:,})"
    if name == "state of the model":
        return f"the model had {before.get(name) or WHOLE}, and has now {now.get(name) or WHOLE}"
    if name == "model weights":
        return "the model's weights were others"
    if name == "image processor":
        return "the image processor was another"
    if name == "masks":
        return "the masks were others"
    return f"{name} was {before.get(name)!r} and is now {now.get(name)!r}"


def _cached_commit(repo_id: str, revision: str | None) -> str | None:
    """Return the commit that the Hub's cache has of a revision, the one that was loaded last; None without any."""
    try:
        path = try_to_load_from_cache(repo_id, CONFIG_NAME, revision=revision)
    except ValueError:  # no name on the Hub
        return None
    return Path(path).parent.name if isinstance(path, str) else None


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
