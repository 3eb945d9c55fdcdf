from .captions import side_by_side
from .curves import plot_curves
from .explanations import plot_explanation
from .heads import head_figure_size, plot_head_importance, plot_head_maps
from .map_layers import map_layer
from .overlays import overlay

__all__ = [
    "head_figure_size",
    "map_layer",
    "overlay",
    "plot_curves",
    "plot_explanation",
    "plot_head_importance",
    "plot_head_maps",
    "side_by_side",
]
