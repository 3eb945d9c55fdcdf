from .map_registry import DEFAULT_METHODS, MAP_METHODS, find_map_methods, register_map_method
from .method import MapMethod

__all__ = ["DEFAULT_METHODS", "MAP_METHODS", "MapMethod", "find_map_methods", "register_map_method"]
