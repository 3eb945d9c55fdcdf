"""What comes out of explaining a batch, and the file that it is kept in."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import torch

from gmar_hf.errors import ArgumentError, ArgumentTypeError
from gmar_hf.utils.artifacts import ArtifactFormat
from gmar_hf.utils.missing_heads import mask_of_heads
from gmar_hf.utils.plain_json import COUNT, check_json, plain_copy
from gmar_hf.utils.tensors import at_least_float32, check_plain

_NUM_SHOWN = 6  # targets of images that notebooks show
FORMAT = ArtifactFormat("gmar_hf.explanation", 2, "an explanation", "Make it again, and save it with `save`.")

# The axes of every field behind that of the batch and, where an image has several targets, that of these.
_HEADS, _GRID = ("layers", "heads"), ("rows", "cols")
_AXES: dict[str, tuple[str, ...]] = {
    "logits": ("classes",),
    "target": (),
    "attribution": _GRID,
    "head_importance": _HEADS,
    "head_score": _HEADS,
    "head_contribution": _HEADS,
    "head_contribution_centred": _HEADS,
    "head_maps": (*_HEADS, *_GRID),
    "prefix_contribution": (*_HEADS, "prefix tokens"),
    "readout": ("tokens",),
    "completeness_gap": (),
}


@dataclass(frozen=True, eq=False, repr=False)
class Explanation:
    """Why a batch of images got its logits: maps and head scores, float32, detached, on the inputs' device.

    With several targets an image, every field but `logits` has a targets axis right after the batch axis. Of a model
    whose layers have different numbers of heads (Swin, Hiera), heads that a layer lacks are NaN, behind those that it
    has; `settings["num_heads"]` tells how many it has.

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
            reference than 0 to less: for "removal" to zero). Of layers in stages (Swin, PVT) the one prefix token is
            all padding and class tokens, where there are some.
        readout (`torch.Tensor` of shape (batch, tokens), *optional*): Which tokens the head reads; rows sum to one.
            Of merged tokens (Swin, SegFormer) spread over the patches that they cover, as in all maps.
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
            ArgumentError: If the place cannot be written, or [`load`] would refuse what was put together by hand.
            ArgumentTypeError: If `path` is no path, or a field no tensor.
        """
        given = {name: getattr(self, name) for name in _AXES if getattr(self, name) is not None}
        settings = _checked_content(given, self.settings)
        FORMAT.write(path, settings, given)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Explanation":
        """Read a file of [`save`], onto the CPU.

        Raises:
            ArtifactError: If the file is missing, corrupt, not an explanation, or of a newer version; also if its
                tensors are not of one shape, of another type or NaN.
        """
        with FORMAT.reading(path) as artifact:
            tensors = {name: tensor for name, tensor in artifact.tensors.items() if name in _AXES}
            return cls(settings=_checked_content(tensors, artifact.content), **tensors)

    def __repr__(self) -> str:
        """Show shapes in place of numbers, which would fill the screen."""
        shapes = ", ".join(f"{name}={tuple(tensor.shape)}" for name, tensor in self.tensors().items())
        method, model = self.settings.get("method"), self.settings.get("model_class")
        return f"Explanation({f'{method} of {model}: ' if method else ''}{shapes})"

    def _repr_html_(self) -> str:
        """Show maps, heads and the strongest of these in notebooks: of the first images and targets."""
        from gmar_hf.plotting.notebook import card, head_text, matrix, matrix_of_heads

        labels: Any = self.settings.get("labels")
        key = "head_contribution" if self.head_contribution is not None else "head_importance"
        maps, heads = _by_target(self.attribution), _by_target(getattr(self, key))
        cards = []
        for image, target in list(maps or heads)[:_NUM_SHOWN]:
            index = None if self.target is None else self.target.reshape(len(self.target), -1)[image, target].item()
            is_named = isinstance(labels, list) and target < len(labels)
            name = labels[target] if is_named else "a score" if index is None else f"class {index}"
            of_map, of_heads = maps.get((image, target)), heads.get((image, target))
            pictures, lines = [] if of_map is None else [matrix(of_map)], []
            if of_heads is not None:
                pictures.append(matrix_of_heads(of_heads, is_signed=key == "head_contribution"))
                lines.append(head_text(of_heads, is_signed=key == "head_contribution"))
            cards.append(card(pictures, f"image {image}: {name}", *lines))
        return f"{card([], repr(self))}<div>{''.join(cards)}</div>"

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the tensors that there are, by field name."""
        named = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: value for name, value in named.items() if isinstance(value, torch.Tensor)}


def _by_target(tensor: torch.Tensor | None) -> dict[tuple[int, int], torch.Tensor]:
    """Return what there is of each image and target, of (batch, ., .) or (batch, targets, ., .)."""
    if tensor is None:
        return {}
    rows = tensor.detach().float().cpu()
    rows = rows if rows.ndim == 4 else rows[:, None]
    return {(image, target): values for image, row in enumerate(rows) for target, values in enumerate(row)}


def _checked_content(tensors: Mapping[str, torch.Tensor], settings: Any) -> dict[str, Any]:
    """Return the settings as they come back from a file, if they and the tensors are those of one explanation.

    Raises:
        ArgumentError, ArgumentTypeError: If they are not.
    """
    copied: dict[str, Any] = plain_copy("settings", dict(settings) if isinstance(settings, Mapping) else settings)
    check_json("settings", copied, {})
    if not tensors:
        raise ArgumentError("An explanation must hold some tensor; got none.")
    for name, tensor in tensors.items():
        if not isinstance(tensor, torch.Tensor):
            raise ArgumentTypeError(f"`{name}` must be a tensor; got {type(tensor).__name__}.")
        check_plain(name, tensor)
    check_fields(tensors, copied)
    return copied


