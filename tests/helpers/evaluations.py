"""Evaluations of figures that mean nothing, for the tests of what is written of them."""

import csv

import numpy as np

from gmar_hf.demo import scenes
from gmar_hf.evaluation import Evaluation, Metric, Row
from gmar_hf.evaluation.output.page import Picture

METHODS = {"contribution": (2.0, None), "masked": (9.0, "blur"), "rollout": (1.0, None), "mine": (None, None)}
METRICS = [
    Metric("insertion", "insertion", "blur", True),
    Metric("insertion_zero", "insertion", "zero", True),
    Metric("deletion", "deletion", "blur", False),
    Metric("pointing_game", "pointing_game", None, True),
    Metric("sparseness", "sparseness", None, None),
]
NASTY = "<script>alert(1)</script> \"'&\x1b[2J\u202e{{ 7 * 7 }}"
CURVES = {  # which take long to draw
    **{metric.key: np.linspace(0, place + 1, 20).reshape(4, 5) for place, metric in enumerate(METRICS[:3])},
    "shares": np.linspace(0, 1, 5),
}


def made(num_images: int = 6, model_id: str = "me/model", label: str = "cat", image: str = "item {}", **changed):
    """An evaluation of figures that mean nothing: two classes an image, masks of the first image only."""
    generator = np.random.default_rng(0)
    rows = [
        Row(image.format(number), target, label, 0.25, number % 2 == 0, number)
        for number in range(num_images)
        for target in (0, 1)
    ]
    values = generator.uniform(-1, 1, (len(rows), len(METHODS), len(METRICS)))
    values[2:, :, 3] = np.nan
    parts = dict(
        settings={
            "model": {"id": model_id},
            "datasets": [{"id": "me/data"}],
            "target": "label",
            "baselines": ["blur", "zero"],
            "num_steps": 4,
            "batch_size": 3,
            "blur_sigma": 8.0,
            "function": "sigmoid",
            "counts": {"num_images": num_images, "num_unlabelled": 0, "num_unreadable": 0},
            "versions": {"gmar_hf": "0.1"},
            "date": "2025-01-02T03:04:05+00:00",
        },
        methods=[
            {"name": name, "forwards": forwards, "baseline": baseline, "milliseconds": 1.5, "about": f"it is {name}"}
            for name, (forwards, baseline) in METHODS.items()
        ],
        metrics=METRICS,
        rows=rows,
        values=values,
    )
    return Evaluation(**{**parts, **changed})


def pictures_of(evaluation: Evaluation, count: int, figure: float = 0.5) -> list[Picture]:
    names = [method["name"] for method in evaluation.methods]
    return [
        Picture(
            scene["image"],
            row,
            {name: scene["image"].convert("L").convert("RGB") for name in names},
            dict.fromkeys(names, figure),
        )
        for scene, row in zip(scenes(count), evaluation.rows[::2], strict=False)
    ]


def read_csv(path):
    with path.open(newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))
