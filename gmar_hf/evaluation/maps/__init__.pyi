from .method import MapMethod
from .registry import DEFAULT_METHODS, MAP_METHODS, find_map_methods, register_map_method

__all__ = ["DEFAULT_METHODS", "MAP_METHODS", "MapMethod", "find_map_methods", "register_map_method"]