def check_fields(tensors: Mapping[str, torch.Tensor], settings: Mapping[str, Any]) -> None:
    """Refuse fields that cannot be those of one explanation.

    Args:
        tensors (`Mapping[str, torch.Tensor]`): By field name.
        settings (`Mapping[str, Any]`): Of the same explanation; where they have a `grid`, it is that of the maps.

    Raises:
        ArgumentError: If a tensor is of another shape than the others, of another type, or has numbers that no
            explanation has: NaN, infinity, or a target that is no class.

    Example:
        >>> check_fields({"logits": torch.zeros(2, 3), "attribution": torch.zeros(1, 8, 8)}, {})
        Traceback (most recent call last):
        ...
        gmar_hf.errors.ArgumentError: `attribution` must be of shape (batch 2, rows, cols), as the rest has it; got \
(1, 8, 8).
    """
    sizes, num_heads = _sizes_of_grid(settings), _num_heads(settings)
    for name, tensor in [(name, tensors[name]) for name in _AXES if name in tensors]:
        # Who explains several targets has them in every field, behind the batch; the logits are no target's.
        num_axes = 1 + len(_AXES[name])
        if name != "logits":
            sizes.setdefault("targets", tensor.shape[1] if tensor.ndim == num_axes + 1 else 0)
        has_targets = name != "logits" and sizes["targets"] > 0
        axes = ("batch", *(["targets"] if has_targets else []), *_AXES[name])
        _check_shape(name, tensor, axes, sizes)
        sizes.update(zip(axes, tensor.shape, strict=True))
        is_of_heads = _AXES[name][:2] == _HEADS and num_heads is not None
        there = _of_heads_there(name, tensor, num_heads or [], 1 + has_targets) if is_of_heads else tensor
        _check_numbers(name, there, sizes.get("classes"))
    num_patches = sizes.get("rows", 1) * sizes.get("cols", 1)
    num_tokens, num_prefix = sizes.get("tokens", num_patches), sizes.get("prefix tokens")
    if "tokens" in sizes and (num_tokens < num_patches or num_prefix not in (None, num_tokens - num_patches)):
        raise ArgumentError(
            f"`readout` must be of {num_patches} patches and all prefix tokens; got {num_tokens} tokens, of which "
            f"{'some' if num_prefix is None else num_prefix} are prefix tokens."
        )


def _sizes_of_grid(settings: Mapping[str, Any]) -> dict[str, int]:
    """Return the sizes of axes that the settings tell of; settings of somebody's own need not."""
    if "grid" not in settings:
        return {}
    check_json("settings", settings["grid"], {"prefix": COUNT, "rows": COUNT, "cols": COUNT}, "grid")
    grid = settings["grid"]
    return {"prefix tokens": grid["prefix"], "rows": grid["rows"], "cols": grid["cols"]}


def _num_heads(settings: Mapping[str, Any]) -> list[int] | None:
    """Return how many heads each layer has, where the settings tell of different numbers."""
    if "num_heads" not in settings:
        return None
    check_json("settings", settings["num_heads"], [COUNT], "num_heads")
    num_heads: list[int] = settings["num_heads"]
    return num_heads


def _of_heads_there(name: str, tensor: torch.Tensor, num_heads: list[int], axis: int) -> torch.Tensor:
    """Return the numbers (heads, ...) of the heads that there are; those of others must be NaN.

    Args:
        name (`str`): The field's.
        tensor (`torch.Tensor`): Its numbers, layers along `axis` and heads along the next.
        num_heads (`list[int]`): How many heads each layer has.
        axis (`int`): Where the layers are.
    """
    by_head = tensor.movedim((axis, axis + 1), (0, 1))
    layers, heads = by_head.shape[:2]
    if len(num_heads) != layers or max(num_heads) != heads:
        raise ArgumentError(
            f"`{name}` must be of layers of {', '.join(map(str, num_heads))} heads, as the settings say; got {layers} "
            f"layers of {heads}."
        )
    there = mask_of_heads(num_heads).to(tensor.device)
    if not by_head[~there].isnan().all():
        raise ArgumentError(f"`{name}` must be NaN for heads that a layer lacks; got numbers.")
    return by_head[there]


def _check_shape(name: str, tensor: torch.Tensor, axes: Sequence[str], sizes: Mapping[str, int]) -> None:
    """Refuse a tensor that has other axes, or others than are known already; only prefix tokens may be none."""
    if tensor.ndim == len(axes) and all(
        size == sizes.get(axis, size) and (size > 0 or axis == "prefix tokens")
        for axis, size in zip(axes, tensor.shape, strict=True)
    ):
        return
    wanted = ", ".join(f"{axis} {sizes[axis]}" if axis in sizes else axis for axis in axes)
    raise ArgumentError(f"`{name}` must be of shape ({wanted}), as the rest has it; got {tuple(tensor.shape)}.")


def _check_numbers(name: str, tensor: torch.Tensor, num_classes: int | None) -> None:
    """Refuse numbers of another type, NaN, infinity, and targets that are no classes."""
    if name == "target":
        if tensor.dtype != torch.int64 or tensor.min() < 0 or tensor.max() >= (num_classes or torch.inf):
            raise ArgumentError("`target` must hold the indices of classes, int64; got others.")
    elif not tensor.is_floating_point() or not at_least_float32(tensor).isfinite().all():
        dtype = str(tensor.dtype).removeprefix("torch.")
        raise ArgumentError(f"`{name}` must hold finite floating point numbers; got {dtype} or others.")
