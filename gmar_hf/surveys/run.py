"""One process's work in a survey, and what the processes settle together."""

from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import accelerate
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn

from gmar_hf.data import MapData, StreamData
from gmar_hf.errors import ArgumentError
from gmar_hf.explanation.engine import versions
from gmar_hf.models.weight_sample import weight_sample
from gmar_hf.report.moments import Moments
from gmar_hf.report.report import HeadImportanceReport
from gmar_hf.report.statistics import KEYS, OUTCOMES, RANKED_BY, summarize
from gmar_hf.runs.batches import Batch, map_loader, stream_loader
from gmar_hf.runs.identity import identity
from gmar_hf.runs.plan import Plan
from gmar_hf.runs.processes import Interruption, patient
from gmar_hf.runs.progress import counted, progress
from gmar_hf.surveys.checkpoint import TALLIES, Part
from gmar_hf.surveys.folder import open_folder
from gmar_hf.surveys.scoring import score_heads


def total_moments(accelerator: Accelerator, moments: Moments) -> Moments:
    """The moments of all processes merged, in every process; the memory it takes does not grow with their number.

    With n_p, m_p and s_p a process's counts, means and squared deviations, the whole's are n = sum n_p,
    m = sum n_p m_p / n and s = sum (s_p + n_p (m_p - m)^2) (Chan, Golub, LeVeque 1979).
    """
    if accelerator.num_processes == 1:
        return moments

    def total(tensor: torch.Tensor) -> torch.Tensor:
        summed = accelerator.reduce(tensor.to(accelerator.device), reduction="sum")
        assert isinstance(summed, torch.Tensor)
        return summed.cpu()

    count = moments.count.double().reshape(-1, *[1] * (moments.mean.ndim - 1))
    counts = total(moments.count.clone())
    mean = total(count * moments.mean) / counts.clamp_min(1).double().reshape(count.shape)
    squares = total(moments.squares + count * (moments.mean - mean).square())
    return Moments(counts, mean, squares)


_STABLE_EVERY = 16  # batches between two looks at the standard errors, whatever the number of processes
_NAMED_UNREADABLE = 1000


class SurveyInterrupted(KeyboardInterrupt):
    """Ctrl-C: what was found so far is saved, if there is a folder for it. Its text says how many images that is."""


