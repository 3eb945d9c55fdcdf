"""One process's work in an evaluation, and what becomes of all of it."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import accelerate
import numpy as np
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn

from gmar_hf.data import MapData
from gmar_hf.errors import ArgumentError
from gmar_hf.evaluation.batch import Questions, measure_batch
from gmar_hf.evaluation.checkpoint import TALLIES, Measured, joined_curves
from gmar_hf.evaluation.folder import batch_file
from gmar_hf.evaluation.maps.method import MapMethod
from gmar_hf.evaluation.maps.registry import BUILT_IN
from gmar_hf.evaluation.output.page import write_page
from gmar_hf.evaluation.output.pictures import draw_pictures
from gmar_hf.evaluation.output.tables import write_results
from gmar_hf.evaluation.results import ROWS, Evaluation
from gmar_hf.explanation.engine import versions
from gmar_hf.models.weight_sample import weight_sample
from gmar_hf.runs.batches import map_loader
from gmar_hf.runs.identity import identity
from gmar_hf.runs.plan import Plan
from gmar_hf.runs.progress import progress


class Run:
    """One call of an evaluation, in one process.

    Args:
        model (`nn.Module`): The classifier.
        data ([`MapData`]): What is evaluated on.
        image_processor: The model's, or None.
        plan ([`Plan`]): How the data are read.
        questions ([`Questions`]): What is asked.
        described (`dict[str, Any]`): The results' entry for the model.
        accelerator (`Accelerator`): Of the processes.

    Attributes:
        parts (`list` of [`Measured`]): Batches that this process answers for.
    """

    def __init__(
        self,
        model: nn.Module,
        data: MapData,
        image_processor: Any,
        plan: Plan,
        questions: Questions,
        described: dict[str, Any],
        accelerator: Accelerator,
    ) -> None:
        self._model, self._data, self._processor, self._plan = model, data, image_processor, plan
        self._questions, self._described, self._accelerator = questions, described, accelerator
        self._order = plan.order(len(data))
        self.parts: list[Measured] = []

    @property
    def identity(self) -> Mapping[str, Any]:
        """What must be the same when the evaluation is gone on with, by the name a user knows it by."""
        asked = self._questions
        return {
            **identity(self._plan, self._described, weight_sample(self._model), self._data, self._processor, None),
            "methods": [_known_as(method) for method in asked.methods],
            "metrics": [column.key for column in asked.columns],
            "baselines": list(asked.baselines),
            "steps": asked.num_steps,
            "blur sigma": asked.blur_sigma,
            "score": asked.function,
            "masks": self._masks,
        }

    @property
    def _masks(self) -> str | None:
        """What tells other masks from these; None without any."""
        return self._data.masks_fingerprint if self._data.has_masks else None

    def go(self, folder: Path | None) -> None:
        """Measure this process's share of the batches that nobody has measured yet.

        Args:
            folder (`Path`, *optional*): Where each batch is kept as soon as it is done.
        """
        rank, num_processes = self._accelerator.process_index, self._accelerator.num_processes
        done = set(gather_object([part.number for part in self.parts]))
        numbers = [number for number in range(-(-len(self._order) // self._plan.batch_size)) if number not in done]
        numbers = numbers[rank::num_processes]
        settings = self.identity
        before = min(len(done) * self._plan.batch_size, len(self._order))
        hidden = not self._accelerator.is_main_process
        with progress(before, len(self._order), hidden=hidden, what="evaluation") as bar:
            loader = map_loader(
                self._data, self._order, numbers, self._plan.batch_size, self._processor, self._plan.num_workers
            )
            for batch in loader:
                part = measure_batch(self._model, batch, self._questions, self._accelerator.device)
                if folder is not None:
                    part.save(batch_file(folder, part.number), settings)
                self.parts.append(part)
                bar.update(min(batch.size * num_processes, len(self._order) - bar.n))
                bad = [entry for one in self.parts for entry in one.unreadable]
                self._plan.check_readable(len(bad), len(self._order), "so far", bad)

    def evaluation(self) -> Evaluation:
        """What all processes have found, in every process.

        Raises:
            ArgumentError: If too many images were unreadable, or nothing was explained.
        """
        parts = sorted(gather_object(self.parts), key=lambda part: part.number)
        counts: dict[str, int] = {name: sum(part.tallies[name] for part in parts) for name in TALLIES}
        unreadable = [entry for part in parts for entry in part.unreadable]
        self._plan.check_readable(len(unreadable), len(self._order), "in all", unreadable)
        measured = [part for part in parts if part.rows]
        if not measured:
            raise ArgumentError("`dataset` must hold at least one image to explain; got none.")
        asked = self._questions
        speeds = np.array([part.seconds for part in measured]) / np.array([[part.num_maps] for part in measured])
        methods = [
            {
                "name": method.name,
                "forwards": forwards,
                "baseline": method.baseline,
                "milliseconds": 1000 * float(milliseconds),
                "about": method.about,
            }
            for method, forwards, milliseconds in zip(
                asked.methods, measured[0].forwards, np.median(speeds, axis=0), strict=True
            )
        ]
        curves = joined_curves(measured)
        if curves:
            curves["shares"] = np.linspace(0, 1, next(iter(curves.values())).shape[1])
        return Evaluation(
            settings={
                "model": self._described,
                "datasets": [self._data.identity],
                "reading_of_labels": self._data.label_reading,
                "masks": self._masks,
                "target": self._plan.target,
                "baselines": list(asked.baselines),
                "num_steps": asked.num_steps,
                "blur_sigma": asked.blur_sigma,
                "function": asked.function,
                **{name: getattr(self._plan, name) for name in ("batch_size", "limit", "shuffle_seed")},
                "num_processes": self._accelerator.num_processes,
                "counts": counts,
                "unreadable": unreadable,
                "versions": {**versions(), "accelerate": accelerate.__version__},
                "date": datetime.now(UTC).isoformat(timespec="seconds"),
            },
            methods=methods,
            metrics=list(asked.columns),
            rows=[row for part in measured for row in part.rows],
            values=np.concatenate([part.values for part in measured]),
            curves=curves,
        )

    def write(self, evaluation: Evaluation, folder: Path) -> None:
        """Write tables, figures and the page; results.json last, which tells that all is there."""
        pictures = draw_pictures(
            evaluation,
            self._model,
            self._data,
            self._processor,
            self._questions.methods,
            self._accelerator.device,
        )
        write_page(evaluation, pictures, folder / "index.html")
        evaluation.save(folder / ROWS)
        write_results(evaluation, folder)


def _known_as(method: MapMethod) -> str:
    """A method's name, and where it comes from if that is not here: somebody's two functions may share a name."""
    if method in BUILT_IN:
        return method.name
    code = method.draw if hasattr(method.draw, "__qualname__") else type(method.draw)  # an object that can be called
    return f"{method.name} ({code.__module__}.{code.__qualname__})"
