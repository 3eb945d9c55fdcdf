"""The folder of an evaluation: what earlier calls have measured, shared out among the processes of this one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import gather_object

from gmar_hf.errors import ArgumentError, GMARError
from gmar_hf.evaluation.checkpoint import Measured
from gmar_hf.runs.identity import differences
from gmar_hf.runs.processes import together

CHECKPOINTS = "checkpoints"
RESULTS = "results.json"


def open_folder(
    folder: Path, settings: Mapping[str, Any], accelerator: Accelerator, *, resume: bool, force: bool
) -> list[Measured]:
    """Make the folder, or take what an earlier call has left there.

    Every process tells which batches it sees, since machines need not share a folder; the first that sees one takes
    it.

    Args:
        folder (`Path`): The evaluation's `output_dir`.
        settings (`Mapping[str, Any]`): What must be the same in every batch.
        accelerator (`Accelerator`): Of the processes.
        resume (`bool`): Whether to go on from what is there; else it is deleted.
        force (`bool`): Whether finished results may be replaced.

    Returns:
        `list` of [`Measured`]: The batches that this process answers for.

    Raises:
        ArgumentError: In every process, if the folder cannot be used.
        ArtifactError: If a batch's file is corrupt.
    """
    checkpoints = folder / CHECKPOINTS

    def look() -> list[Path]:
        try:
            if (folder / RESULTS).exists() and not force and not any(checkpoints.glob("batch-*")):
                raise ArgumentError(
                    f"`output_dir` (`--out`) must not hold finished results; {str(folder)!r} does. Choose another "
                    "folder, or replace them with `force=True` (`--force`)."
                )
            checkpoints.mkdir(parents=True, exist_ok=True)
            return sorted(set(checkpoints.glob("batch-*.safetensors")))
        except GMARError:
            raise
        except OSError as error:
            raise ArgumentError(
                f"`output_dir` (`--out`) must be a folder that can be written; got {str(folder)!r} "
                f"({error.strerror}). Choose another."
            ) from error

    files = together(look)
    if not resume:
        if accelerator.is_local_main_process:
            for file in files:
                file.unlink(missing_ok=True)
        accelerator.wait_for_everyone()
        return []
    owner: dict[str, int] = {}
    for rank, names in enumerate(gather_object([[file.name for file in files]])):
        for name in names:
            owner.setdefault(name, rank)
    own = [file for file in files if owner[file.name] == accelerator.process_index]
    return together(lambda: [_load(file, settings) for file in own])


def batch_file(folder: Path, number: int) -> Path:
    """Where a batch is kept."""
    return folder / CHECKPOINTS / f"batch-{number:08d}.safetensors"


def _load(file: Path, settings: Mapping[str, Any]) -> Measured:
    measured, before = Measured.load(file)
    found = differences(before, settings)
    if found:
        raise ArgumentError(
            f"`output_dir` (`--out`) holds the checkpoint of another evaluation: {'; '.join(found)}. Go on with the "
            "same settings, choose another folder, or start anew with `resume=False` (`--no-resume`)."
        )
    return measured
