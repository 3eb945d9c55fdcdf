"""Models: those that come along, and those of the Hub, within limits that are checked before a download."""

import functools
import json
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
from refusals import Refusal
from transformers import AutoConfig, AutoModelForImageClassification
from transformers.models.auto.image_processing_auto import AutoImageProcessor

import gmar_hf
from gmar_hf import demo

MAX_MODEL_BYTES = 500_000_000
MAX_SIDE = 640  # pixels that a model may look at
MAX_LAYERS = 64
NUM_KEPT = 2  # models of the Hub in memory

BUNDLED = {f"Six garments, {name} (comes along)": name.lower() for name in ("ViT", "DeiT", "BEiT")}
SUGGESTED = (
    "google/vit-base-patch16-224",
    "facebook/dinov2-small-imagenet1k-1-layer",
    "facebook/deit-small-patch16-224",
)
# The owner's own models: folders, of which users see and choose the names only.
FOLDERS = {Path(path).name: Path(path) for path in os.environ.get("GMAR_SPACE_MODELS", "").split(os.pathsep) if path}

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
_SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")
_INDEX = "model.safetensors.index.json"
_SETTINGS = ("config.json", "preprocessor_config.json", "processor_config.json")
_TIMEOUT = 10  # seconds

Say = Callable[[float, str], object]
"""Takes how much of the work is done, from 0 to 1, and what comes next."""


class Shelf:
    """The models in memory, the same for everybody; those of the Hub that were used last."""

    def __init__(self) -> None:
        self._explainers: OrderedDict[str, gmar_hf.GMARExplainer] = OrderedDict()
        self._lock = threading.Lock()

    def explainer(self, name: str, say: Say) -> gmar_hf.GMARExplainer:
        """Return the pipeline of a model, loaded if need be.

        Args:
            name (`str`): One of [`BUNDLED`] or [`FOLDERS`], or the id of a model on the Hub.
            say (`Callable`): Is told how far it is.

        Raises:
            Refusal: If the model is none of these, or beyond the limits.
        """
        if name in BUNDLED:
            return _bundled(BUNDLED[name])
        with self._lock:
            if name not in self._explainers:
                self._explainers[name] = _load(FOLDERS[name]) if name in FOLDERS else load_from_hub(name, say)
            self._explainers.move_to_end(name)
            if len(self._explainers) > NUM_KEPT:
                self._explainers.popitem(last=False)
            return self._explainers[name]


def load_from_hub(name: str, say: Say) -> gmar_hf.GMARExplainer:
    """Load a model from the Hub: safetensors only, at the commit whose sizes were checked, as anybody may read it.

    Args:
        name (`str`): Its id. A name that could be a path is refused, and none is ever looked up on this machine.
        say (`Callable`): Is told how far it is.

    Raises:
        Refusal: If there is no such model, it is beyond the limits, or it needs code of its own.
    """
    if not _HUB_ID.fullmatch(name):
        raise Refusal("The model must be the id of one on the Hub, such as google/vit-base-patch16-224.")
    say(0.05, "Asking the Hub how large the model is")
    commit, sizes = _files(name)
    total, done = sum(sizes.values()), 0
    with TemporaryDirectory() as folder:
        for file, size in sizes.items():
            say(0.1 + 0.6 * done / total, f"Downloading {file}, {size / 1e6:,.1f} MB")
            try:
                hf_hub_download(name, file, revision=commit, local_dir=folder, token=False)
            except Exception as error:
                raise Refusal("The Hub does not give the model's files. Try again later.") from error
            done += size
        say(0.7, "Loading the model")
        return _load(Path(folder))