class Run:
    """One call of a survey, in one process.

    Args:
        model (`nn.Module`): The classifier.
        data ([`MapData`] or [`StreamData`]): What is surveyed.
        image_processor: The model's, or None.
        plan ([`Plan`]): How.
        described (`dict[str, Any]`): The report's entry for the model.
        accelerator (`Accelerator`): Of the processes.
    """

    def __init__(
        self,
        model: nn.Module,
        data: MapData | StreamData,
        image_processor: Any,
        plan: Plan,
        described: dict[str, Any],
        accelerator: Accelerator,
    ) -> None:
        self._model, self._data, self._processor, self._plan = model, data, image_processor, plan
        self._described, self._accelerator = described, accelerator
        self._rank, self._num_processes = accelerator.process_index, accelerator.num_processes
        self._sample = weight_sample(model)
        shares = self._num_processes if isinstance(data, StreamData) else None
        self._settings = identity(plan, described, self._sample, data, image_processor, shares)
        shape = (len(KEYS), described["num_layers"], described["num_heads"])
        self._part = Part(self._settings, Moments.empty(len(described["labels"]) * len(OUTCOMES), shape))
        self._left: list[Part] = []  # of earlier calls with other processes; read here, and never written
        self._done: set[int] = set()  # by all processes, when the call began
        self._file: Path | None = None
        self._reached = False
        self._interruption = Interruption()

    def open_folder(self, folder: Path, *, resume: bool, force: bool) -> None:
        """Go on from what an earlier call has left in the folder, and keep checkpoints there."""
        found = open_folder(
            folder, self._settings, self._described_survey(), self._accelerator, resume=resume, force=force
        )
        self._part = found.own or self._part
        self._part.checked = found.checked
        self._left, self._done, self._file = found.left, found.done, found.file

    def _described_survey(self) -> dict[str, Any]:
        """What the report says of how it was made."""
        return {
            "model": self._described,
            "datasets": [self._data.identity],
            "target": self._plan.target,
            "survey": self._plan.recorded(),
        }

    def go(self) -> None:
        """Explain this process's batches, until they or the need for them end."""
        check_at = None
        if self._plan.until_stable is not None:
            check_at = self._part.checked + _STABLE_EVERY
        with patient() as self._interruption, self._bar() as self._progress:
            since_saved = 0
            for batch in self._batches():
                while check_at is not None and batch.number >= check_at:
                    if self._settled(check_at, at_end=False):
                        self._save()
                        return
                    check_at += _STABLE_EVERY
                self._take(batch)
                bar = self._progress
                bar.update(min(batch.size * self._num_processes, (bar.total or 1 << 62) - bar.n))
                since_saved += 1
                if self._interruption.requested:
                    self._save()
                    raise self._interrupted()
                if since_saved == self._plan.save_every:
                    self._save()
                    since_saved = 0
            self._save()
            while check_at is not None and not self._settled(check_at, at_end=True):
                check_at += _STABLE_EVERY

    def _settled(self, batches: int, *, at_end: bool) -> bool:
        """Whether all processes stop: the means are stable after so many batches, or nobody has any left."""
        tolerance = self._plan.until_stable
        assert tolerance is not None
        try:
            everything = total_moments(self._accelerator, self._own_moments().pool(self._all_groups()))
        except RuntimeError as lost:  # another process has heard of the same Ctrl-C, and is gone
            if not self._interruption.requested:
                raise
            self._save()
            raise self._interrupted() from lost
        found = summarize(everything)
        error, mean = found.standard_error[RANKED_BY].max(), found.mean[RANKED_BY].max()
        self._reached = bool(error < tolerance * mean)  # not with less than two explanations: infinite, or NaN
        if not self._reached:
            self._part.checked = batches  # a call that goes on from a stable state stops again at once
        return self._reached or all(gather_object([at_end]))

    def _batches(self) -> Iterator[Batch]:
        plan, data = self._plan, self._data
        if isinstance(data, StreamData):
            if plan.shuffle_seed is not None:
                data = data.shuffled(plan.shuffle_seed)
            # Of any process's parts: machines without a common folder may have taken each other's places.
            done = {
                number // self._num_processes for number in self._done if number % self._num_processes == self._rank
            }
            first = min(set(range(len(done) + 1)) - done)
            stop = None if plan.limit is None else len(range(self._rank, plan.limit, self._num_processes))
            loader = stream_loader(
                data, first, stop, self._rank, self._num_processes, plan.batch_size, self._processor
            )
            return (batch for batch in loader if batch.number not in self._done)
        order = plan.order(len(data))
        last = -(-len(order) // plan.batch_size)
        left = [number for number in range(last) if number not in self._done]
        # What is left is dealt out anew where processes have come or gone; every process deals alike.
        numbers = left[self._rank :: self._num_processes]
        return iter(map_loader(data, order, numbers, plan.batch_size, self._processor, plan.num_workers))

    def _num_images(self) -> int | None:
        """How many images there are to look at, where that is known."""
        if isinstance(self._data, StreamData):
            return self._plan.limit
        return min(len(self._data), self._plan.limit or len(self._data))

    def _num_done(self) -> int:
        """How many images earlier calls have done."""
        done, total = len(self._done) * self._plan.batch_size, self._num_images()
        if total is None or isinstance(self._data, StreamData):
            return done if total is None else min(done, total)
        last, rest = divmod(total - 1, self._plan.batch_size)
        return done - (self._plan.batch_size - 1 - rest) * (last in self._done)

    def _bar(self) -> Any:
        return progress(self._num_done(), self._num_images(), hidden=not self._accelerator.is_main_process)

    def _interrupted(self) -> SurveyInterrupted:
        # Of other processes this one knows only that they do as much in the same time.
        about = "about " * (self._num_processes > 1)
        return SurveyInterrupted(f"{about}{counted(self._progress.n, self._progress.total)}")

    def _take(self, batch: Batch) -> None:
        """Explain a batch and add what is found to this process's part."""
        part = self._part
        found = dict.fromkeys(TALLIES, 0)
        found["num_unreadable"] = len(batch.unreadable)
        values, groups = [], []
        if batch.pixel_values is not None:
            for pixels, wanted, labels in self._explainable(batch, found):
                scores = score_heads(self._model, pixels, wanted)
                predicted = scores.logits.argmax(dim=-1).tolist()
                for row, said in enumerate(predicted):
                    own = labels[row]
                    outcome = "unlabelled" if not own else "correct" if said in own else "wrong"
                    found["num_images"] += 1
                    found[f"num_{outcome}"] += 1
                    classes = scores.target[row].reshape(-1).tolist()
                    groups += [one * len(OUTCOMES) + OUTCOMES.index(outcome) for one in classes]
                values.append(scores.values.reshape(-1, *scores.values.shape[-3:]).double().cpu())
        if values:
            part.moments.add(torch.cat(values), torch.tensor(groups))
        for name, count in found.items():
            part.tallies[name] += count
        part.unreadable = (part.unreadable + batch.unreadable)[:_NAMED_UNREADABLE]
        part.done.add(batch.number)
        self._plan.check_readable(part.tallies["num_unreadable"], self._num_images(), "so far", part.unreadable)

    def _explainable(self, batch: Batch, found: dict[str, int]) -> Iterator[tuple[torch.Tensor, Any, list]]:
        """Pixel values, targets and labels of images that are explained in one go."""
        assert batch.pixel_values is not None
        pixels = batch.pixel_values.to(self._accelerator.device)
        if self._plan.target == "predicted":
            yield pixels, None, batch.labels
            return
        rows = sorted(range(len(batch.labels)), key=lambda row: len(batch.labels[row] or ()))
        for count, members in groupby(rows, key=lambda row: len(batch.labels[row] or ())):
            alike = list(members)
            if count == 0:
                found["num_unlabelled"] += len(alike)
                continue
            labels = [batch.labels[row] for row in alike]
            yield pixels[alike], torch.tensor(labels), labels

    def _own_moments(self) -> Moments:
        moments = self._part.moments
        for part in self._left:
            moments = moments.merge(part.moments)
        return moments

    def _all_groups(self) -> torch.Tensor:
        return torch.arange(len(self._part.moments.count))

    def _save(self) -> None:
        if self._file is not None:
            with suppress(OSError):  # which saving then tells of
                self._file.parent.mkdir(parents=True, exist_ok=True)  # one that failed clears it away while empty
            self._part.save(self._file)

    def report(self, license: str | None) -> HeadImportanceReport:
        """What all processes have found, in every process.

        Raises:
            ArgumentError: If too many images were unreadable, or none was explained.
        """
        parts = [self._part, *self._left]
        tallies: dict[str, int] = dict.fromkeys(TALLIES, 0)
        for one in gather_object([part.tallies for part in parts]):
            for name, count in one.items():
                tallies[name] += count
        unreadable = gather_object([entry for part in parts for entry in part.unreadable])
        unreadable = sorted(unreadable, key=lambda entry: entry["image"])[:_NAMED_UNREADABLE]
        seen = tallies["num_images"] + tallies["num_unreadable"]
        if self._plan.target == "label":
            seen += tallies["num_unlabelled"]
        self._plan.check_readable(tallies["num_unreadable"], seen, "in all", unreadable)
        if not tallies["num_images"]:
            raise ArgumentError("`dataset` (`--data`) must hold at least one image to explain; got none.")
        moments = total_moments(self._accelerator, self._own_moments())
        stability = None
        if self._plan.until_stable is not None:
            stability = {
                "tolerance": self._plan.until_stable,
                "reached": self._reached,
                "num_images": tallies["num_images"],
            }
        settings = {
            **self._described_survey(),
            "counts": {**tallies, "num_explanations": int(moments.count.sum())},
            "unreadable": unreadable,
            "stability": stability,
            "license": license,
            "versions": {**versions(), "accelerate": accelerate.__version__},
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        return HeadImportanceReport(moments, self._sample, settings)
