"""A survey in one process, and what the processes settle together."""

from collections.abc import Set
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import accelerate
import torch
from accelerate import Accelerator

from gmar_hf.data.sample import StreamData
from gmar_hf.errors import ArgumentError
from gmar_hf.explanation.engine import versions
from gmar_hf.report.figures import FIGURES
from gmar_hf.report.head_importance_report import HeadImportanceReport
from gmar_hf.report.head_means import merge_all
from gmar_hf.report.moments import Moments
from gmar_hf.report.page import PAGE_FILE
from gmar_hf.report.report_files import CARD_FILE, SETTINGS_FILE, TENSORS_FILE, check_no_others, check_no_report
from gmar_hf.report.statistics import KEYS, OUTCOMES, RANKED_BY, summarize
from gmar_hf.report.top_images import add_images, empty_top_images, merge_top_images
from gmar_hf.runs.batches import Batch
from gmar_hf.runs.identity import identity, image_processing, processor_digest
from gmar_hf.runs.processes import RunInterrupted, exchange, gather
from gmar_hf.runs.run import Run
from gmar_hf.runs.run_folder import CHECKPOINTS, OUT, Kind, Output, open_folder
from gmar_hf.runs.unusable import without_unusable
from gmar_hf.runs.work import Work
from gmar_hf.surveys.explained_batch import explain_batch
from gmar_hf.surveys.survey_checkpoint import COUNTS, Part
from gmar_hf.utils.files import remove_leftovers

_STABLE_EVERY = 16  # batches between two looks at the standard errors, whatever the number of processes
_NAMED_UNREADABLE = 1000
_REPORT_FILES = (TENSORS_FILE, SETTINGS_FILE, CARD_FILE, PAGE_FILE, *(f"{score}.png" for score in FIGURES))


class SurveyInterrupted(RunInterrupted):
    """Ctrl-C: what was found so far is saved, if there is a folder for it. Its text says how many images that is."""


def total_moments(accelerator: Accelerator, moments: Moments) -> Moments:
    """Merge the moments of all processes, in every process; the memory it takes does not grow with their number.

    With n_p, m_p and s_p a process's counts, means and squared deviations, the whole's are n = sum n_p,
    m = sum n_p m_p / n and s = sum (s_p + n_p (m_p - m)^2) (Chan, Golub, LeVeque 1979).
    """
    if accelerator.num_processes == 1:
        return moments

    def total(tensor: torch.Tensor) -> torch.Tensor:
        with exchange():
            summed = accelerator.reduce(tensor.to(accelerator.device), reduction="sum")
        assert isinstance(summed, torch.Tensor)
        return summed.cpu()

    count = moments.count.double().reshape(-1, *[1] * (moments.mean.ndim - 1))
    counts = total(moments.count.clone())
    mean = total(count * moments.mean) / counts.clamp_min(1).double().reshape(count.shape)
    squares = total(moments.squares + count * (moments.mean - mean).square())
    return Moments(counts, mean, squares)


