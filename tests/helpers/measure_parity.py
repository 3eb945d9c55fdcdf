"""Print the engine's largest errors, family by family: `python -m tests.helpers.measure_parity`.

Each is `max|a - b| / max|b|` of a tensor, worst over both GMAR norms, the other four methods and two images: float32
by the engine against the oracle in float64, with explicit attention and plain autograd. ViT-B/16 has random weights;
timm's families come where it is installed.
"""

import copy

from transformers import ViTConfig, ViTForImageClassification
from transformers.utils import is_timm_available

from gmar_hf.explanation.parity import check_parity
from tests.explanation.test_engine_parity import (
    METHODS,
    TARGETS,
    Case,
    expected_fields,
    explain,
    make_case,
    relative_error,
)
from tests.helpers import timm_zoo, zoo


def make_timm_case(name: str) -> Case:
    """The same for a family of timm."""
    model = timm_zoo.make(name)
    images = timm_zoo.pixel_values(model)
    return Case(name, model, images, timm_zoo.explicit_reference(model, images, TARGETS))


def family_errors(case: Case) -> dict[str, float]:
    """The worst error of every field of an explanation over all methods."""
    worst: dict[str, float] = {}
    for method in METHODS:
        actual = explain(case, method, return_head_maps=True)
        for field, expected in expected_fields(case.references, method).items():
            if expected is not None:
                worst[field] = max(worst.get(field, 0.0), relative_error(getattr(actual, field), expected))
    return worst


def vit_errors(**settings: int) -> dict[str, float]:
    """The same for a ViT, by default B/16, of random weights against explicit attention in float64."""
    config = ViTConfig(**{"num_labels": 1000, **settings})
    model = zoo.build(ViTForImageClassification, config, std=0.02)
    pixel_values = zoo.pixel_values(model)
    return check_parity(model, pixel_values, copy.deepcopy(model).double()).errors


def main() -> None:
    lines = []
    cases = [(name, make_case) for name in sorted(zoo.MODELS)]
    if is_timm_available():
        cases += [(name, make_timm_case) for name in sorted(timm_zoo.MODELS)]
    for name, make in cases:
        errors = family_errors(make(name))
        fields = list(errors)
        label = f"timm {name}" if make is make_timm_case else name
        lines.append(f"{label:24}" + " ".join(f"{errors[field]:19.1e}" for field in fields))
    print(" " * 24 + " ".join(f"{field:>19}" for field in fields))  # noqa: T201
    print("\n".join(lines))  # noqa: T201
    print("ViT-B/16", ", ".join(f"{name} {error:.1e}" for name, error in vit_errors().items()))  # noqa: T201


if __name__ == "__main__":
    main()
