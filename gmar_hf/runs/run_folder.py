"""The folder of a run: what earlier calls have left there, shared out among the processes of this one."""

import os
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from accelerate import Accelerator
from safetensors import SafetensorError, safe_open

from gmar_hf.errors import ArgumentError, GMARError
from gmar_hf.runs.identity import differences
from gmar_hf.runs.processes import gather, together
from gmar_hf.utils.files import alone_in, folder_error, make_folder, remove_leftovers
from gmar_hf.utils.own_files import check_replaceable, look_at

CHECKPOINTS = "checkpoints"
OUT = "`output_dir` (`--out`)"


class Part(Protocol):
    """What a checkpoint holds: the results of some batches."""

    settings: Mapping[str, Any]
    """What must be the same when it is gone on with."""

    @property
    def key(self) -> str:
        """Tells it from every other part, under any file name."""

    @property
    def done(self) -> Set[int]:
        """Numbers of its batches."""


AnyPart = TypeVar("AnyPart", bound=Part)


@dataclass(frozen=True, kw_only=True)
class Output:
    """Where a run's results go, and what becomes of what is there.

    Args:
        folder (`Path`, *optional*): The run's `output_dir`; nothing is kept without it.
        resume (`bool`): Whether to go on from checkpoints; else they are deleted.
        force (`bool`): Whether finished results may be replaced.
        held (`ExitStack`): What keeps other runs out of the folder, and clears it away where nothing is in it.
    """

    folder: Path | None
    resume: bool
    force: bool
    held: ExitStack = field(default_factory=ExitStack)


@dataclass(frozen=True, kw_only=True)
class Kind(Generic[AnyPart]):
    """What sets the folder of one kind of run apart.

    Args:
        noun (`str`): What errors call the run, such as "survey".
        pattern (`str`): The checkpoints' file names.
        load (`Callable`): From a checkpoint's path to its part.
        check_others (`Callable`): Gets the folder; raises if it holds files of others that results would replace.
        check_finished (`Callable`): Gets the folder and whether it has checkpoints; raises if finished results are
            there that must not be replaced.
    """

    noun: str
    pattern: str
    load: Callable[[Path], AnyPart]
    check_others: Callable[[Path], None]
    check_finished: Callable[[Path, bool], None]


def open_folder(
    output: Output, kind: Kind[AnyPart], settings: Mapping[str, Any], accelerator: Accelerator, own_name: str
) -> dict[str, AnyPart]:
    """Make the folder, or take what an earlier call has left there.

    Every process tells which checkpoints it sees, since machines need not share a folder. The file of its own name it
    takes on; any other belongs to the first process that sees it.

    Args:
        output ([`Output`]): Where, and what may become of what is there.
        kind ([`Kind`]): What kind of run's folder it is.
        settings (`Mapping[str, Any]`): What must be the same in a checkpoint.
        accelerator (`Accelerator`): The processes that share the run.
        own_name (`str`): The name of the file that this process will write to.

    Returns:
        The parts that this process answers for, by file name.

    Raises:
        ArgumentError: In every process, if the folder cannot be used.
        ArtifactError: In every process, if a checkpoint is corrupt.
    """
    assert output.folder is not None
    folder, checkpoints = output.folder, output.folder / CHECKPOINTS

    is_new = not os.path.exists(folder)  # which is False, too, for a name that cannot be

    def enter() -> None:
        with _of_folder(folder):
            kind.check_others(folder)
        make_folder(OUT, folder)
        make_folder(OUT, checkpoints)
        if accelerator.is_main_process:
            output.held.enter_context(alone_in(OUT, checkpoints))

    def leave(error: type[BaseException] | None, *rest: object) -> None:
        if error is not None:
            clear_away(folder, is_new)

    def look() -> dict[str, AnyPart]:
        with _of_folder(folder):
            files = sorted(set(checkpoints.glob(kind.pattern)))
            if not output.force:
                kind.check_finished(folder, bool(files))
            parts = {file.name: kind.load(file) for file in files} if output.resume else {}
            if not output.resume:
                check_replaceable(OUT, checkpoints, [file.name for file in files if not _is_damaged(file)], kind.noun)
            for part in parts.values():
                _check_settings(part, settings, kind.noun)
        return parts

    together(enter)
    output.held.push(leave)  # before the folder is let go
    parts = together(look)
    if not output.resume:
        _delete(checkpoints, kind.pattern, accelerator)
        return {}
    # A part belongs to the process that wrote it, or else to the first that sees it.
    announced = gather([{part.key: name == own_name for name, part in parts.items()}])
    owner: dict[str, int] = {}
    for rank, keys in enumerate(announced):
        owner.update({key: rank for key, is_own in keys.items() if is_own})
    for rank, keys in enumerate(announced):
        for key in keys:
            owner.setdefault(key, rank)
    mine = {name: part for name, part in parts.items() if owner[part.key] == accelerator.process_index}
    numbers = gather([number for part in mine.values() for number in part.done])
    if len(set(numbers)) != len(numbers):
        raise ArgumentError(
            f"`output_dir` (`--out`) {str(folder)!r} holds checkpoints that share images. "
            "Start anew with `resume=False` (`--no-resume`)."
        )
    return mine


@contextmanager
def _of_folder(folder: Path) -> Iterator[None]:
    """Turn what the system says inside the block into the error of a folder that cannot be used."""
    try:
        yield
    except GMARError:
        raise
    except OSError as error:
        raise folder_error(OUT, folder, error) from error


def check_apart(folder: Path | None, data: Any) -> None:
    """Refuse results with pictures in the folder of the data: they would be images of the next run.

    Args:
        folder (`Path`, *optional*): Where results go.
        data (`Any`): What the user gave as data.

    Raises:
        ArgumentError: If `data` is a folder, and the other one is it or lies in it.
    """
    if folder is None or not isinstance(data, str | os.PathLike) or not os.path.isdir(data):
        return
    if Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(data)):
        raise ArgumentError(
            f"{OUT} must not lie in the folder of the data (its pictures would be images of the next run); got "
            f"{str(folder)!r} in {os.fspath(data)!r}. Choose another."
        )


def clear_away(folder: Path, is_new: bool) -> None:
    """Remove the folders of a run that has left nothing in them."""
    with suppress(OSError):  # of folders with something in them
        (folder / CHECKPOINTS).rmdir()
        if is_new:
            folder.rmdir()


def remove_checkpoints(folder: Path) -> None:
    """Remove the checkpoints of a run that is done; what else lies beside them stays."""
    for file in (folder / CHECKPOINTS).glob("*.safetensors"):
        if look_at(file) is not None:
            file.unlink(missing_ok=True)
    remove_leftovers(folder / CHECKPOINTS / "*")
    clear_away(folder, is_new=False)


def _is_damaged(file: Path) -> bool:
    """Tell whether nobody can read a file of tensors, so that nothing is lost with it."""
    try:
        with safe_open(file, framework="numpy"):
            return False
    except (OSError, SafetensorError):
        return file.is_file()


def _delete(checkpoints: Path, pattern: str, accelerator: Accelerator) -> None:
    if accelerator.is_local_main_process:
        for file in checkpoints.glob(pattern):
            file.unlink(missing_ok=True)
    gather([None])  # nobody writes before all is deleted


def _check_settings(part: Part, settings: Mapping[str, Any], noun: str) -> None:
    changes = differences(part.settings, settings)
    if changes:
        raise ArgumentError(
            f"`output_dir` (`--out`) holds the checkpoint of another {noun}: {'; '.join(changes)}. Go on with the "
            "same settings, choose another folder, or start anew with `resume=False` (`--no-resume`)."
        )
