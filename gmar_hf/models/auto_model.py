"""Loads what can be explained: image classifiers, and models that compare images with texts."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import transformers
from huggingface_hub import constants
from huggingface_hub.file_download import repo_folder_name
from torch import nn
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING,
    MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING,
)

from gmar_hf.models.wrappers import config_of

_WEIGHTS = ("*.safetensors", "*.bin")
_revisions: WeakKeyDictionary[nn.Module, str | None] = WeakKeyDictionary()


class Revision(NamedTuple):
    """A revision that is known: a branch, tag or commit, or None for the main branch."""

    name: str | None


class _ClassesByConfig(Mapping[Any, Any]):
    """The classes of both mappings for a kind of config; of several transformers takes the one that a config names."""

    _mappings = (MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING, MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING)

    def __getitem__(self, config_class: Any) -> Any:
        found = [mapping[config_class] for mapping in self._mappings if config_class in mapping]
        classes = [each for entry in found for each in (entry if isinstance(entry, tuple) else (entry,))]
        if not classes:
            raise KeyError(config_class)
        return tuple(classes) if classes[1:] else classes[0]

    def __iter__(self) -> Iterator[Any]:
        return iter(dict.fromkeys(config_class for mapping in self._mappings for config_class in mapping))

    def __len__(self) -> int:
        return len(list(iter(self)))


class AutoModelForImageClassification(transformers.AutoModelForImageClassification):  # type: ignore[misc]
    """The auto class of this name, which also loads a CLIP or SigLIP as such where its config names that class.

    transformers' own would give it a classifier of random weights. The name is the one under which repositories with
    code of their own tell of it.
    """

    _model_mapping = _ClassesByConfig()

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """Load a model as transformers' auto class does, and remember its revision for [`revision_of`]."""
        loaded = super().from_pretrained(*args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded  # a tuple with `output_loading_info=True`
        # Of its parts, too: a classifier of texts has some of them, and no more.
        _revisions.update(dict.fromkeys(model.modules(), kwargs.get("revision")))
        return loaded


def revision_of(model: nn.Module, name: str) -> Revision | None:
    """Return what is known of the revision of a model of the Hub; None where it cannot be told.

    Models themselves keep the name of their repository only, and what lies beside their weights is of a revision too.
    Of one that was loaded by the class here it is the one that was asked for. Of others it is the one whose weights
    the Hub's cache has, if it has those of one revision only.

    Args:
        model (`nn.Module`): The model, or what is made of its parts.
        name (`str`): The repository that it was loaded from.
    """
    if commit := getattr(config_of(model), "_commit_hash", None):  # of older transformers
        return Revision(commit)
    known = next((module for module in model.modules() if module in _revisions), None)
    if known is not None:
        return Revision(_revisions[known])
    commits = _cached_commits(name)
    return Revision(commits[0]) if len(commits) == 1 else None


def _cached_commits(name: str) -> list[str]:
    """Return the commits of a repository whose weights the Hub's cache has."""
    folder = Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=name, repo_type="model"))
    return sorted({weights.parent.name for kind in _WEIGHTS for weights in folder.glob(f"snapshots/*/{kind}")})
