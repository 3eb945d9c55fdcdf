"""The results of an evaluation as JSON and CSV."""

import csv
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gmar_hf.evaluation.results import REFERENCES, RESULTS, Evaluation
from gmar_hf.utils.files import replacing

# A spreadsheet would run a text that begins so, some also after blanks or with full-width signs.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
_FIGURES = ("mean", "low", "high")
SUMMARY_TABLE, IMAGE_TABLE = "results.csv", "images.csv"


def write_results(evaluation: Evaluation, summary: dict[str, Any], folder: Path) -> None:
    """Write results.csv, images.csv and, last, results.json.

    The first has a row for each method and metric, the second for each explained class and method.

    Args:
        evaluation ([`Evaluation`]): The figures.
        summary (`dict`): The evaluation's own, which takes long to make.
        folder (`Path`): Where the files go.

    Raises:
        ArgumentError: If the folder cannot be written.
    """
    _write_csv(folder / SUMMARY_TABLE, _summary_rows(evaluation, summary))
    _write_csv(folder / IMAGE_TABLE, _image_rows(evaluation))
    content = {
        "verdict": evaluation.verdict().as_dict(),
        "model": evaluation.settings["model"]["id"],
        "num_images": evaluation.num_images,
        "num_rows": len(evaluation.rows),
        "methods": summary,
        "costs": {
            method["name"]: {name: method[name] for name in ("forwards", "milliseconds", "baseline")}
            for method in evaluation.methods
        },
        "metrics": {metric.key: asdict(metric) for metric in evaluation.metrics},
        "curves": {name: curve.tolist() for name, curve in evaluation.curves.items()},
        "settings": evaluation.settings,
    }
    with replacing(folder / RESULTS, durable=True) as temporary:
        temporary.write_text(json.dumps(content, indent=2, allow_nan=False), encoding="utf-8")


def _summary_rows(evaluation: Evaluation, summary: dict[str, Any]) -> Iterable[dict[str, Any]]:
    for method in evaluation.methods:
        for metric in evaluation.metrics:
            figures = summary[method["name"]][metric.key]
            row = {
                "method": method["name"],
                "metric": metric.key,
                "baseline": metric.baseline,
                "higher_is_better": metric.higher_is_better,
                **{name: figures[name] for name in (*_FIGURES, "num_rows")},
            }
            for reference in REFERENCES:
                difference = figures.get(f"minus_{reference}", {})
                row |= {f"minus_{reference}_{name}": difference.get(name) for name in _FIGURES}
            row |= {name: method[name] for name in ("forwards", "milliseconds")}
            yield row | {"made_with_baseline": method["baseline"]}


def _image_rows(evaluation: Evaluation) -> Iterable[dict[str, Any]]:
    keys = [metric.key for metric in evaluation.metrics]
    for row, figures in zip(evaluation.rows, evaluation.values.tolist(), strict=True):
        for method, values in zip(evaluation.methods, figures, strict=True):
            yield {
                "image": row.image,
                "label": row.label,
                "target": row.target,
                "score": row.score,
                "labels_first": row.labels_first,
                "method": method["name"],
                **dict(zip(keys, values, strict=True)),
            }


def _write_csv(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    # Names of files need not be UTF-8; what is not is spelled out. Excel knows UTF-8 by the mark before it only.
    with (
        replacing(path) as temporary,
        temporary.open("w", encoding="utf-8-sig", errors="backslashreplace", newline="") as file,
    ):
        writer: csv.DictWriter[str] | None = None
        for row in rows:
            if writer is None:
                writer = csv.DictWriter(file, fieldnames=[_cell(name) for name in row])
                writer.writeheader()
            writer.writerow({_cell(name): _cell(value) for name, value in row.items()})


def _cell(value: Any) -> Any:
    """A text that begins like a formula gets an apostrophe before it; a figure that there is not stays empty.

    Example:
        >>> _cell("=1+2"), _cell(-1.5), _cell(float("nan"))
        ("'=1+2", -1.5, '')
    """
    if isinstance(value, str):
        return "'" + value if value.lstrip(" ").startswith(_FORMULA) else value
    return "" if value is None or (isinstance(value, float) and not math.isfinite(value)) else value
