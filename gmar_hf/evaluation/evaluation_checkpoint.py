"""The figures of one batch, or of the first maps of it, and the file that a stopped evaluation goes on from."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gmar_hf.evaluation.file_checks import check_checkpoint
from gmar_hf.evaluation.rows_and_columns import Row
from gmar_hf.utils.artifacts import ArtifactFormat

FORMAT = ArtifactFormat(
    "gmar_hf.evaluated_batch",
    2,
    "a checkpoint of an evaluation",
    "Delete it (its images are measured again), or start anew with `resume=False`, `--no-resume`.",
)
COUNTS = ("num_images", "num_unlabelled", "num_unreadable")


@dataclass(kw_only=True)
class Measured:
    """What a batch gave; of a batch that was stopped on its way, what the first methods gave.

    Args:
        number (`int`): Of the batch.
        rows (`list` of [`Row`]): What was explained.
        values (`np.ndarray` of shape (rows, methods, metrics)): float64.
        curves (`dict[str, np.ndarray]`): Scores (methods, points) summed over the rows, by metric key.
        curve_rows (`dict[str, int]`): How many rows are in each sum.
        seconds (`list[float]`): That each method took for `num_maps` maps.
        num_maps (`int`): Maps drawn by each method.
        forwards (`list[float | None]`): What each method's map costs.
        counts (`dict[str, int]`): Numbers of images, by the names in `COUNTS`.
        unreadable (`list[dict[str, str]]`): `image` and `reason`.
        settings (`Mapping[str, Any]`): What must be the same when it is used again; plain JSON values.
    """

    number: int
    rows: list[Row]
    values: np.ndarray
    curves: dict[str, np.ndarray] = field(default_factory=dict)
    curve_rows: dict[str, int] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    num_maps: int = 0
    forwards: list[float | None] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTS, 0))
    unreadable: list[dict[str, str]] = field(default_factory=list)
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Tells the batch from every other one."""
        return str(self.number)

    @property
    def is_whole(self) -> bool:
        """Whether all methods are done."""
        return not self.rows or len(self.seconds) == len(self.settings["methods"])

    @property
    def done(self) -> Set[int]:
        """The batch's number, alone in a set, or none where some of its methods are missing."""
        return {self.number} if self.is_whole else set()

    def save(self, path: Path) -> None:
        """Write the batch; the file is there once it is whole.

        Args:
            path (`Path`): The file.

        Raises:
            ArgumentError: If the place cannot be written.
        """
        content = {name: value for name, value in vars(self).items() if name not in ("values", "curves")}
        content |= {"rows": [asdict(row) for row in self.rows], "settings": dict(self.settings)}
        arrays = {"values": self.values, **{f"curves.{key}": curve for key, curve in self.curves.items()}}
        FORMAT.write(
            path,
            content,
            {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()},
            durable=True,
        )

    @classmethod
    def load(cls, path: Path) -> "Measured":
        """Read what [`save`] wrote.

        Raises:
            ArtifactError: If it is corrupt or of another version.
        """
        with FORMAT.reading(path) as artifact:
            arrays = {name: tensor.numpy() for name, tensor in artifact.tensors.items()}
            check_checkpoint(artifact.content, arrays)
            values = arrays.pop("values")
            curves = {name.removeprefix("curves."): curve for name, curve in arrays.items()}
            rows = [Row(**row) for row in artifact.content.pop("rows")]
            return cls(rows=rows, values=values, curves=curves, **artifact.content)


def joined_curves(parts: Sequence[Measured]) -> dict[str, np.ndarray]:
    """Mean scores (methods, points) over the rows of all batches, by metric key."""
    sums: dict[str, np.ndarray] = {}
    rows: dict[str, int] = {}
    for part in parts:
        for key, curve in part.curves.items():
            sums[key] = sums[key] + curve if key in sums else curve
            rows[key] = rows.get(key, 0) + part.curve_rows[key]
    return {key: curve / rows[key] for key, curve in sums.items()}
