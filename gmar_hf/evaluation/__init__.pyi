from .evaluating import evaluate
from .maps.map_lookup import find_map_methods
from .maps.map_registry import DEFAULT_METHODS, MAP_METHODS, register_map_method
from .maps.method import MapMethod
from .mosaic_making import make_mosaics
from .results import Evaluation
from .rows_and_columns import Metric, Row
from .verdict import Verdict

__all__ = [
    "DEFAULT_METHODS",
    "MAP_METHODS",
    "Evaluation",
    "MapMethod",
    "Metric",
    "Row",
    "Verdict",
    "evaluate",
    "find_map_methods",
    "make_mosaics",
    "register_map_method",
]
