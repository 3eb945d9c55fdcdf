"""What each figure asks, in words for whoever reads a table."""

from collections.abc import Mapping

FIGURES: Mapping[str, str] = {
    "insertion": (
        "area under the class's score while patches appear on a filled image, the most important first; it also tells "
        "how sure the model is"
    ),
    "deletion": "area under the class's score while patches are hidden, the most important first; it tells that, too",
    "insertion_minus_deletion": "the one area minus the other; about 0 for a map that says nothing",
    "positive_perturbation": (
        "how often the predicted class stands while 10 to 90 % of the patches are hidden, the most important first"
    ),
    "negative_perturbation": (
        "how often the predicted class stands while 10 to 90 % of the patches are hidden, the least important first"
    ),
    "saco": "whether patches with more of the map, hidden by themselves, take more of the score, in [-1, 1]",
    "average_drop": "share of the score that is lost when only what the map marks is left",
    "average_increase": "how often the score is higher when only what the map marks is left",
    "average_gain": "share of what the score lacked that is won when only what the map marks is left",
    "pointing_game": "how often the map's maximum is on the object",
    "energy_pointing_game": "share of the map's positive mass that is on the object",
    "energy_on_other": "share of the map's positive mass that is on the other class's object",
    "pixel_average_precision": "average precision of the map as a detector of the object's pixels",
    "iou": "overlap of the object with the patches above the map's mean: intersection over union",
    "class_sensitivity": (
        "Pearson's correlation of the map with that for the image's best other label, or without labels the best "
        "other class. Near 1 the map is the same whatever is asked; a random map has about 0, so a low figure alone "
        "is no merit"
    ),
    "sparseness": "Gini index: 0 where all patches are alike, near 1 where few have all; neither end is better",
}
"""By the metric's function."""