class SurveyRun(Run[HeadImportanceReport]):
    """A survey of the heads of a model.

    Args:
        work ([`Work`]): Model, data, plan and processes.
        license (`str`, *optional*): The report's licence.
        overwrite_card (`bool`): Whether a README.md that was written by hand may be replaced.
        describe_heads (`bool`): Whether to describe the heads as well.
        top_images (`int`, *optional*): On how many images each head's largest contributions are named.
    """

    noun = "survey"
    interrupted = SurveyInterrupted

    def __init__(
        self,
        work: Work,
        *,
        license: str | None,
        overwrite_card: bool,
        describe_heads: bool,
        top_images: int | None,
    ) -> None:
        super().__init__(work)
        self._license, self._overwrite_card = license, overwrite_card
        shares = self.num_processes if isinstance(work.data, StreamData) else None
        self._describes = describe_heads
        self._settings = {
            **identity(work.plan, work.described, self.weight_sample, work.data, work.image_processor, shares),
            "description of heads": describe_heads,
            "number of top images": top_images,
        }
        shape = (work.described["num_layers"], work.described["num_heads"])
        self._part = Part(
            settings=self._settings,
            moments=Moments.empty(len(work.described["labels"]) * len(OUTCOMES), (len(KEYS), *shape)),
            top_images=None if top_images is None else empty_top_images(top_images, *shape),
        )
        self._earlier: list[Part] = []  # of calls with other processes; read here, and never written
        self._file: Path | None = None
        # Where a tolerance is to be reached: after how many batches to look next, and whether it is reached.
        self._check_at = None if work.plan.until_stable is None else _STABLE_EVERY
        self._is_stable = False

    def open_folder(self, output: Output) -> Set[int]:
        assert output.folder is not None
        own_name = f"rank-{self.rank:05d}.safetensors"
        kind = Kind(
            noun=self.noun,
            pattern="rank-*.safetensors",
            load=Part.load,
            check_others=partial(check_no_others, OUT, with_page=True),
            check_finished=partial(_check_unfinished, settings=self._described_survey()),
        )
        parts = open_folder(output, kind, self._settings, self.work.accelerator, own_name)
        # The processes agreed last on the largest number of batches that any part tells of.
        checked = max(gather([part.checked for part in parts.values()] or [0]))
        done = {number for part in parts.values() for number in part.done}
        self._file = output.folder / CHECKPOINTS / own_name
        self._part = parts.pop(own_name, self._part)
        self._part.checked = checked
        self._earlier = list(parts.values())
        if self._check_at is not None:
            self._check_at = checked + _STABLE_EVERY
        return done

    def take(self, batch: Batch) -> None:
        """Explain a batch and add its scores to this process's part."""
        part, plan, device = self._part, self.work.plan, self.work.accelerator.device
        explain = partial(explain_batch, self.work.model, target=plan.target, device=device, describe=self._describes)
        found, batch = without_unusable(batch, explain)
        self.unchanged_model.check()
        counts = {name: part.counts[name] + count for name, count in found.counts.items()}
        unreadable = (part.unreadable + batch.unreadable)[:_NAMED_UNREADABLE]
        plan.check_readable(counts["num_unreadable"], self.work.num_images, "so far", unreadable)
        means, traits = merge_all([part.means, *found.means]), merge_all([part.traits, *found.traits])
        top_images = part.top_images
        if top_images is not None and found.values:
            contribution = torch.cat(found.values)[:, KEYS.index("contribution")]
            top_images = add_images(top_images, found.images, found.classes, contribution)
        # All of it is known: what is kept changes from here on, and is at no time the half of a batch.
        if found.values:
            part.moments.add(torch.cat(found.values), torch.tensor(found.groups))
        part.means, part.traits, part.top_images = means, traits, top_images
        part.counts, part.unreadable = counts, unreadable
        part.done.add(batch.number)

    def save(self) -> None:
        if self._file is not None:
            with suppress(OSError):  # which saving then tells of
                self._file.parent.mkdir(parents=True, exist_ok=True)  # one that failed clears it away while empty
            self._part.save(self._file)

    def is_enough_before(self, batch_number: int) -> bool:
        while self._check_at is not None and batch_number >= self._check_at:
            if self._agree_to_stop(at_end=False):
                return True
        return False

    def settle(self) -> None:
        while self._check_at is not None and not self._is_stable and not self._agree_to_stop(at_end=True):
            pass

    def _agree_to_stop(self, *, at_end: bool) -> bool:
        """Tell whether all processes stop: the means are stable after so many batches, or nobody has any left."""
        assert self._check_at is not None
        tolerance = self.work.plan.until_stable
        assert tolerance is not None
        pooled = self._moments().pool(torch.arange(len(self._part.moments.count)))
        summary = summarize(total_moments(self.work.accelerator, pooled))
        # Of all heads that there are; without explanations all is NaN, and nothing stable.
        there = ~summary.mean[RANKED_BY].isnan() | (summary.num_explanations == 0)
        error, mean = summary.standard_error[RANKED_BY][there].max(), summary.mean[RANKED_BY][there].max()
        self._is_stable = bool(error < tolerance * mean)  # not with less than two explanations: infinite, or NaN
        if self._is_stable:
            return True
        self._part.checked = self._check_at  # a call that goes on from a stable state stops again at once
        self._check_at += _STABLE_EVERY
        return all(gather([at_end]))

    def _moments(self) -> Moments:
        """Merge the moments that this process answers for."""
        moments = self._part.moments
        for part in self._earlier:
            moments = moments.merge(part.moments)
        return moments

    def collect(self) -> HeadImportanceReport:
        """Return the report on all processes' images.

        Raises:
            ArgumentError: If too many images were unreadable, or none was explained.
        """
        parts = [self._part, *self._earlier]
        counts: dict[str, int] = dict.fromkeys(COUNTS, 0)
        for of_part in gather([part.counts for part in parts]):
            for name, count in of_part.items():
                counts[name] += count
        unreadable = gather([entry for part in parts for entry in part.unreadable])
        unreadable = sorted(unreadable, key=lambda entry: entry["image"])[:_NAMED_UNREADABLE]
        num_seen = counts["num_images"] + counts["num_unreadable"]
        if self.work.plan.target == "label":
            num_seen += counts["num_unlabelled"]
        self.work.plan.check_readable(counts["num_unreadable"], num_seen, "in all", unreadable)
        if not counts["num_images"]:
            raise ArgumentError("`dataset` (`--data`) must hold at least one image to explain; got none.")
        moments = total_moments(self.work.accelerator, self._moments())
        means = merge_all(gather([part.means for part in parts]))
        traits = merge_all(gather([part.traits for part in parts]))
        top_images = merge_top_images(gather([part.top_images for part in parts]))
        settings = {
            **self._described_survey(),
            "counts": {**counts, "num_explanations": int(moments.count.sum())},
            "unreadable": unreadable,
            "stability": self._stability(counts["num_images"]),
            "license": self._license,
            "versions": {**versions(), "accelerate": accelerate.__version__},
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            **({} if top_images is None else {"top_images": top_images}),
            "reading_of_labels": self.work.data.label_reading or None,
            "image_processor": processor_digest(self.work.image_processor),
            "image_processing": image_processing(self.work.image_processor),
        }
        return HeadImportanceReport(moments, self.weight_sample, settings, means, traits)

    def write(self, report: HeadImportanceReport, folder: Path) -> None:
        report.save_pretrained(folder, overwrite_card=self._overwrite_card)
        report.write_page(folder / PAGE_FILE)  # while there are checkpoints: whoever kills it now may go on
        for name in _REPORT_FILES:
            remove_leftovers(folder / name)

    def _stability(self, num_images: int) -> dict[str, Any] | None:
        tolerance = self.work.plan.until_stable
        if tolerance is None:
            return None
        return {"tolerance": tolerance, "reached": self._is_stable, "num_images": num_images}

    def _described_survey(self) -> dict[str, Any]:
        """Return what the report says of how it was made."""
        parts = self.work.plan.described_parts()
        return {
            "model": self.work.described,
            "datasets": [self.work.data.identity | ({} if parts is None else {"parts": parts})],
            "target": self.work.plan.target,
            "survey": self.work.plan.recorded(),
        }


def _check_unfinished(folder: Path, has_checkpoints: bool, settings: dict[str, Any]) -> None:
    """Refuse a finished report, but not where the same survey was stopped before it deleted its checkpoints."""
    if has_checkpoints and (folder / SETTINGS_FILE).exists():
        before = HeadImportanceReport.from_pretrained(folder).settings
        if all(before[name] == value for name, value in settings.items()):
            return
    check_no_report(folder)
