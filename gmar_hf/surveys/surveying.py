"""Which heads matter over a data set: the survey, on one process or many, that goes on where it was stopped."""

import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from accelerate import Accelerator
from torch import nn

from gmar_hf.data import open_data
from gmar_hf.errors import ArgumentError
from gmar_hf.models.introspection import check_model
from gmar_hf.report.figures import FIGURES
from gmar_hf.report.files import CARD_FILE, SETTINGS_FILE, TENSORS_FILE
from gmar_hf.report.report import HeadImportanceReport
from gmar_hf.runs.identity import describe_model
from gmar_hf.runs.plan import Plan
from gmar_hf.runs.processes import joined, together
from gmar_hf.surveys.folder import CHECKPOINTS
from gmar_hf.surveys.run import Run
from gmar_hf.utils.files import remove_leftovers

_REPORT_FILES = (TENSORS_FILE, SETTINGS_FILE, CARD_FILE, *(f"{score}.png" for score in FIGURES))


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
    accelerator: Accelerator | None = None,
) -> HeadImportanceReport:
    """Score all heads for every image of a data set and report their means, spreads and ranks.

    Run by several processes (`accelerate launch`, `torchrun`) they share the images, each is counted once, and every
    process returns the whole report; the first one writes it. With an `output_dir` a survey that was stopped, at any
    moment and in any way, goes on where it was when it is called again, also with another number of processes. Other
    data are refused: a folder is known by its files' paths and sizes, a list or torch data set by 16 of its items (two
    readings tell what of them is random), a torch stream by its class alone.

    Args:
        model (`nn.Module`): As in [`explain`]. It runs on the accelerator's device and is put back afterwards.
        dataset: A folder of images (flat, or a class per folder), a folder that `datasets` saved, a data set's id on
            the Hub, a `datasets` data set, or a torch data set or list of dicts with `image` (PIL) or `pixel_values`
            (a tensor (channels, height, width)), and `label` (int or list of ints) where labels are known.
        image_processor: The model's; not needed for `pixel_values`.
        batch_size (`int`, defaults to 32): Images explained at once.
        target (`str`, defaults to "predicted"): Explain each image's top logit, or each of its labels ("label").
        output_dir (`str` or `os.PathLike`, *optional*): Folder for checkpoints and the report.
        resume (`bool`, defaults to True): Whether to go on from the folder's checkpoints; else they are deleted.
        split (`str`, *optional*): Of a data set with several.
        streaming (`bool`, defaults to False): Read a data set of the Hub without storing it first.
        label_map (`Mapping[str, str | int]`, *optional*): From the names of class folders, or of the data set's
            classes, to the model's labels or indices, where they are not the same letter by letter.
        use_labels (`bool`, defaults to True): Whether to look at the data's labels at all.
        limit (`int`, *optional*): Take so many images only: the first, or with `shuffle_seed` any.
        shuffle_seed (`int`, *optional*): Take the images in an order drawn with this seed.
        num_workers (`int`, defaults to 0): Processes that read images, for each process that explains.
        save_every (`int`, defaults to 20): Batches of a process between its checkpoints.
        max_unreadable (`float`, defaults to 0.01): Share of the images that may be unreadable, in [0, 1].
        until_stable (`float`, *optional*): Stop as soon as the largest standard error of the heads'
            "contribution_abs", the score that ranks them, is below this share of the largest mean. Looked at every 16
            batches. Means of the signed contribution settle last, where its signs cancel.
        force (`bool`, defaults to False): Replace a finished report in `output_dir`.
        overwrite_card (`bool`, defaults to False): Replace also a README.md there that was written by hand.
        model_id, data_id (`str`, *optional*): For the report: what model and data are called, if not what they were
            loaded as.
        model_revision (`str`, *optional*): The model's revision that was asked for, if not the main branch.
        license (`str`, *optional*): For the report: its own licence.
        data_revision (`str`, *optional*): Of a data set on the Hub.
        accelerator (`Accelerator`, *optional*): Of the calling script; by default a new one.

    Returns:
        [`HeadImportanceReport`]: In every process.

    Raises:
        ArgumentError: If something cannot be used, too many images are unreadable, the folder holds a finished report
            or a checkpoint of other settings.
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
    accelerator = joined(accelerator)

    def prepare() -> Run:
        plan = Plan(batch_size, target, limit, shuffle_seed, num_workers, save_every, max_unreadable, until_stable)
        check_model(model)
        described = describe_model(model, model_id, model_revision)
        data = open_data(
            dataset,
            dict(enumerate(described["labels"])),
            split=split,
            revision=data_revision,
            label_map=label_map,
            streaming=streaming,
            use_labels=use_labels,
        )
        if target == "label" and data.has_labels is False:
            raise ArgumentError('`target` "label" needs labels; got data without any. Use target "predicted".')
        if data_id is not None:
            data.identity["id"] = data_id
        return Run(model, data, image_processor, plan, described, accelerator)

    run = together(prepare)
    is_new = output_dir is not None and not os.path.exists(output_dir)
    device = next(model.parameters()).device
    moved = device != accelerator.device and not hasattr(model, "hf_device_map")
    try:
        if output_dir is not None:
            run.open_folder(Path(output_dir), resume=resume, force=force)
        if moved:
            model.to(accelerator.device)
        run.go()
        report = run.report(license)
    except BaseException:
        if output_dir is not None:
            _clear_away(Path(output_dir), is_new)
        raise
    finally:
        if moved:
            model.to(device)
    if output_dir is not None:
        folder = Path(output_dir)
        together(lambda: accelerator.is_main_process and report.save_pretrained(folder, overwrite_card=overwrite_card))
        if accelerator.is_main_process:
            for name in _REPORT_FILES:
                remove_leftovers(folder / name)
        if accelerator.is_local_main_process:  # the folders of several machines need not be one
            shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    return report


def _clear_away(folder: Path, is_new: bool) -> None:
    """Remove the folders of a survey that has left nothing in them."""
    with suppress(OSError):  # of folders with something in them
        (folder / CHECKPOINTS).rmdir()
        if is_new:
            folder.rmdir()
