"""Work over a data set that survives a kill: batch after batch, saved now and then, by one process or many."""

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Set
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from gmar_hf.data.sample import StreamData
from gmar_hf.errors import GMARError
from gmar_hf.models.weight_sample import weight_sample
from gmar_hf.runs.batches import Batch, map_loader, stream_loader
from gmar_hf.runs.processes import Interruption, RunInterrupted, gather, patient, together
from gmar_hf.runs.progress import counted, progress, say, time_left
from gmar_hf.runs.run_folder import Output, remove_checkpoints
from gmar_hf.runs.unchanged_model import UnchangedModel
from gmar_hf.runs.work import Work
from gmar_hf.utils.iteration import no_stop_iteration

Result = TypeVar("Result")
_UNKNOWN = 1 << 62  # more images than there are


class Run(ABC, Generic[Result]):
    """One call of a run, in one process: what surveys and evaluations share.

    Args:
        work ([`Work`]): Model, data, plan and processes.
    """

    noun: ClassVar[str]
    interrupted: ClassVar[type[RunInterrupted]] = RunInterrupted

    def __init__(self, work: Work) -> None:
        self.work = work
        self.rank, self.num_processes = work.accelerator.process_index, work.accelerator.num_processes
        self.done: Set[int] = set()  # numbers of the batches that earlier calls have done, in any process
        self.folder: Path | None = None
        self.interruption = Interruption()
        self.unchanged_model = UnchangedModel(work.model, self.noun)
        self.weight_sample = weight_sample(work.model)
        self._num_unsaved = 0  # batches
        self._is_taking = False  # a batch, so that what is kept may be half of one
        self._shown: Any = None  # what shows how far the run is, while it goes

    @abstractmethod
    def open_folder(self, output: Output) -> Set[int]:
        """Go on from what an earlier call has left; return the numbers of the batches that are done there."""

    @abstractmethod
    def take(self, batch: Batch) -> None:
        """Work on a batch, see that the model is as before, and keep the results in memory; none if it raises."""

    @abstractmethod
    def save(self) -> None:
        """Write what is not saved yet, if there is a folder."""

    @abstractmethod
    def collect(self) -> Result:
        """Return what all processes have found, in every process."""

    @abstractmethod
    def write(self, result: Result, folder: Path) -> None:
        """Write the results; only the first process is asked to."""

    def is_enough_before(self, batch_number: int) -> bool:
        """Tell whether the run may stop before this batch, which all processes have to agree on."""
        return False

    def describe_cost(self, batch: Batch) -> str | None:
        """Say what the run will cost, now that its first batch is read; None where there is nothing to say."""
        return None

    def show(self, step: str) -> None:
        """Show how far the batch in hand is, such as "map 3 of 8"."""
        if self._shown is not None:
            self._shown.set_postfix_str(step)

    def settle(self) -> None:
        """Settle with the other processes what is open when this one has no batches left."""

    def complete(self, output: Output) -> Result:
        """Do the whole run, and return its result in every process.

        Args:
            output ([`Output`]): Where results go.

        Raises:
            GMARError: Whatever cannot be used.
            RunInterrupted: On Ctrl-C, once the batch in hand is saved.
        """
        folder = output.folder
        with output.held:
            if folder is not None:
                self.done, self.folder = set(gather(sorted(self.open_folder(output)))), folder
            with self.work.on_device():
                # Processes that settle things on their way would mistake each other's exchanges.
                self.go() if self.work.plan.until_stable is not None else together(self.go)
                result = self.collect()
                if folder is not None:
                    is_main = self.work.accelerator.is_main_process
                    together(lambda: self.write(result, folder) if is_main else None)
            if folder is not None and self.work.accelerator.is_local_main_process:
                remove_checkpoints(folder)  # machines need not share one folder
        return result

    def go(self) -> None:
        """Take this process's batches, until they or the need for them end."""
        then = (
            "Stopping behind the batch in hand" if self.folder is None else "Stopping once the work in hand is saved"
        )
        said = f"\n{then}; Ctrl-C again stops at once.\n" if self.work.accelerator.is_main_process else ""
        with patient(said) as self.interruption, self._bar() as bar:
            self._shown = bar
            try:
                self._take_batches(bar)
                self._save_checked()
                self.settle()
                if self.interruption.requested:
                    raise RunInterrupted
            except RunInterrupted as stopped:
                self._save_checked()
                # Of other processes this one knows only that they do as much in the same time.
                about = "about " if self.num_processes > 1 else ""
                raise self.interrupted(f"{about}{counted(bar.n, bar.total)}") from stopped
            except (Exception, KeyboardInterrupt) as error:
                self._save_before(error)
                raise

    def _save_checked(self) -> None:
        """Save what the model gave that the run began with, and of no other."""
        self.unchanged_model.check_weights(self.weight_sample)
        self.save()

    def _save_before(self, error: BaseException) -> None:
        """Save what is done before an error leaves, as of the user's data; it matters more than one of saving."""
        is_whole = isinstance(error, Exception) or not self._is_taking
        if self._num_unsaved and is_whole:
            try:
                self._save_checked()
            except (GMARError, OSError) as failure:
                error.add_note(f"What was done before could not be saved: {failure}")

    def _take_batches(self, bar: Any) -> None:
        start: float | None = time.monotonic()
        for batch in self._batches():
            if self.is_enough_before(batch.number):
                return
            if start is not None:
                self.say(self.describe_cost(batch))
            self._is_taking = True
            with no_stop_iteration("model", "working on a batch"):
                self.take(batch)
            self._is_taking = False
            self._num_unsaved += 1
            bar.update(min(batch.size * self.num_processes, (bar.total or _UNKNOWN) - bar.n))
            if start is not None and bar.total is not None:
                num_done = min(batch.size * self.num_processes, bar.total)
                self.say(time_left(time.monotonic() - start, num_done, bar.total - bar.n))
            start = None
            if self.interruption.requested:
                raise RunInterrupted
            if self._num_unsaved == self.work.plan.save_every:
                self._save_checked()
                self._num_unsaved = 0

    def say(self, line: str | None) -> None:
        """Tell what there is to tell, once for all processes."""
        if line is not None and self.work.accelerator.is_main_process:
            say(line)

    def _batches(self) -> Iterator[Batch]:
        """Read the batches that are left for this process."""
        work, plan = self.work, self.work.plan
        data = work.data
        if isinstance(data, StreamData):
            if plan.shuffle_seed is not None:
                data = data.shuffled(plan.shuffle_seed)
            # Of any process's parts: machines without a common folder may have taken each other's places.
            done = {number // self.num_processes for number in self.done if number % self.num_processes == self.rank}
            first = min(set(range(len(done) + 1)) - done)
            stop = None if plan.limit is None else len(range(self.rank, plan.limit, self.num_processes))
            loader = stream_loader(
                data, first, stop, self.rank, self.num_processes, plan.batch_size, work.image_processor
            )
            return (batch for batch in loader if batch.number not in self.done)
        order = plan.order(len(data))
        left = [number for number in range(-(-len(order) // plan.batch_size)) if number not in self.done]
        # What is left is dealt out anew where processes have come or gone; every process deals alike.
        numbers = left[self.rank :: self.num_processes]
        return iter(map_loader(data, order, numbers, plan.batch_size, work.image_processor, plan.num_workers))

    def _bar(self) -> Any:
        is_hidden = not self.work.accelerator.is_main_process
        return progress(self._num_done(), self.work.num_images, hidden=is_hidden, what=self.noun)

    def _num_done(self) -> int:
        """Count the images of the batches that earlier calls have done."""
        batch_size, total = self.work.plan.batch_size, self.work.num_images
        num_done = len(self.done) * batch_size
        if total is None or isinstance(self.work.data, StreamData):
            return num_done if total is None else min(num_done, total)
        last, rest = divmod(total - 1, batch_size)  # the last batch may be a smaller one
        return num_done - (batch_size - 1 - rest) * (last in self.done)
