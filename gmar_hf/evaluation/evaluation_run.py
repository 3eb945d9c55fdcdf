"""An evaluation in one process, and what becomes of all of it."""

import time
from collections.abc import Mapping, Set
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import accelerate
import numpy as np

from gmar_hf.data.sample import MapData
from gmar_hf.errors import ArgumentError
from gmar_hf.evaluation.batch import Questions, measure_batch
from gmar_hf.evaluation.costs import describe_cost, forwards_of_class
from gmar_hf.evaluation.evaluation_checkpoint import COUNTS, Measured, joined_curves
from gmar_hf.evaluation.maps.map_registry import BUILT_IN
from gmar_hf.evaluation.maps.method import MapMethod
from gmar_hf.evaluation.output.page import PAGE_FILE, PAGE_NOUN, write_page
from gmar_hf.evaluation.output.pictures import draw_pictures
from gmar_hf.evaluation.output.tables import IMAGE_TABLE, SUMMARY_TABLE, write_results
from gmar_hf.evaluation.results import RESULTS, ROWS, Evaluation
from gmar_hf.evaluation.verdict import LEAST_IMAGES
from gmar_hf.explanation.engine import versions
from gmar_hf.runs.batches import Batch
from gmar_hf.runs.identity import identity, image_processing
from gmar_hf.runs.processes import RunInterrupted, gather
from gmar_hf.runs.progress import duration
from gmar_hf.runs.run import Run
from gmar_hf.runs.run_folder import CHECKPOINTS, OUT, Kind, Output, open_folder
from gmar_hf.runs.unusable import without_unusable
from gmar_hf.runs.work import Work
from gmar_hf.utils.files import remove_leftovers
from gmar_hf.utils.own_files import check_replaceable
from gmar_hf.utils.text import quantity

_FILES = (PAGE_FILE, ROWS, SUMMARY_TABLE, IMAGE_TABLE, RESULTS)
_LONG = 600  # seconds after which people ask how to have it sooner
_SAVE_EVERY = 30.0  # seconds, within a batch


