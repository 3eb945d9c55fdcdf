from .confidence import average_drop, average_gain, average_increase
from .deletion_of_parts import SingleDeletion, part_mass, single_deletion
from .detection import pixel_average_precision, pixel_roc_auc, rank_accuracy, top_k_intersection
from .faithfulness import saco
from .fillings import Filling, PixelFilling, TokenRemoval
from .head_curves import ablation_curve, random_ablation_curve
from .heads import HeadAblation, HeadCorrelation, head_ablation
from .hiding import baseline_pixels
from .imputation import NoisyLinearImputation
from .localization import (
    energy_pointing_game,
    grid_pointing_game,
    iou,
    pointing_game,
    right_quadrant,
    sparseness,
)
from .perturbation import (
    Curve,
    deletion,
    insertion,
    insertion_and_deletion,
    insertion_minus_deletion,
    negative_perturbation,
    positive_perturbation,
)
from .registry import HIGHER_IS_BETTER
from .sanity import ClassSensitivity, RandomizationCheck, class_sensitivity, randomization_check
from .scores import score_function
from .sensitivity import max_sensitivity

__all__ = [
    "HIGHER_IS_BETTER",
    "ClassSensitivity",
    "Curve",
    "Filling",
    "HeadAblation",
    "HeadCorrelation",
    "NoisyLinearImputation",
    "PixelFilling",
    "RandomizationCheck",
    "SingleDeletion",
    "TokenRemoval",
    "ablation_curve",
    "average_drop",
    "average_gain",
    "average_increase",
    "baseline_pixels",
    "class_sensitivity",
    "deletion",
    "energy_pointing_game",
    "grid_pointing_game",
    "head_ablation",
    "insertion",
    "insertion_and_deletion",
    "insertion_minus_deletion",
    "iou",
    "max_sensitivity",
    "negative_perturbation",
    "part_mass",
    "pixel_average_precision",
    "pixel_roc_auc",
    "pointing_game",
    "positive_perturbation",
    "random_ablation_curve",
    "randomization_check",
    "rank_accuracy",
    "right_quadrant",
    "saco",
    "score_function",
    "single_deletion",
    "sparseness",
    "top_k_intersection",
]