def _files(name: str) -> tuple[str, dict[str, int]]:
    """Return the commit, and the sizes of the files that are needed: settings first, then weights."""
    try:
        info = HfApi(token=False).model_info(name, files_metadata=True, timeout=_TIMEOUT)
    except (RepositoryNotFoundError, GatedRepoError) as error:
        raise Refusal(f"There is no model {name} on the Hub that everybody may read. Check its id.") from error
    except Exception as error:
        raise Refusal("The Hub does not answer. Try again later, or take a model that comes along.") from error
    # A file of unknown size counts as too large.
    known = {file.rfilename: MAX_MODEL_BYTES + 1 if file.size is None else file.size for file in info.siblings or []}
    weights = ["model.safetensors"] if "model.safetensors" in known else [*filter(_SHARD.fullmatch, known)]
    if not weights:
        raise Refusal(f"{name} has no model.safetensors, and other files of weights can hold programs. Take another.")
    sizes = {file: known[file] for file in (*_SETTINGS, _INDEX, *weights) if file in known}
    if (total := sum(sizes.values())) > MAX_MODEL_BYTES:
        raise Refusal(
            f"The model must have at most {MAX_MODEL_BYTES // 10**6} MB; {name} has {total / 1e6:,.0f}. "
            "Take a smaller one, or run gmar-hf at home."
        )
    return str(info.sha), sizes


@functools.cache
def _bundled(name: str) -> gmar_hf.GMARExplainer:
    model, image_processor = demo.load(name)
    return gmar_hf.GMARExplainer(model=model, image_processor=image_processor, device="cpu")


def _load(folder: Path) -> gmar_hf.GMARExplainer:
    """Load a model and its image processor from a folder, without code of its own.

    Raises:
        Refusal: If it is no image classifier of transformers, a part of it is untrained, or it is beyond the limits.
    """
    try:
        _check_config(json.loads((folder / "config.json").read_text(encoding="utf-8")), folder)
        model, info = AutoModelForImageClassification.from_pretrained(
            folder,
            dtype=torch.float32,
            attn_implementation="sdpa",  # whatever the file asks for, which may be a program on the Hub
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
        )
        image_processor = AutoImageProcessor.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Refusal:
        raise
    except Exception as error:  # broken files end in errors of any kind
        raise Refusal(
            "The model must be an image classifier that transformers knows, with an image processor and without code "
            "of its own. Take another."
        ) from error
    if info["missing_keys"]:
        raise Refusal("The model has no trained classifier: its labels would be chance. Take one that was fine-tuned.")
    sides = [
        side for size in (image_processor.size, getattr(image_processor, "crop_size", None)) for side in _numbers(size)
    ]
    if max(sides, default=0) > MAX_SIDE:
        raise Refusal(f"The model must look at no more than {MAX_SIDE} pixels a side. Take one of lower resolution.")
    return gmar_hf.GMARExplainer(model=model, image_processor=image_processor, device="cpu")


def _check_config(config: Any, folder: Path) -> None:
    """Refuse a config that asks for a larger model than the files hold: it would be made before it is filled."""
    if max(_layers(config), default=0) > MAX_LAYERS:
        raise Refusal(f"The model must have at most {MAX_LAYERS} layers. Take another.")
    with torch.device("meta"):
        made = AutoModelForImageClassification.from_config(AutoConfig.from_pretrained(folder, local_files_only=True))
    if 4 * sum(parameter.numel() for parameter in made.parameters()) > 2 * MAX_MODEL_BYTES:
        raise Refusal(f"The model must take at most {2 * MAX_MODEL_BYTES // 10**6} MB of memory. Take a smaller one.")


def _layers(config: Any) -> Iterator[int]:
    """Yield all numbers of layers in a config and the configs inside it."""
    if isinstance(config, Mapping):
        for name, value in config.items():
            if name.startswith("num_") and name.endswith("layers") and isinstance(value, int):
                yield value
            yield from _layers(value)


def _numbers(size: Any) -> list[int]:
    """Return the numbers of a processor's size: a number, or a mapping of them."""
    values = [size] if isinstance(size, int) else [] if size is None else list(dict(size).values())
    return [value for value in values if isinstance(value, int)]
