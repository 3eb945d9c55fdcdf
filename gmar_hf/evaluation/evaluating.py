"""Which map to believe: every method and every metric over a data set, on one process or many."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from accelerate import Accelerator
from PIL import Image
from torch import nn

from gmar_hf.data.mosaics import Mosaics
from gmar_hf.data.sample import MapData
from gmar_hf.errors import ArgumentError
from gmar_hf.evaluation.batch import Questions
from gmar_hf.evaluation.evaluation_run import EvaluationRun
from gmar_hf.evaluation.maps.map_lookup import default_methods, find_map_methods
from gmar_hf.evaluation.maps.method import MapMethod
from gmar_hf.evaluation.metric_columns import choose_metrics
from gmar_hf.evaluation.mosaic_making import work_on_mosaics
from gmar_hf.evaluation.results import Evaluation
from gmar_hf.images.flat_patches import pixel_values_of
from gmar_hf.metrics.registry import DEFAULT_BASELINES
from gmar_hf.models.introspection import is_multi_label
from gmar_hf.models.patches import known_patch_size
from gmar_hf.runs.plan import Plan
from gmar_hf.runs.processes import joined, together
from gmar_hf.runs.run_folder import Output
from gmar_hf.runs.work import Work, open_work
from gmar_hf.utils.checks import check_choice, check_flags, check_number
from gmar_hf.utils.files import checked_path


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
    mosaics: int | None = None,
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
    same. With an `output_dir` an evaluation that was stopped goes on where it was when it is called again.

    Args:
        model (`nn.Module`): An image classifier of transformers, which [`explain`] can explain. It runs on the
            accelerator's device and is put back afterwards.
        dataset: A folder of images (flat, or a class per folder), a folder that `datasets` saved, a data set's id on
            the Hub, a `datasets` data set, or a torch data set or list of dicts with `image` (PIL) or `pixel_values`,
            and `label` where labels are known; no streams. Items may have `mask` (an array or image of the image's
            size, not zero on the object) or `masks` (from class to such).
        image_processor: The model's image processor; not needed for `pixel_values`.
        methods (`Sequence`, *optional*): Names of `gmar_hf.evaluation.MAP_METHODS`, to which
            `gmar_hf.evaluation.register_map_method` adds yours; "module:function"; or [`MapMethod`]. By default those
            that need no other package.
        metrics (`Sequence[str]`, *optional*): Names in `gmar_hf.metrics.registry`; by default insertion, deletion,
            their difference, what needs masks where there are any ("energy_on_other" where they are by class), class
            sensitivity and sparseness.
        baselines (`Sequence[str]`): What hidden patches show: "blur", "zero" (in pixel values), "other" (the image
            before it in its batch), "mean" (of the image) or "black" (as Chefer et al. have it in positive and
            negative perturbation); "road", a guess from the pixels around them
            ([`gmar_hf.metrics.NoisyLinearImputation`]); or "removed", where the model does without their tokens
            ([`gmar_hf.metrics.TokenRemoval`]). Figures under the first are named as their metric, those of others get
            its name behind.
        target (`str`, defaults to "predicted"): Explain each image's top logit, or each of its labels ("label").
        num_steps (`int`, defaults to 16): Steps of insertion and deletion.
        blur_sigma (`float`, *optional*): Width of "blur" in pixels; a patch's height by default.
        function_to_apply (`str`, *optional*): Makes scores of logits: "sigmoid" of labels that do not exclude each
            other, else "softmax"; by default as the model's config says.
        batch_size (`int`, defaults to 16): Images explained at once. Figures under "other" depend on it a little, and
            an image that is alone in its batch has none.
        max_rows (`int`, defaults to 256): Images with patches hidden that the model gets at once, at most.
        limit (`int`, *optional*): Take so many images only: the first, or with `shuffle_seed` any.
        shuffle_seed (`int`, *optional*): Take the images in an order drawn with this seed.
        num_workers (`int`, defaults to 0): Processes that read images, for each process that explains.
        max_unreadable (`float`, defaults to 0.01): Share of the images that may be unreadable, in [0, 1], rounded
            up to whole images; those counted on which the model's numbers are NaN or infinite.
        split (`str`, *optional*): The split of a data set with several.
        label_map (`Mapping[str, str | int]`, *optional*): From the names of class folders, or of the data set's
            classes, to the model's labels or indices, where they are not the same letter by letter.
        use_labels (`bool`, defaults to True): Whether to look at the data's labels at all.
        mosaics (`int`, *optional*): Explain mosaics of so many photos a side in place of the images, as
            [`make_mosaics`] makes them with the seed `shuffle_seed` or 0: photos of different classes that the model
            is sure of, each class explained (`target` is "label"), `limit` of them. By default `metrics` are then how
            much of a map is in the right cell, whether that cell leads, and class sensitivity; no masks are needed.
        masks (`str` or `os.PathLike`, *optional*): For a folder of images: the folder with a mask of the same relative
            path for each.
        output_dir (`str` or `os.PathLike`, *optional*): Folder for checkpoints, results.json, results.csv,
            images.csv, rows.safetensors and index.html.
        resume (`bool`, defaults to True): Whether to go on from the folder's checkpoints; else they are deleted.
        force (`bool`, defaults to False): Replace finished results in `output_dir`.
        model_id, data_id (`str`, *optional*): What the results call model and data, if not what they were loaded as.
        model_revision (`str`, *optional*): The model's revision that was asked for, if not the main branch.
        data_revision (`str`, *optional*): The revision of a data set on the Hub.
        accelerator (`Accelerator`, *optional*): The calling script's; by default a new one.

    Returns:
        [`Evaluation`]: In every process.

    Raises:
        ArgumentError: If something cannot be used, too many images are unreadable, the folder holds finished results
            or a checkpoint of other settings.
        ArtifactError: If a checkpoint is corrupt.
        KeyboardInterrupt: On Ctrl-C, once the map in hand is measured and all there is saved.

    Example:
        >>> import gmar_hf, gmar_hf.demo
        >>> model, image_processor = gmar_hf.demo.load("vit")
        >>> evaluation = gmar_hf.evaluate(
        ...     model, gmar_hf.demo.scenes(2), image_processor, methods=["contribution", "rollout"],
        ...     metrics=["pointing_game", "energy_on_other"], target="label",
        ... )
        >>> len(evaluation.rows), sorted(evaluation.summary())
        (4, ['contribution', 'rollout'])
    """
    check_flags(use_labels=use_labels, resume=resume, force=force)
    accelerator = joined(accelerator)
    are_mosaics = mosaics is not None or isinstance(dataset, Mosaics)

    def prepare() -> tuple[Work, Questions]:
        if mosaics is not None and masks is not None:
            raise ArgumentError(
                "`masks` must be None with `mosaics`, which need none; got both. Leave one of them out."
            )
        plan = Plan(
            batch_size=batch_size,
            target="label" if isinstance(dataset, Mosaics) else target,
            limit=limit,
            shuffle_seed=shuffle_seed,
            num_workers=num_workers,
            max_unreadable=max_unreadable,
        )
        reading = dict(
            split=split,
            revision=data_revision,
            label_map=label_map,
            use_labels=use_labels,
            use_masks=mosaics is None,
            masks=masks,
        )
        work = open_work(
            model,
            dataset,
            image_processor,
            plan,
            accelerator,
            model_id=model_id,
            model_revision=model_revision,
            data_id=data_id,
            reading=reading,
        )
        if len(work.described["labels"]) < 2:
            raise ArgumentError("`model` must be a classifier of two classes or more; got one output.")
        data = work.data
        if not isinstance(data, MapData):
            raise ArgumentError("`dataset` must be data of known length; got a stream. Load it without streaming.")
        patch_size = known_patch_size(model)
        questions = Questions(
            methods=find_map_methods(default_methods(model) if methods is None else methods),
            columns=choose_metrics(
                metrics, baselines, are_mosaics or data.has_masks, are_mosaics or data.has_class_masks, are_mosaics
            ),
            baselines=tuple(baselines),
            explains_labels=are_mosaics or target == "label",
            function=_function(model, function_to_apply),
            blur_sigma=_blur_sigma(patch_size, blur_sigma),
            black=_black(image_processor) if "black" in baselines else None,
            patch_size=patch_size,
            num_steps=num_steps,
            max_rows=max_rows,
            mosaic_side=dataset.side if isinstance(dataset, Mosaics) else mosaics,
        )
        return work, questions

    folder = None if output_dir is None else checked_path("output_dir", output_dir)
    work, questions = together(prepare)
    if mosaics is not None:
        work = work_on_mosaics(work, mosaics)
    run = together(lambda: EvaluationRun(work, questions))
    return run.complete(Output(folder=folder, resume=resume, force=force))


def _function(model: nn.Module, name: str | None) -> str:
    """Return what makes scores of the model's logits."""
    if name is None:
        return "sigmoid" if is_multi_label(model) else "softmax"
    check_choice("function_to_apply", name, ("sigmoid", "softmax"))
    return name


def _black(image_processor: Any) -> torch.Tensor:
    """Return the pixel values of black, (channels, 1, 1)."""
    if image_processor is None:
        raise ArgumentError(
            '`baselines` must not name "black" without an image processor (it alone knows which pixel values are '
            "black). Pass `image_processor`."
        )
    pixels = pixel_values_of([Image.new("RGB", (64, 64))], image_processor)[0]
    return pixels[:, pixels.shape[1] // 2, pixels.shape[2] // 2, None, None]


def _blur_sigma(patch_size: tuple[int, int] | None, sigma: float | None) -> float:
    """Return the width of the blur in pixels; a patch's height by default."""
    if sigma is not None:
        return check_number("blur_sigma", sigma, above=0, unit="pixels")
    if patch_size is None:
        raise ArgumentError("`blur_sigma` must be given for a model whose config has no `patch_size`.")
    return float(patch_size[0])
