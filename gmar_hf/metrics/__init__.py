"""How good an explanation is: pure functions of tensors, with one number an image.

A `score_fn` maps pixel values (M, channels, height, width) to one score a row (M,); its rows are the batch over and
over, in its order. [`score_function`] makes one of a classifier.
"""

from gmar_hf.images.baselines import baseline_pixels
from gmar_hf.metrics.confidence import average_drop, average_gain, average_increase
from gmar_hf.metrics.faithfulness import saco
from gmar_hf.metrics.head_curves import ablation_curve, random_ablation_curve
from gmar_hf.metrics.heads import HeadAblation, HeadCorrelation, head_ablation
from gmar_hf.metrics.localization import energy_pointing_game, iou, pixel_average_precision, pointing_game, sparseness
from gmar_hf.metrics.perturbation import (
    Curve,
    deletion,
    insertion,
    insertion_and_deletion,
    insertion_minus_deletion,
    negative_perturbation,
    positive_perturbation,
)
from gmar_hf.metrics.sanity import ClassSensitivity, RandomizationCheck, class_sensitivity, randomization_check
from gmar_hf.metrics.scores import score_function

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

__all__ = [
    "HIGHER_IS_BETTER",
    "ClassSensitivity",
    "Curve",
    "HeadAblation",
    "HeadCorrelation",
    "RandomizationCheck",
    "ablation_curve",
    "average_drop",
    "average_gain",
    "average_increase",
    "baseline_pixels",
    "class_sensitivity",
    "deletion",
    "energy_pointing_game",
    "head_ablation",
    "insertion",
    "insertion_and_deletion",
    "insertion_minus_deletion",
    "iou",
    "negative_perturbation",
    "pixel_average_precision",
    "pointing_game",
    "positive_perturbation",
    "random_ablation_curve",
    "randomization_check",
    "saco",
    "score_function",
    "sparseness",
]
