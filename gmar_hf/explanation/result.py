"""What comes out of explaining a batch, and the file that it is kept in."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import torch

from gmar_hf.utils.artifacts import ArtifactFormat

FORMAT = ArtifactFormat("gmar_hf.explanation", 2, "an explanation", "Make it again, and save it with `save`.")


@dataclass(frozen=True, eq=False, repr=False)
class Explanation:
    """Why a batch of images got its logits: maps and head scores, float32, detached, on the inputs' device.

    With several targets an image, every field but `logits` has a targets axis right after the batch axis.

    Args:
        logits (`torch.Tensor` of shape (batch, classes), *optional*): What the model said.
        target (`torch.LongTensor` of shape (batch,) or (batch, targets), *optional*): The classes explained; None for
            a callable.
        attribution (`torch.Tensor` of shape (batch, rows, cols), *optional*): The map over the patches. Shares of the
            readout for "gmar", "rollout" and "attention" (with the prefix tokens' they sum to one); signed logits for
            the others.
        head_importance (`torch.Tensor` of shape (batch, layers, heads), *optional*): The head weights the method
            used; rows sum to one.
        head_score (`torch.Tensor` of shape (batch, layers, heads), *optional*): Norms of the attention's gradient, in
            logits.
        head_contribution (`torch.Tensor` of shape (batch, layers, heads), *optional*): Signed, in logits: what
            removing a head takes away, to first order; for "path" the average over its points.
        head_contribution_centred (`torch.Tensor` of shape (batch, layers, heads), *optional*): The same of outputs
            less their mean over the image's tokens: what the head adds by telling tokens apart. Replacing its output
            by its mean over other images is another thing: see [`centred_head_contribution`].
        head_maps (`torch.Tensor` of shape (batch, layers, heads, rows, cols), *optional*): Contributions by patch, in
            logits.
        prefix_contribution (`torch.Tensor` of shape (batch, layers, heads, prefix tokens), *optional*): The
            contributions' part on prefix tokens; with the head maps it sums to `head_contribution` (with another value
            reference than 0 to less: for "removal" to zero).
        readout (`torch.Tensor` of shape (batch, tokens), *optional*): Which tokens the head reads; rows sum to one.
        completeness_gap (`torch.Tensor` of shape (batch,), *optional*): For "path": the contributions of all
            tokens, heads and layers together, less what they should come to: the explained score less the score
            without any attention. In logits; it goes to zero with more points.
        settings (`Mapping[str, Any]`): How it was made: method, its parameters, the model, versions. Plain JSON
            values.
    """

    logits: torch.Tensor | None = None
    target: torch.Tensor | None = None
    attribution: torch.Tensor | None = None
    head_importance: torch.Tensor | None = None
    head_score: torch.Tensor | None = None
    head_contribution: torch.Tensor | None = None
    head_contribution_centred: torch.Tensor | None = None
    head_maps: torch.Tensor | None = None
    prefix_contribution: torch.Tensor | None = None
    readout: torch.Tensor | None = None
    completeness_gap: torch.Tensor | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the tensors as safetensors, with the settings in the file's metadata.

        Args:
            path (`str` or `os.PathLike`): The file; an old one is replaced at once when the new one is complete.

        Raises:
            ArgumentError: If the place cannot be written.
        """
        FORMAT.write(path, dict(self.settings), self.tensors())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Explanation":
        """Read a file of [`save`], onto the CPU.

        Raises:
            ArtifactError: If the file is missing, corrupt, not an explanation, or of a newer version.
        """
        known = {each.name for each in fields(cls)} - {"settings"}
        with FORMAT.reading(path) as artifact:
            tensors = {name: tensor for name, tensor in artifact.tensors.items() if name in known}
            if not tensors:
                raise ValueError("it holds no tensor of an explanation")
            return cls(settings=artifact.content, **tensors)

    def __repr__(self) -> str:
        """Show shapes in place of numbers, which would fill the screen."""
        shapes = ", ".join(f"{name}={tuple(tensor.shape)}" for name, tensor in self.tensors().items())
        method, model = self.settings.get("method"), self.settings.get("model_class")
        return f"Explanation({f'{method} of {model}: ' if method else ''}{shapes})"

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the tensors that there are, by field name."""
        named = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: value for name, value in named.items() if isinstance(value, torch.Tensor)}
