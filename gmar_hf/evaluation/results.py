"""What an evaluation found: a figure for every explained class of an image, method and metric."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch

from gmar_hf.errors import ArgumentError
from gmar_hf.evaluation.bootstrap import Bootstrap
from gmar_hf.evaluation.file_checks import check_evaluation
from gmar_hf.evaluation.judging import judge
from gmar_hf.evaluation.rows_and_columns import Metric, Row
from gmar_hf.evaluation.verdict import Verdict
from gmar_hf.utils.artifacts import ArtifactFormat
from gmar_hf.utils.plain_json import plain_copy

RESULTS = "results.json"
ROWS = "rows.safetensors"
FORMAT = ArtifactFormat(
    "gmar_hf.evaluation",
    2,
    f"an evaluation ({ROWS}, or the folder with it)",
    "Check the path, or make it again with `gmar-hf evaluate`.",
)
REFERENCES = ("rollout", "gmar-l1")  # what every method is compared with, image by image
# What must be the same for figures of two evaluations to stand side by side; "other" fillings depend on the batches.
_COMMON = ("model", "target", "baselines", "num_steps", "blur_sigma", "function", "batch_size")


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation:
    """Figures of several maps on the same images.

    Args:
        settings (`dict`): How they were measured; plain JSON.
        methods (`list[dict]`): In the order of the tables: `name`, `forwards` (for one class of one image, a backward
            counts as one; None if not known), `baseline` (what the map was made with, or None), `milliseconds` (of
            this machine, for one class of one image), `about` (what it shows, in words), `is_control` (whether it is
            there to be compared with only).
        metrics (`list` of [`Metric`]): The columns.
        rows (`list` of [`Row`]): What was explained.
        values (`np.ndarray` of shape (rows, methods, metrics)): float64; NaN where there is no figure, as without a
            mask.
        curves (`dict[str, np.ndarray]`): By metric key, of "insertion" and "deletion", mean scores (methods, points);
            and "shares" (points,) of patches shown or hidden.
    """

    settings: dict[str, Any]
    methods: list[dict[str, Any]]
    metrics: list[Metric]
    rows: list[Row]
    values: np.ndarray
    curves: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        expected = (len(self.rows), len(self.methods), len(self.metrics))
        if self.values.shape != expected:
            raise ArgumentError(
                f"`values` must be of shape (rows, methods, metrics), {expected}; got {self.values.shape}."
            )

    def __repr__(self) -> str:
        methods = ", ".join(method["name"] for method in self.methods)
        columns = ", ".join(metric.key for metric in self.metrics)
        return f"Evaluation({self.num_images} images, {len(self.rows)} rows; methods: {methods}; metrics: {columns})"

    @property
    def num_images(self) -> int:
        return len({row.index for row in self.rows})

    @classmethod
    def join(cls, parts: Sequence["Evaluation"]) -> "Evaluation":
        """Put evaluations of different maps on the same rows side by side.

        Args:
            parts (`Sequence` of [`Evaluation`]): One at least, of the same metrics in the same order, made alike.

        Returns:
            [`Evaluation`]: All their methods, in the order of the parts; settings and rows are the first part's,
                curves are those that all parts have.

        Raises:
            ArgumentError: If there is no part, a map is in two of them, or they differ in rows, metrics or in how
                they were measured.
        """
        if not parts:
            raise ArgumentError("`parts` must hold at least one evaluation; got none.")
        first = parts[0]
        for part in parts[1:]:
            _check_alike(first, part)
        methods = [method for part in parts for method in part.methods]
        names = [method["name"] for method in methods]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ArgumentError(f"`parts` must be of different maps; got {twice!r} twice. Leave one out.")
        # All curves have their points at the first part's shares, which depend on the number of steps alone.
        common = [name for name in first.curves if all(name in part.curves for part in parts)]
        curves = {name: np.concatenate([part.curves[name] for part in parts]) for name in common if name != "shares"}
        if curves:
            curves["shares"] = first.curves["shares"]
        return cls(
            settings=first.settings,
            methods=methods,
            metrics=first.metrics,
            rows=first.rows,
            values=np.concatenate([part.values for part in parts], axis=1),
            curves=curves,
        )

    def of(self, method: str, metric: str) -> np.ndarray:
        """One method's figures (rows,) in one metric.

        Raises:
            ArgumentError: If there is no such method or metric; the message lists those there are.
        """
        return self.values[:, self._place("method", method), self._place("metric", metric)]

    def subset(self, rows: Iterable[bool]) -> "Evaluation":
        """The same of some rows only; without the curves, which are means over all of them.

        Args:
            rows (`Iterable[bool]`): One a row.

        Raises:
            ArgumentError: If there is not one a row.
        """
        kept = np.fromiter(rows, dtype=bool)
        if len(kept) != len(self.rows):
            raise ArgumentError(f"`rows` must hold one bool for each of the {len(self.rows)} rows; got {len(kept)}.")
        chosen = [row for row, keep in zip(self.rows, kept, strict=True) if keep]
        return Evaluation(
            settings=self.settings,
            methods=self.methods,
            metrics=self.metrics,
            rows=chosen,
            values=self.values[kept],
        )

    def summary(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Means with intervals, and the differences to rollout and to GMAR on the same images.

        Returns:
            `dict`: By method and metric key: "mean", "low", "high", "num_rows", and "minus_rollout" and
                "minus_gmar-l1" with the same keys, where these were measured too; as [`Bootstrap.interval`] makes
                them.
        """
        bootstrap = Bootstrap([row.index for row in self.rows])
        names = [method["name"] for method in self.methods]
        summary: dict[str, dict[str, dict[str, Any]]] = {}
        for number, name in enumerate(names):
            summary[name] = {}
            for place, metric in enumerate(self.metrics):
                figures_of_rows = self.values[:, number, place]
                figures: dict[str, Any] = bootstrap.interval(figures_of_rows)
                for reference in REFERENCES:
                    if reference in names and reference != name:
                        reference_figures = self.values[:, names.index(reference), place]
                        figures[f"minus_{reference}"] = bootstrap.interval(figures_of_rows - reference_figures)
                summary[name][metric.key] = figures
        return summary

    def verdict(self) -> Verdict:
        """Say which map to believe on this model and these data.

        It is the one with the highest insertion minus deletion (of the logit, where that was measured), as a mean over
        all fillings. On mosaics for which that was not measured, the grid pointing game decides. Controls are never
        chosen. A map that is itself made with one of the fillings is not judged under that one: it is chosen only if
        it is ahead, under the others, of every map that is made with none. Two maps are compared image by image, under
        the fillings that neither is made with.

        Returns:
            [`Verdict`]: By how much, with intervals, where it loses, how many more images would settle what is open,
                and which maps are at chance for the class; `print(evaluation.verdict().text)`. It says so where it
                cannot tell, as with fewer than eight images.
        """
        return judge(self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write every figure to a safetensors file.

        Raises:
            ArgumentError: If it cannot be written, or [`load`] would refuse what was put together by hand.
            ArgumentTypeError: If `path` is no path.
        """
        content = {
            "settings": self.settings,
            "methods": self.methods,
            "metrics": [asdict(metric) for metric in self.metrics],
            "rows": [asdict(row) for row in self.rows],
        }
        arrays = {"values": self.values, **{f"curves.{name}": curve for name, curve in self.curves.items()}}
        check_evaluation(plain_copy("content", content), arrays)
        FORMAT.write(
            path, content, {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
        )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Evaluation":
        """Read what [`save`] wrote.

        Args:
            path (`str` or `os.PathLike`): rows.safetensors, or the `output_dir` of [`evaluate`] that it lies in.

        Raises:
            ArtifactError: If it is missing, corrupt, of another version, or its figures are not as it says.
        """
        if isinstance(path, str | os.PathLike) and os.path.isdir(path):
            path = os.path.join(path, ROWS)
        with FORMAT.reading(path) as artifact:
            content = artifact.content
            arrays = {name: tensor.numpy() for name, tensor in artifact.tensors.items()}
            check_evaluation(content, arrays)
            return cls(
                settings=content["settings"],
                methods=content["methods"],
                metrics=[Metric(**metric) for metric in content["metrics"]],
                rows=[Row(**row) for row in content["rows"]],
                values=arrays.pop("values"),
                curves={name.removeprefix("curves."): curve for name, curve in arrays.items()},
            )

    def _place(self, what: str, name: str) -> int:
        if what == "method":
            known = [method["name"] for method in self.methods]
        else:
            known = [metric.key for metric in self.metrics]
        if name not in known:
            raise ArgumentError(f"`{what}` must be one of {', '.join(known)}; got {name!r}.")
        return known.index(name)


def _check_alike(first: Evaluation, part: Evaluation) -> None:
    """Refuse to put figures side by side that were not measured alike."""
    differences = {
        "metrics": part.metrics != first.metrics,
        "rows (images and their explained classes)": (
            [(row.index, row.image, row.target) for row in part.rows]
            != [(row.index, row.image, row.target) for row in first.rows]
        ),
        **{f"settings ({name})": part.settings.get(name) != first.settings.get(name) for name in _COMMON},
    }
    what = next((name for name, differs in differences.items() if differs), None)
    if what is not None:
        raise ArgumentError(f"`parts` must have the same {what}; they differ. Measure them alike, or apart.")
