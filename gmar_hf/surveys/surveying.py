"""Which heads matter over a data set: the survey, on one process or many, that goes on where it was stopped."""

import os
from collections.abc import Mapping
from typing import Any, Literal

from accelerate import Accelerator
from torch import nn

from gmar_hf.report.head_importance_report import HeadImportanceReport
from gmar_hf.runs.plan import Plan
from gmar_hf.runs.processes import joined, together
from gmar_hf.runs.run_folder import Output, check_apart
from gmar_hf.runs.work import open_work
from gmar_hf.surveys.survey_run import SurveyRun
from gmar_hf.utils.checks import check_flags, check_whole
from gmar_hf.utils.files import checked_path


def survey(
    model: nn.Module,
    dataset: Any,
    image_processor: Any = None,
    batch_size: int = 32,
    target: Literal["predicted", "label"] = "predicted",
    output_dir: str | os.PathLike[str] | None = None,
    resume: bool = True,
    *,
    split: str | None = None,
    streaming: bool = False,
    label_map: Mapping[str, str | int] | None = None,
    use_labels: bool = True,
    limit: int | None = None,
    shuffle_seed: int | None = None,
    part: tuple[int, int] | None = None,
    num_workers: int = 0,
    save_every: int = 20,
    max_unreadable: float = 0.01,
    until_stable: float | None = None,
    force: bool = False,
    overwrite_card: bool = False,
    model_id: str | None = None,
    model_revision: str | None = None,
    data_id: str | None = None,
    data_revision: str | None = None,
    license: str | None = None,
    describe_heads: bool = False,
    top_images: int | None = None,
    accelerator: Accelerator | None = None,
) -> HeadImportanceReport:
    """Score all heads for every image of a data set and report their means, spreads and ranks.

    Run by several processes (`accelerate launch`, `torchrun`) they share the images, each is counted once, and every
    process returns the whole report; the first one writes it. With an `output_dir` a survey that was stopped, at any
    moment and in any way, goes on where it was when it is called again, also with another number of processes. Other
    data are refused: a folder is known by its files' paths and sizes, a list or torch data set by 16 of its items (two
    readings tell what of them is random), a torch stream by its class alone.

    The report also keeps each head's mean output and the mean gradient by it (of ViT-B/16 288 KiB), over all
    explanations together and not by class: from both follows the mean of "contribution_centred", and
    [`centred_head_contribution`] centres single images by the first.

    Args:
        model (`nn.Module`): An image classifier of transformers, which [`explain`] can explain. It runs on the
            accelerator's device and is put back afterwards.
        dataset: A folder of images (flat, or a class per folder), a folder that `datasets` saved, a data set's id on
            the Hub, a `datasets` data set, or a torch data set or list of dicts with `image` (PIL) or `pixel_values`
            (a tensor (channels, height, width)), and `label` (int or list of ints) where labels are known.
        image_processor: The model's image processor; not needed for `pixel_values`.
        batch_size (`int`, defaults to 32): Images explained at once.
        target (`str`, defaults to "predicted"): Explain each image's top logit, or each of its labels ("label").
        output_dir (`str` or `os.PathLike`, *optional*): Folder for checkpoints, the report and its page, index.html.
        resume (`bool`, defaults to True): Whether to go on from the folder's checkpoints; else they are deleted.
        split (`str`, *optional*): The split of a data set with several.
        streaming (`bool`, defaults to False): Read a data set of the Hub without storing it first.
        label_map (`Mapping[str, str | int]`, *optional*): From the names of class folders, or of the data set's
            classes, to the model's labels or indices, where they are not the same letter by letter.
        use_labels (`bool`, defaults to True): Whether to look at the data's labels at all.
        limit (`int`, *optional*): Take so many images only: the first, or with `shuffle_seed` any.
        shuffle_seed (`int`, *optional*): Take the images in an order drawn with this seed.
        part (`tuple[int, int]`, *optional*): Survey only one part of the images, such as (3, 8) for the third of eight
            (of the order with `limit` and `shuffle_seed`, every eighth image from the third on): for jobs that know
            nothing of each other. [`HeadImportanceReport.merge`] makes one report of theirs.
        num_workers (`int`, defaults to 0): Processes that read images, for each process that explains.
        save_every (`int`, defaults to 20): Number of batches of a process between its checkpoints.
        max_unreadable (`float`, defaults to 0.01): Share of the images that may be unreadable, in [0, 1], rounded
            up to whole images; those counted on which the model's numbers are NaN or infinite.
        until_stable (`float`, *optional*): Stop as soon as the largest standard error of the heads'
            "contribution_abs", the score that ranks them, is below this share of the largest mean. Looked at every 16
            batches. Means of the signed contribution settle last, where its signs cancel.
        force (`bool`, defaults to False): Replace a finished report in `output_dir`.
        overwrite_card (`bool`, defaults to False): Replace also a README.md there that was written by hand.
        model_id, data_id (`str`, *optional*): What the report calls model and data, if not what they were loaded as.
        model_revision (`str`, *optional*): The model's revision that was asked for, if not the main branch.
        license (`str`, *optional*): The report's own licence.
        data_revision (`str`, *optional*): The revision of a data set on the Hub.
        describe_heads (`bool`, defaults to False): Also report what every head is like, as [`describe_heads`] does:
            attention distance and entropy, share on prefix tokens, direct effect on the logit. It takes a second
            forward of every image, and its attention matrices, in blocks of rows.
        top_images (`int`, *optional*): Also name, for every head, so many images on which it adds most. Their names
            then stand in the report, and on the Hub if it is pushed.
        accelerator (`Accelerator`, *optional*): The calling script's; by default a new one.

    Returns:
        [`HeadImportanceReport`]: In every process.

    Raises:
        ArgumentError: If something cannot be used, too many images are unreadable, the folder holds a finished report
            or a checkpoint of other settings, or lies in a folder of images that are the data.
        ArtifactError: If a checkpoint is corrupt.
        SurveyInterrupted: On Ctrl-C, once what was found is saved; it is a `KeyboardInterrupt`, so that is what to
            catch.

    Example:
        >>> import gmar_hf, gmar_hf.demo
        >>> model, image_processor = gmar_hf.demo.load("vit")
        >>> report = gmar_hf.survey(model, gmar_hf.demo.scenes(8), image_processor, batch_size=4)
        >>> report.num_images, report.mean["contribution"].shape, len(report.top_heads(3))
        (8, torch.Size([6, 8]), 3)
    """
    check_flags(resume=resume, streaming=streaming, use_labels=use_labels, force=force)
    check_flags(overwrite_card=overwrite_card, describe_heads=describe_heads)
    accelerator = joined(accelerator)

    def prepare() -> SurveyRun:
        plan = Plan(
            batch_size=batch_size,
            target=target,
            limit=limit,
            shuffle_seed=shuffle_seed,
            part=part,
            num_workers=num_workers,
            save_every=save_every,
            max_unreadable=max_unreadable,
            until_stable=until_stable,
        )
        reading = dict(
            split=split, revision=data_revision, label_map=label_map, streaming=streaming, use_labels=use_labels
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
        return SurveyRun(
            work,
            license=license,
            overwrite_card=overwrite_card,
            describe_heads=describe_heads,
            top_images=None if top_images is None else check_whole("top_images", top_images, minimum=1),
        )

    folder = None if output_dir is None else checked_path("output_dir", output_dir)
    check_apart(folder, dataset)
    return together(prepare).complete(Output(folder=folder, resume=resume, force=force))
