"""The folder of a survey: what earlier calls have left there, shared out among the processes of this one."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import gather_object

from gmar_hf.errors import ArgumentError, GMARError
from gmar_hf.report.report import HeadImportanceReport
from gmar_hf.runs.identity import differences
from gmar_hf.runs.processes import together
from gmar_hf.surveys.checkpoint import Part

CHECKPOINTS = "checkpoints"


@dataclass
class Found:
    """What a process goes on from.

    Args:
        file (`Path`): Where it writes its own part.
        own ([`Part`], *optional*): The part that it takes on.
        left (`list` of [`Part`]): Others that it answers for: read, and never written again.
        done (`set[int]`): Numbers of the batches that are in any process's parts.
        checked (`int`): Batches after which the processes last agreed to go on.
    """

    file: Path
    own: Part | None = None
    left: list[Part] = field(default_factory=list)
    done: set[int] = field(default_factory=set)
    checked: int = 0

    @property
    def parts(self) -> list[Part]:
        return [part for part in (self.own, *self.left) if part is not None]


def open_folder(
    folder: Path,
    settings: Mapping[str, Any],
    report_settings: Mapping[str, Any],
    accelerator: Accelerator,
    *,
    resume: bool,
    force: bool,
) -> Found:
    """Make the folder, or find what an earlier call has left there.

    Every process tells which checkpoints it sees, since machines need not share a folder. The file of its own rank it
    takes on; any other belongs to the first process that sees it.

    Args:
        folder (`Path`): The survey's `output_dir`.
        settings (`Mapping[str, Any]`): What must be the same in a checkpoint, from [`identity`].
        report_settings (`Mapping[str, Any]`): What a finished report would say of this survey.
        accelerator (`Accelerator`): Of the processes.
        resume (`bool`): Whether to go on from checkpoints; else they are deleted.
        force (`bool`): Whether a finished report may be replaced.

    Raises:
        ArgumentError: In every process, if the folder cannot be used.
        ArtifactError: If a checkpoint is corrupt.
    """
    checkpoints = folder / CHECKPOINTS
    own_name = f"rank-{accelerator.process_index:05d}.safetensors"

    def look() -> dict[str, Part]:
        try:
            files = sorted(checkpoints.glob("rank-*.safetensors"))
            if (folder / "config.json").exists() and not force:
                _check_unfinished(folder, report_settings, bool(files))
            seen = {file.name: Part.load(file) for file in files} if resume else {}
            for part in seen.values():
                _check_settings(part, settings)
            checkpoints.mkdir(parents=True, exist_ok=True)
        except GMARError:
            raise
        except OSError as error:
            raise ArgumentError(
                f"`output_dir` (`--out`) must be a folder that can be written; got {str(folder)!r} "
                f"({error.strerror}). Choose another."
            ) from error
        return seen

    seen = together(look)
    if not resume:
        if accelerator.is_local_main_process:
            for file in checkpoints.glob("rank-*.safetensors"):
                file.unlink(missing_ok=True)
        accelerator.wait_for_everyone()
        return Found(checkpoints / own_name)
    announced = gather_object([{part.identity: name == own_name for name, part in seen.items()}])
    owner: dict[str, int] = {}
    for rank, parts in enumerate(announced):
        owner.update({one: rank for one, is_own in parts.items() if is_own})
    for rank, parts in enumerate(announced):
        for one in parts:
            owner.setdefault(one, rank)
    found = Found(checkpoints / own_name, own=seen.pop(own_name, None))
    found.left = [part for part in seen.values() if owner[part.identity] == accelerator.process_index]
    done = gather_object([number for part in found.parts for number in part.done])
    found.done = set(done)
    if len(found.done) != len(done):
        raise ArgumentError(
            f"`output_dir` (`--out`) {str(folder)!r} holds checkpoints that share images. "
            "Start anew with `resume=False` (`--no-resume`)."
        )
    found.checked = max(gather_object([part.checked for part in found.parts] or [0]))
    return found


def _check_unfinished(folder: Path, report_settings: Mapping[str, Any], has_checkpoints: bool) -> None:
    """Raise for a finished report, but not where the same survey was stopped before it deleted its checkpoints."""
    if has_checkpoints:
        before = HeadImportanceReport.from_pretrained(folder).settings
        if all(before[name] == value for name, value in report_settings.items()):
            return
    raise ArgumentError(
        f"`output_dir` (`--out`) must not hold a finished report; {str(folder)!r} does. Choose another folder, or "
        "replace it with `force=True` (`--force`)."
    )


def _check_settings(part: Part, settings: Mapping[str, Any]) -> None:
    found = differences(part.settings, settings)
    if found:
        raise ArgumentError(
            f"`output_dir` (`--out`) holds the checkpoint of another survey: {'; '.join(found)}. Go on with the same "
            "settings, choose another folder, or start anew with `resume=False` (`--no-resume`)."
        )
