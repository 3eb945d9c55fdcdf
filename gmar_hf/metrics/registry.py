"""What is known of every metric."""

HIGHER_IS_BETTER: dict[str, bool | None] = {
    "insertion": True,
    "deletion": False,
    "insertion_minus_deletion": True,
    "positive_perturbation": False,
    "negative_perturbation": True,
    "average_drop": False,
    "average_increase": True,
    "average_gain": True,
    "saco": True,
    "pointing_game": True,
    "energy_pointing_game": True,
    "pixel_average_precision": True,
    "iou": True,
    "sparseness": None,
    "class_sensitivity": False,
    "energy_on_other": False,
    "head_ablation": True,
    "randomization_check": False,
}
"""Whether higher is better, by metric; None where neither end is.

Of `class_sensitivity`, `head_ablation` (for scores of heads) and `randomization_check` the correlation is meant;
"energy_on_other" is the second part of `class_sensitivity`.
"""
