"""The maps that can be measured."""

from gmar_hf.evaluation.maps.method import MapMethod
from gmar_hf.evaluation.maps.registry import DEFAULT_METHODS, MAP_METHODS, find_map_methods, register_map_method

__all__ = ["DEFAULT_METHODS", "MAP_METHODS", "MapMethod", "find_map_methods", "register_map_method"]
