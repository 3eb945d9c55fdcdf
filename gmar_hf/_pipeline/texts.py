"""The pipeline's labels where the model compares images with texts: they are texts that the user gives."""

import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from transformers import AutoTokenizer
from transformers.utils import cached_file

from gmar_hf.errors import ArgumentError
from gmar_hf.models.auto_model import revision_of
from gmar_hf.models.freezing import weight_versions
from gmar_hf.models.model_check import is_dual_encoder
from gmar_hf.models.model_state import describe_state
from gmar_hf.models.text_classifier import TEMPLATE, TextClassifier, check_texts, text_classifier
from gmar_hf.models.wrappers import class_name, config_of, unwrapped

_TOKENIZER_FILES = ("tokenizer_config.json", "tokenizer.json", "vocab.json", "vocab.txt", "spiece.model")
_OF_TEXTS = ("candidate_labels", "hypothesis_template")


class Texts:
    """Texts as labels, which the pipeline's model reads once, and again when it has changed.

    What is noticed is another model or tokenizer, other adapters, and weights of another type or written to, unless
    through `.data`.

    Args:
        labels (`Sequence[str]`): One for each text.
        template (`str`): What each label is put into.
    """

    def __init__(self, labels: Sequence[str], template: str) -> None:
        self.labels, self.template = list(labels), template
        self._reader: tuple[Any, ...] = ()
        self._classifier: TextClassifier | None = None

    def classifier(self, model: Any, tokenizer: Any) -> TextClassifier:
        """Return a classifier whose labels are these texts.

        Args:
            model (`nn.Module`): The pipeline's, a dual encoder.
            tokenizer (`PreTrainedTokenizerBase` or `str`, *optional*): The pipeline's; the model's own is loaded where
                there is none.

        Raises:
            ArgumentError: If the texts cannot be read, or there is no tokenizer.
        """
        reader = id(model), id(tokenizer), describe_state(model), weight_versions(model)
        if self._classifier is None or reader != self._reader:
            self._classifier = text_classifier(model, find_tokenizer(tokenizer, model), self.labels, self.template)
            self._reader = reader
        return self._classifier


def take_texts(
    parameters: dict[str, Any], before: Mapping[str, Any] | None, model: Any
) -> tuple[dict[str, Any], Texts | None]:
    """Take what is said of texts out of the parameters of the constructor or of a call.

    Args:
        parameters (`dict[str, Any]`): All that was given.
        before (`Mapping[str, Any]`, *optional*): In a call, the parameters of the constructor's forward.
        model (`nn.Module`): The pipeline's.

    Returns:
        The other parameters, and the texts: the constructor's where none were given. In the constructor there may be
        none.

    Raises:
        ArgumentError: If the texts cannot be used, or the model has labels of its own.
        ArgumentTypeError: If they are no texts.
    """
    texts = {name: parameters[name] for name in _OF_TEXTS if parameters.get(name) is not None}
    others = {name: value for name, value in parameters.items() if name not in _OF_TEXTS}
    held: Texts | None = (before or {}).get("texts")
    if not texts:
        if held is None and is_dual_encoder(model) and (before is not None or others.get("target") is not None):
            raise _no_texts(model)
        return others, held
    if not is_dual_encoder(model):
        raise ArgumentError(
            f"`{next(iter(texts))}` must come with a model that compares images with texts (CLIP, SigLIP); got "
            f"{class_name(model)}, which has labels of its own. Name some of them by `target`."
        )
    labels = texts.get("candidate_labels", None if held is None else held.labels)
    if labels is None:
        raise _no_texts(model)
    template = texts.get("hypothesis_template", TEMPLATE if held is None else held.template)
    check_texts("candidate_labels", labels, template)
    if held is not None and list(labels) != held.labels:
        _check_named_anew(others, before or {}, held.labels)
    return others, Texts(labels, template)


def _check_named_anew(given: Mapping[str, Any], before: Mapping[str, Any], labels: list[str]) -> None:
    """Refuse other texts beside the constructor's target, which is one of its `labels`."""
    for name in ("target", "versus") if given.get("top_k") is None else ():
        if before.get(name) is not None and name not in given:
            raise ArgumentError(
                f"`{name}` must be given with other `candidate_labels` (it was one of {labels!r:.80}); got none. "
                "Pass it too."
            )


def _no_texts(model: Any) -> ArgumentError:
    """Return the error for a model that compares images with texts, and was given none."""
    return ArgumentError(
        f"`candidate_labels` must be given ({class_name(model)} compares images with texts, and has no labels of its "
        'own); got none. Pass such as `candidate_labels=["a cat", "a dog"]`.'
    )


def find_tokenizer(tokenizer: Any, model: Any) -> Any:
    """Return the tokenizer that was given, loaded where it is a name; else the one beside the model's weights.

    It is of the revision that the model is of, as far as that is known: see [`revision_of`].

    Args:
        tokenizer (`PreTrainedTokenizerBase` or `str`, *optional*): What was given.
        model (`nn.Module`): What it is for.

    Raises:
        ArgumentError: If there is none, or nobody knows of which revision it must be.
    """
    if tokenizer is not None and not isinstance(tokenizer, str):
        return tokenizer
    config = config_of(model)
    name = tokenizer or config._name_or_path
    revision = _revision_of_tokenizer(name, model) if name == config._name_or_path else None
    try:
        if not name:
            raise ValueError("the model was not loaded by a name")
        # Where there is no file of one, transformers makes one of the model's kind that knows letters alone.
        find = partial(cached_file, name, revision=revision, _raise_exceptions_for_missing_entries=False)
        if not any(find(file) for file in _TOKENIZER_FILES):
            raise ValueError("no file of one")
        return AutoTokenizer.from_pretrained(name, revision=revision, trust_remote_code=False)
    except Exception as error:  # missing and broken files end in errors of any kind
        reason = " ".join(str(error).split())
        raise ArgumentError(
            "`tokenizer` must be given where the model's repository has none (it reads the labels); got "
            f"{tokenizer!r} ({reason:.160}). Pass `tokenizer=AutoTokenizer.from_pretrained(...)`."
        ) from error


def _revision_of_tokenizer(name: str, model: Any) -> str | None:
    """Return the revision of the repository that a model was loaded from; None of a folder.

    Raises:
        ArgumentError: If it cannot be told.
    """
    if not name or os.path.isdir(name):
        return None
    revision = revision_of(unwrapped(model), name)
    if revision is None:
        raise ArgumentError(
            f"`tokenizer` must be given for a model whose revision is not known (a model of {name!r} does not keep it "
            "itself, and the Hub's cache does not have the weights of exactly one); got none. Pass "
            f"`tokenizer=AutoTokenizer.from_pretrained({name!r}, revision=...)`, of the revision of its weights."
        )
    return revision.name
