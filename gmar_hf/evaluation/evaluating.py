"""Which map to believe: every method and every metric over a data set, on one process or many."""

import math
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from PIL import Image
from torch import nn

from gmar_hf.data import MapData, open_data
from gmar_hf.errors import ArgumentError
from gmar_hf.evaluation.batch import Questions
from gmar_hf.evaluation.columns import choose_metrics
from gmar_hf.evaluation.folder import CHECKPOINTS, open_folder
from gmar_hf.evaluation.maps.method import MapMethod
from gmar_hf.evaluation.maps.registry import DEFAULT_METHODS, find_map_methods
from gmar_hf.evaluation.results import Evaluation
from gmar_hf.evaluation.run import Run
from gmar_hf.metrics.registry import DEFAULT_BASELINES
from gmar_hf.models.introspection import check_model, is_multi_label
from gmar_hf.models.patches import known_patch_size
from gmar_hf.runs.identity import describe_model
from gmar_hf.runs.plan import Plan
from gmar_hf.runs.processes import joined, together


def evaluate(
    model: nn.Module,
    dataset: Any,
    image_processor: Any = None,
    *,
    methods: Sequence[str | MapMethod] | None = None,
    metrics: Sequence[str] | None = None,
    baselines: Sequence[str] = DEFAULT_BASELINES,
    target: Literal["predicted", "label"] = "predicted",
    num_steps: int = 16,
    blur_sigma: float | None = None,
    function_to_apply: Literal["sigmoid", "softmax"] | None = None,
    batch_size: int = 16,
    max_rows: int = 256,
    limit: int | None = None,
    shuffle_seed: int | None = None,
    num_workers: int = 0,
    max_unreadable: float = 0.01,
    split: str | None = None,
    label_map: Mapping[str, str | int] | None = None,
    use_labels: bool = True,
    masks: str | os.PathLike[str] | None = None,
    output_dir: str | os.PathLike[str] | None = None,
    resume: bool = True,
    force: bool = False,
    model_id: str | None = None,
    model_revision: str | None = None,
    data_id: str | None = None,
    data_revision: str | None = None,
    accelerator: Accelerator | None = None,
) -> Evaluation:
    """Draw every method's map of every image and measure it.

    Run by several processes (`accelerate launch`, `torchrun`) they share the images, and every process returns the
    same. With an `output_dir` an evaluation that was stopped goes on at its last batch when it is called again.

    Args:
        model (`nn.Module`): As in [`explain`]. It runs on the accelerator's device and is put back afterwards.
        dataset, image_processor: As in [`survey`]; no streams. Items may have `mask` (an array or image of the
            image's size, not zero on the object) or `masks` (from class to such).
        methods (`Sequence`, *optional*): Names of `gmar_hf.evaluation.MAP_METHODS`, to which
            `gmar_hf.evaluation.register_map_method` adds yours; "module:function"; or [`MapMethod`]. By default those
            that need no other package.
        metrics (`Sequence[str]`, *optional*): Names of functions in `gmar_hf.metrics`, and "energy_on_other"; by
            default insertion, deletion, their difference, what needs masks where there are any ("energy_on_other"
            where they are by class), class sensitivity and sparseness. Others: positive_perturbation,
            negative_perturbation, saco, average_drop, average_increase, average_gain.
        baselines (`Sequence[str]`): What hidden patches show: "blur", "zero" (in pixel values), "other" (the image
            before it in its batch), "mean" (of the image) or "black" (as Chefer et al. have it in positive and
            negative perturbation). Figures under the first are named as their metric, those of others get its name
            behind.
        target (`str`, defaults to "predicted"): Explain each image's top logit, or each of its labels ("label").
        num_steps (`int`, defaults to 16): Of insertion and deletion.
        blur_sigma (`float`, *optional*): Of "blur", in pixels; a patch's height by default.
        function_to_apply (`str`, *optional*): Makes scores of logits: "sigmoid" of labels that do not exclude each
            other, else "softmax"; by default as the model's config says.
        batch_size (`int`, defaults to 16): Images explained at once. Figures under "other" depend on it a little, and
            an image that is alone in its batch has none.
        max_rows (`int`, defaults to 256): Images with patches hidden that the model gets at once.
        limit, shuffle_seed, num_workers, max_unreadable, split, label_map, use_labels: As in [`survey`].
        masks (`str` or `os.PathLike`, *optional*): Of a folder of images: the folder with a mask of the same relative
            path for each.
        output_dir (`str` or `os.PathLike`, *optional*): Folder for checkpoints, results.json, results.csv,
            images.csv, rows.safetensors and index.html.
        resume, force: As in [`survey`].
        model_id, model_revision, data_id, data_revision, accelerator: As in [`survey`].

    Returns:
        [`Evaluation`]: In every process.

    Raises:
        ArgumentError: If something cannot be used, too many images are unreadable, the folder holds finished results
            or a checkpoint of other settings.
        ArtifactError: If a checkpoint is corrupt.

    Example:
        >>> import gmar_hf, gmar_hf.demo
        >>> model, image_processor = gmar_hf.demo.load("vit")
        >>> found = gmar_hf.evaluate(
        ...     model, gmar_hf.demo.scenes(4), image_processor, methods=["contribution", "rollout"],
        ...     metrics=["insertion_minus_deletion", "pointing_game"], target="label",
        ... )
        >>> len(found.rows), sorted(found.summary())
        (8, ['contribution', 'rollout'])
    """
    accelerator = joined(accelerator)

    def prepare() -> Run:
        check_model(model)
        plan = Plan(batch_size, target, limit, shuffle_seed, num_workers, max_unreadable=max_unreadable)
        described = describe_model(model, model_id, model_revision)
        if len(described["labels"]) < 2:
            raise ArgumentError("`model` must be a classifier of two classes or more; got one output.")
        data = open_data(
            dataset,
            dict(enumerate(described["labels"])),
            split=split,
            revision=data_revision,
            label_map=label_map,
            use_labels=use_labels,
            use_masks=True,
            masks=masks,
        )
        if not isinstance(data, MapData):
            raise ArgumentError("`dataset` must be data of known length; got a stream. Load it without streaming.")
        if target == "label" and not data.has_labels:
            raise ArgumentError('`target` "label" needs labels; got data without any. Use target "predicted".')
        if data_id is not None:
            data.identity["id"] = data_id
        patch_size = known_patch_size(model)
        questions = Questions(
            methods=find_map_methods(DEFAULT_METHODS if methods is None else methods),
            columns=choose_metrics(metrics, baselines, data.has_masks, data.has_class_masks),
            baselines=tuple(baselines),
            explains_labels=target == "label",
            function=_function(model, function_to_apply),
            blur_sigma=_blur_sigma(patch_size, blur_sigma),
            black=_black(image_processor) if "black" in baselines else None,
            patch_size=patch_size,
            num_steps=num_steps,
            max_rows=max_rows,
        )
        return Run(model, data, image_processor, plan, questions, described, accelerator)

    run = together(prepare)
    folder = None if output_dir is None else Path(output_dir)
    if folder is not None:
        run.parts = open_folder(folder, run.identity, accelerator, resume=resume, force=force)
    device = next(model.parameters()).device
    moved = device != accelerator.device and not hasattr(model, "hf_device_map")
    try:
        if moved:
            model.to(accelerator.device)
        together(lambda: run.go(folder))
        evaluation = run.evaluation()
        if folder is not None:
            together(lambda: run.write(evaluation, folder) if accelerator.is_main_process else None)
    finally:
        if moved:
            model.to(device)
    if folder is not None and accelerator.is_local_main_process:
        shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    return evaluation


