"""Which map to believe: maps of all kinds measured side by side on a model and data of your own."""

from gmar_hf.evaluation.evaluating import evaluate
from gmar_hf.evaluation.maps.method import MapMethod
from gmar_hf.evaluation.maps.registry import DEFAULT_METHODS, MAP_METHODS, find_map_methods, register_map_method
from gmar_hf.evaluation.results import Evaluation, Metric, Row

__all__ = [
    "DEFAULT_METHODS",
    "MAP_METHODS",
    "Evaluation",
    "MapMethod",
    "Metric",
    "Row",
    "evaluate",
    "find_map_methods",
    "register_map_method",
]
