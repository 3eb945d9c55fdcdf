"""Print how far finite differences are from gradients that are right: `python -m tests.helpers.measure_gradients 4`.

The argument is the number of seeds for each family and dtype. `_TOLERANCE` of
`gmar_hf/explanation/finite_differences.py` follows from what this prints, and what Hiera has in `_BY_LAYER`.
"""

import sys

import torch

from gmar_hf.explanation import finite_differences
from tests.helpers import zoo

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
HIERA = {name: zoo.STAGED[name] for name in ("hiera", "hiera_unmerged")}


def largest_error(name: str, dtype: torch.dtype, seed: int) -> float:
    """Return the largest error of a family's gradients over the layers, at the best step of all."""
    model = {**zoo.MODELS, **HIERA}[name]()
    zoo.perturb(model, seed=seed, std=0.05)
    pixels = zoo.pixel_values(model.to(dtype), seed=seed)
    return max(finite_differences.gradient_errors(model, pixels, torch.tensor([1, 3])).values())


def main() -> None:
    finite_differences._BY_LAYER.clear()
    for dtype in DTYPES:
        finite_differences._TOLERANCE[dtype] = 0  # every step is tried
        for names in (zoo.MODELS, HIERA):
            errors = {
                (name, seed): largest_error(name, dtype, seed) for name in names for seed in range(int(sys.argv[1]))
            }
            worst = max(errors, key=errors.__getitem__)
            sys.stdout.write(f"{dtype}: at most {errors[worst]:.1e} ({worst[0]}, seed {worst[1]})\n")


if __name__ == "__main__":
    main()