def _function(model: nn.Module, wanted: str | None) -> str:
    """What makes scores of the model's logits."""
    if wanted is None:
        return "sigmoid" if is_multi_label(model) else "softmax"
    if wanted not in ("sigmoid", "softmax"):
        raise ArgumentError(f'`function_to_apply` must be "sigmoid" or "softmax"; got {wanted!r}.')
    return wanted


def _black(image_processor: Any) -> torch.Tensor:
    """The pixel values of black, (channels, 1, 1)."""
    if image_processor is None:
        raise ArgumentError(
            '`baselines` must not name "black" without an image processor (it alone knows which pixel values are '
            "black). Pass `image_processor`."
        )
    pixels = image_processor(images=[Image.new("RGB", (64, 64))], return_tensors="pt")["pixel_values"][0]
    return pixels[:, pixels.shape[1] // 2, pixels.shape[2] // 2, None, None]


def _blur_sigma(patch_size: tuple[int, int] | None, wanted: float | None) -> float:
    """In pixels; a patch's height by default."""
    if wanted is None:
        if patch_size is None:
            raise ArgumentError("`blur_sigma` must be given for a model whose config has no `patch_size`.")
        return float(patch_size[0])
    if isinstance(wanted, bool) or not isinstance(wanted, int | float) or not 0 < wanted < math.inf:
        raise ArgumentError(f"`blur_sigma` must be a positive number of pixels; got {wanted!r}.")
    return float(wanted)
