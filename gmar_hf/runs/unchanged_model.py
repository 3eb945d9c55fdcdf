"""A model that stays the same while a run computes with it; what changes it between two batches is found out."""

import torch
from torch import nn

from gmar_hf.errors import ArgumentError
from gmar_hf.models.freezing import weight_versions
from gmar_hf.models.model_state import WHOLE, describe_state
from gmar_hf.models.weight_sample import same_weights, weight_sample


class UnchangedModel:
    """What a model was like when a run began.

    Args:
        model (`nn.Module`): The classifier.
        noun (`str`): What errors call the run, such as "survey".
    """

    def __init__(self, model: nn.Module, noun: str) -> None:
        self._model, self._noun = model, noun
        self._state = describe_state(model)
        # As at the first check, on the device of the run.
        self._versions: list[tuple[int, int, torch.dtype]] | None = None

    def check(self) -> None:
        """Refuse other heads silenced, other adapters, or weights written to since; cheap enough for every batch.

        Raises:
            ArgumentError: With what has changed.
        """
        state, versions = describe_state(self._model), weight_versions(self._model)
        if state != self._state:
            raise self._changed(f"it had {self._state or WHOLE}, and has {state or WHOLE} now")
        if self._versions not in (None, versions):
            raise self._changed("its weights were changed meanwhile, as by a step of training")
        self._versions = versions

    def check_weights(self, sample: torch.Tensor) -> None:
        """Refuse other weights, in whatever way they were put there.

        Args:
            sample (`torch.Tensor` of shape (values,)): Their sample when the run began.

        Raises:
            ArgumentError: If they are others.
        """
        if not same_weights(weight_sample(self._model), sample, relative=1e-5):  # on another device sums may differ
            raise self._changed("its weights are others than at its beginning")

    def _changed(self, how: str) -> ArgumentError:
        return ArgumentError(
            f"`model` must stay the same during a whole {self._noun}; {how}. Let no data set, callback or thread "
            "change it, or hand over a copy (`copy.deepcopy`)."
        )
