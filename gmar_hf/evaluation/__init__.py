"""Which map to believe: maps of all kinds measured side by side on a model and data of your own."""

from .evaluating import evaluate
from .map_method import MapMethod
from .maps import DEFAULT_METHODS, MAP_METHODS, find_map_methods, register_map_method
from .results import Evaluation, Metric, Row

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
