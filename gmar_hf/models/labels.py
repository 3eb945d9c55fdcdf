"""The model's labels: whether each output has one, and from a label that a user types to its index."""

import difflib
from collections.abc import Mapping

from torch import nn
from transformers import PreTrainedModel

from gmar_hf.errors import ArgumentError, ArgumentTypeError
from gmar_hf.models.introspection import label_names
from gmar_hf.models.wrappers import unwrapped
from gmar_hf.utils.checks import is_whole
from gmar_hf.utils.text import quantity


def check_label_names(model: nn.Module, num_outputs: int | None = None) -> None:
    """Refuse a model whose config does not name its outputs one by one: its classifier was replaced, not its config.

    Args:
        model (`nn.Module`): The classifier.
        num_outputs (`int`, *optional*): How many logits it returned. Before the first forward the linear layers of its
            head tell, or nothing.

    Raises:
        ArgumentError: If the outputs and the indices of the names are not the same, or a name is no text.
    """
    names = label_names(model)
    for index, name in names.items():
        if not isinstance(name, str):
            raise ArgumentError(
                f"`model` must have texts as names in its config; got {name!r:.80} for output {index}. Set "
                "`model.config.id2label = {index: str(name) for index, name in model.config.id2label.items()}`."
            )
    if num_outputs is None:
        sizes = _head_sizes(model)
        num_outputs = sizes[-1] if sizes and len(names) not in sizes else len(names)
    if set(names) == set(range(num_outputs)):
        return
    got = f"{quantity(num_outputs, 'output')} and {quantity(len(names), 'name')}"
    if len(names) == num_outputs:
        got += f" for the outputs {list(names)[:5]}"
    raise ArgumentError(
        "`model` must have a name in its config for every output, counted from 0 (whose name would a result bear?); "
        f"got {got}. Set `model.config.id2label = dict(enumerate(names))`."
    )


def _head_sizes(model: nn.Module) -> list[int]:
    """Return how many outputs each linear layer has that is not in the backbone; none if others come after them."""
    classifier = unwrapped(model)
    backbones = [part for part in classifier.modules() if isinstance(part, PreTrainedModel) and part is not classifier]
    inside = {id(module) for backbone in backbones for module in backbone.modules()}
    head = [module for module in classifier.modules() if id(module) not in inside]
    with_weights = [module for module in head if any(True for _ in module.parameters(recurse=False))]
    # Of a head of another kind, or of a model in one piece, only its logits tell.
    if not backbones or not with_weights or not isinstance(with_weights[-1], nn.Linear):
        return []
    return [module.out_features for module in with_weights if isinstance(module, nn.Linear)]


def find_label(wanted: str | int, id2label: Mapping[int, str], argument: str = "target") -> int:
    """Find the index of a label.

    Args:
        wanted (`str` or `int`): A label, letter by letter, or an index.
        id2label (`Mapping[int, str]`): The model's labels.
        argument (`str`, defaults to "target"): The argument's name, which the error shows.

    Raises:
        ArgumentError: If the label is unknown (the nearest are named), borne by several classes, or the index out of
            range.
        ArgumentTypeError: If `wanted` is neither.

    Example:
        >>> find_label("dog", {0: "cat", 1: "dog"})
        1
    """
    if is_whole(wanted):
        if int(wanted) not in id2label:
            raise ArgumentError(f"`{argument}` must be an index in [0, {len(id2label) - 1}] or a label; got {wanted}.")
        return int(wanted)
    if not isinstance(wanted, str):
        raise ArgumentTypeError(f"`{argument}` must be a label or an index; got {wanted!r:.80}.")
    # A label of one class; others share theirs, or are unknown.
    indices = [index for index, label in id2label.items() if label == wanted]
    if len(indices) == 1:
        return indices[0]
    if indices:
        raise ArgumentError(
            f"`{argument}` must name one class; got {wanted!r}, the label of classes {indices}. Pass an index."
        )
    near = ", ".join(repr(label) for label in _nearest(wanted, list(id2label.values())))
    raise ArgumentError(
        f"`{argument}` must be one of the model's labels or an index; got {wanted!r}. Near it: {near}."
    )


def _nearest(wanted: str, labels: list[str], count: int = 3) -> list[str]:
    """Return labels that hold the word first, then those spelled alike, then simply the first ones."""
    # Case and spaces at the ends are not told apart.
    folded = wanted.casefold().strip()
    holding = [label for label in labels if folded and folded in label.casefold()]
    alike = difflib.get_close_matches(folded, [label.casefold() for label in labels], n=count, cutoff=0.4)
    spelled = [label for near in alike for label in labels if label.casefold() == near]
    return list(dict.fromkeys(holding + spelled + labels))[:count]
