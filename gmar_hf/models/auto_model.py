"""Loads what can be explained: image classifiers, and models that compare images with texts."""

from collections.abc import Iterator, Mapping
from typing import Any
from weakref import WeakKeyDictionary

import transformers
from torch import nn
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING,
    MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING,
)

_revisions: WeakKeyDictionary[nn.Module, str | None] = WeakKeyDictionary()


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
        _revisions[model] = kwargs.get("revision")
        return loaded


def revision_of(model: nn.Module) -> str | None:
    """Return the branch, tag or commit that a model was loaded from by the class here; None where nobody said.

    Models themselves keep the name of their repository only, and what lies beside their weights is of a revision too.
    """
    return _revisions.get(model)
