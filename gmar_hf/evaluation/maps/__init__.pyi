from .map_lookup import find_map_methods
from .map_registry import DEFAULT_METHODS, MAP_METHODS, register_map_method
from .method import MapMethod

__all__ = ["DEFAULT_METHODS", "MAP_METHODS", "MapMethod", "find_map_methods", "register_map_method"]