class EvaluationRun(Run[Evaluation]):
    """An evaluation of maps of a model.

    Args:
        work ([`Work`]): Model, data, plan and processes.
        questions ([`Questions`]): What is asked of every batch.
    """

    noun = "evaluation"

    def __init__(self, work: Work, questions: Questions) -> None:
        super().__init__(work)
        self._questions = questions
        self._parts: list[Measured] = []  # the batches that this process answers for
        self._num_saved = 0
        self._has_told = False  # how long it will take
        self._saved_at = 0.0  # when anything of the batch in hand was saved, or it was begun
        self._settings: Mapping[str, Any] = {
            **identity(work.plan, work.described, self.weight_sample, work.data, work.image_processor, None),
            "methods": [_known_as(method) for method in questions.methods],
            "metrics": [column.key for column in questions.columns],
            "baselines": list(questions.baselines),
            "steps": questions.num_steps,
            "blur sigma": questions.blur_sigma,
            "score": questions.function,
            "masks": self._masks,
            "mosaics": questions.mosaic_side,
        }

    @property
    def _masks(self) -> str | None:
        """What tells other masks from these; None without any."""
        assert isinstance(self.work.data, MapData)
        return self.work.data.masks_fingerprint if self.work.data.has_masks else None

    def open_folder(self, output: Output) -> Set[int]:
        kind = Kind(
            noun=self.noun,
            pattern="batch-*.safetensors",
            load=Measured.load,
            check_others=partial(check_replaceable, OUT, names=_FILES, noun=PAGE_NOUN),
            check_finished=_check_unfinished,
        )
        parts = open_folder(output, kind, self._settings, self.work.accelerator, own_name="")
        self._parts = [part for part in parts.values() if part.is_whole]
        self._num_saved = len(self._parts)
        return {part.number for part in self._parts}

    def describe_cost(self, batch: Batch) -> str | None:
        num_patches = self._num_patches(batch)
        if num_patches is None:
            return None
        cost = describe_cost(
            self._questions.methods,
            self._questions.columns,
            num_steps=self._questions.num_steps,
            num_patches=num_patches,
            num_images=self._num_left(),
            explains_labels=self._questions.explains_labels,
        )
        assert self.work.num_images is not None  # streams are refused
        if self.work.num_images >= LEAST_IMAGES:
            return cost
        return f"{cost} So few images give figures and no verdict: it takes {LEAST_IMAGES} at least."

    def _num_patches(self, batch: Batch) -> int | None:
        """Count an image's patches; None where nothing could be read, or the model does not say how large they are."""
        if batch.pixel_values is None or self._questions.patch_size is None:
            return None
        (height, width), (patch_height, patch_width) = batch.pixel_values.shape[-2:], self._questions.patch_size
        return (height // patch_height) * (width // patch_width)

    def _num_left(self) -> int:
        """Count the images that this call has to do."""
        assert self.work.num_images is not None  # streams are refused
        return self.work.num_images - self._num_done()

    def _tell_time(self, batch: Batch, seconds: float) -> None:
        """Say, once, how long all of it will take if every forward is as long as the first one.

        Args:
            batch ([`Batch`]): The first.
            seconds (`float`): For one forward of an image, once for each of its classes.
        """
        num_patches = self._num_patches(batch)
        if self._has_told or num_patches is None:
            return
        questions, self._has_told = self._questions, True
        forwards = forwards_of_class(
            questions.methods, questions.columns, num_steps=questions.num_steps, num_patches=num_patches
        )
        needed = seconds * sum(forwards) * self._num_left() / self.num_processes
        if (about := duration(needed)) is not None:
            self.say(f"At the speed of the first forward that will take about {about}.")
            if needed >= _LONG:
                self.say("Fewer `methods`, `metrics`, `num_steps`, `baselines` or images (`limit`) take less.")

    def take(self, batch: Batch) -> None:
        """Measure a batch, from the method on at which an earlier call has stopped in it."""
        begun = None
        if self.folder is not None and (path := self._checkpoint(batch.number)).is_file():
            begun = Measured.load(path)
        self._saved_at = time.monotonic()
        device = self.work.accelerator.device
        num_begun, num_maps = 0 if begun is None else len(begun.seconds), len(self._questions.methods)
        if num_begun:
            self.say(
                f"Of the next {quantity(batch.size, 'image')} {num_begun} of {num_maps} maps are measured already."
            )
        self.show(f"map {num_begun + 1} of {num_maps}")
        after_forward = partial(self._tell_time, batch)

        def work(images: Batch) -> Measured:
            return measure_batch(
                self.work.model, images, self._questions, device, begun, self._after_method, after_forward
            )

        part, _ = without_unusable(batch, work)
        self.unchanged_model.check()
        part.settings = self._settings
        unreadable = [entry for each in [*self._parts, part] for entry in each.unreadable]
        self.work.plan.check_readable(len(unreadable), self.work.num_images, "so far", unreadable)
        self._parts.append(part)

    def _after_method(self, part: Measured) -> None:
        """Show how far the batch is, save it if that is long ago, and stop in it if the user asks to."""
        part.settings = self._settings
        if part.is_whole:  # the run saves it, and stops behind it
            return
        self.show(f"map {len(part.seconds) + 1} of {len(self._questions.methods)}")
        is_due = time.monotonic() - self._saved_at >= _SAVE_EVERY
        if self.folder is not None and (is_due or self.interruption.requested):
            part.save(self._checkpoint(part.number))
            self._saved_at = time.monotonic()
        if self.interruption.requested:
            raise RunInterrupted

    def _checkpoint(self, number: int) -> Path:
        assert self.folder is not None
        return self.folder / CHECKPOINTS / f"batch-{number:08d}.safetensors"

    def save(self) -> None:
        if self.folder is None:
            return
        for part in self._parts[self._num_saved :]:
            part.save(self._checkpoint(part.number))
            self._num_saved += 1

    def collect(self) -> Evaluation:
        """Return the figures of all processes' images.

        Raises:
            ArgumentError: If too many images were unreadable, or nothing was explained.
        """
        parts = sorted(gather(self._parts), key=lambda part: part.number)
        counts: dict[str, int] = {name: sum(part.counts[name] for part in parts) for name in COUNTS}
        unreadable = [entry for part in parts for entry in part.unreadable]
        self.work.plan.check_readable(len(unreadable), self.work.num_images, "in all", unreadable)
        measured = [part for part in parts if part.rows]
        if not measured:
            raise ArgumentError("`dataset` must hold at least one image to explain; got none.")
        curves = joined_curves(measured)
        if curves:
            curves["shares"] = np.linspace(0, 1, next(iter(curves.values())).shape[1])
        return Evaluation(
            settings=self._described_evaluation(counts, unreadable),
            methods=self._described_methods(measured),
            metrics=list(self._questions.columns),
            rows=[row for part in measured for row in part.rows],
            values=np.concatenate([part.values for part in measured]),
            curves=curves,
        )

    def write(self, evaluation: Evaluation, folder: Path) -> None:
        """Write tables, figures and the page; results.json last, which tells that all is there."""
        work = self.work
        assert isinstance(work.data, MapData)
        pictures = draw_pictures(
            evaluation, work.model, work.data, work.image_processor, self._questions.methods, work.accelerator.device
        )
        summary = evaluation.summary()
        write_page(evaluation, summary, pictures, folder / PAGE_FILE)
        evaluation.save(folder / ROWS)
        write_results(evaluation, summary, folder)
        for name in _FILES:
            remove_leftovers(folder / name)

    def _described_methods(self, measured: list[Measured]) -> list[dict[str, Any]]:
        """Return what the results say of each method; its time is the median over the batches."""
        speeds = np.array([part.seconds for part in measured]) / np.array([[part.num_maps] for part in measured])
        return [
            {
                "name": method.name,
                "forwards": forwards,
                "baseline": ", ".join(method.baselines) or None,
                "milliseconds": 1000 * float(seconds),
                "about": method.about,
                "is_control": method.is_control,
            }
            for method, forwards, seconds in zip(
                self._questions.methods, measured[0].forwards, np.median(speeds, axis=0), strict=True
            )
        ]

    def _described_evaluation(self, counts: dict[str, int], unreadable: list[dict[str, str]]) -> dict[str, Any]:
        """Return what the results say of how they were made."""
        work, questions = self.work, self._questions
        return {
            "model": work.described,
            "datasets": [work.data.identity],
            "reading_of_labels": work.data.label_reading,
            "image_processing": image_processing(work.image_processor),
            "masks": self._masks,
            "mosaics": questions.mosaic_side,
            "target": work.plan.target,
            "baselines": list(questions.baselines),
            "num_steps": questions.num_steps,
            "blur_sigma": questions.blur_sigma,
            "function": questions.function,
            **{name: getattr(work.plan, name) for name in ("batch_size", "limit", "shuffle_seed")},
            "num_processes": self.num_processes,
            "counts": counts,
            "unreadable": unreadable,
            "versions": {**versions(), "accelerate": accelerate.__version__},
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
        }


def _check_unfinished(folder: Path, has_checkpoints: bool) -> None:
    """Refuse finished results, but not where an evaluation was stopped before it deleted its checkpoints."""
    if (folder / RESULTS).exists() and not has_checkpoints:
        raise ArgumentError(
            f"`output_dir` (`--out`) must not hold finished results; {str(folder)!r} does. Choose another "
            "folder, or replace them with `force=True` (`--force`)."
        )


def _known_as(method: MapMethod) -> str:
    """Return a method's name, and where it comes from if that is not here: two users' functions may share a name."""
    if method in BUILT_IN:
        return method.name
    code = method.draw if hasattr(method.draw, "__qualname__") else type(method.draw)  # an object that can be called
    return f"{method.name} ({code.__module__}.{code.__qualname__})"
