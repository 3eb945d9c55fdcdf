"""The figures of one batch, and the file that a stopped evaluation goes on from."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from gmar_hf.errors import ArtifactError
from gmar_hf.evaluation.results import Row
from gmar_hf.utils.files import replacing

FORMAT = "gmar_hf.evaluated_batch"
FORMAT_VERSION = 1
TALLIES = ("num_images", "num_unlabelled", "num_unreadable")


@dataclass
class Measured:
    """What a batch gave.

    Args:
        number (`int`): Of the batch.
        rows (`list` of [`Row`]): What was explained.
        values (`np.ndarray` of shape (rows, methods, metrics)): float64.
        curves (`dict[str, np.ndarray]`): Scores (methods, points) summed over the rows, by metric key.
        curve_rows (`dict[str, int]`): How many rows are in each sum.
        seconds (`list[float]`): That each method took for `num_maps` maps.
        num_maps (`int`): Maps drawn by each method.
        forwards (`list[float | None]`): What each method's map costs.
        tallies (`dict[str, int]`): Counts of images, by `TALLIES`.
        unreadable (`list[dict[str, str]]`): `image` and `reason`.
    """

    number: int
    rows: list[Row]
    values: np.ndarray
    curves: dict[str, np.ndarray] = field(default_factory=dict)
    curve_rows: dict[str, int] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    num_maps: int = 0
    forwards: list[float | None] = field(default_factory=list)
    tallies: dict[str, int] = field(default_factory=lambda: dict.fromkeys(TALLIES, 0))
    unreadable: list[dict[str, str]] = field(default_factory=list)

    def save(self, path: Path, settings: Mapping[str, Any]) -> None:
        """Write the batch; the file is there once it is whole.

        Args:
            path (`Path`): The file.
            settings (`Mapping[str, Any]`): What must be the same when it is used again; plain JSON values.

        Raises:
            ArgumentError: If the place cannot be written.
        """
        content = {name: value for name, value in vars(self).items() if name not in ("values", "curves", "rows")}
        content |= {"rows": [asdict(row) for row in self.rows], "settings": dict(settings)}
        metadata = {"format": FORMAT, "format_version": str(FORMAT_VERSION), "content": json.dumps(content)}
        tensors = {"values": self.values, **{f"curves.{key}": curve for key, curve in self.curves.items()}}
        with replacing(path, durable=True) as temporary:
            temporary.write_bytes(save({k: np.ascontiguousarray(v) for k, v in tensors.items()}, metadata))

    @classmethod
    def load(cls, path: Path) -> tuple["Measured", dict[str, Any]]:
        """Read what [`save`] wrote: the batch, and the settings.

        Raises:
            ArtifactError: If it is corrupt or of another version.
        """
        try:
            with safe_open(path, framework="np") as file:
                metadata = file.metadata() or {}
                if metadata.get("format") != FORMAT or metadata.get("format_version") != str(FORMAT_VERSION):
                    raise ValueError("it is of another format")
                content = json.loads(metadata["content"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
            settings = content.pop("settings")
            content["rows"] = [Row(**row) for row in content["rows"]]
            values = tensors.pop("values")
            curves = {name.removeprefix("curves."): curve for name, curve in tensors.items()}
            return cls(values=values, curves=curves, **content), settings
        except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
            raise ArtifactError(
                f"{str(path)!r} must be a checkpoint of an evaluation; it cannot be used ({error}). "
                "Delete it (its images are measured again), or start anew with `resume=False`, `--no-resume`."
            ) from error


def joined_curves(parts: Sequence[Measured]) -> dict[str, np.ndarray]:
    """Mean scores (methods, points) over the rows of all batches, by metric key."""
    sums: dict[str, np.ndarray] = {}
    rows: dict[str, int] = {}
    for part in parts:
        for key, curve in part.curves.items():
            sums[key] = sums[key] + curve if key in sums else curve
            rows[key] = rows.get(key, 0) + part.curve_rows[key]
    return {key: curve / rows[key] for key, curve in sums.items()}
