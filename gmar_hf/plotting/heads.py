"""Figures of heads: one number a head, or one map."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from gmar_hf.errors import ArgumentError
from gmar_hf.plotting.values import Array, color_scale, finite_array, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

HEAD_TITLES = {
    "head_contribution": ("what each head adds", "logits"),
    "head_importance": ("head weights", "share of the layer"),
}
"""Of what results say of heads, what stands over a figure and beside its colours."""


def plot_head_importance(
    scores: Array, *, title: str = "", label: str = "", ax: "Axes | None" = None
) -> "Figure | SubFigure":
    """Draw one number for every head, layers downwards; signed numbers in two colours around zero.

    Args:
        scores (tensor or array (layers, heads)): Head weights, norms or contributions; NaN, drawn grey, of heads that
            a layer lacks.
        title (`str`, defaults to ""): Over the axes.
        label (`str`, defaults to ""): Beside the colour bar: what the numbers are, and their unit.
        ax (`matplotlib.axes.Axes`, *optional*): Where to draw; by default a new figure, which shows itself in Jupyter.

    Returns:
        The figure, or the one that `ax` belongs to.

    Raises:
        ArgumentError: If `scores` is not of shape (layers, heads) or not finite.
    """
    from matplotlib.ticker import MaxNLocator

    from gmar_hf.plotting.shown_figure import new_figure

    values = finite_array(scores, "scores", "layers", "heads")
    ax = ax or new_figure(*head_figure_size(*values.shape)).subplots()
    norm, colours = color_scale(values)
    picture = ax.imshow(values, norm=norm, cmap=colours, aspect="equal")
    ax.set_facecolor("0.85")  # which shows where there is no head
    ax.set(xlabel="head", ylabel="layer")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(nbins=12, integer=True))
    ax.set_title(plain(title), fontsize="medium")
    ax.figure.colorbar(picture, ax=ax, label=plain(label), fraction=0.05)
    return ax.figure


def head_figure_size(layers: int, heads: int) -> tuple[float, float]:
    """Return the width and height in inches of a figure with one number for every head."""
    return 2.2 + 0.35 * max(heads, 6), 1 + 0.35 * max(layers, 4)


def plot_head_maps(
    head_maps: Array,
    *,
    title: str = "",
    label: str = "",
    layers: Sequence[int] | None = None,
    figure: "Figure | SubFigure | None" = None,
) -> "Figure | SubFigure":
    """Draw the map of every head, one row a layer, all on one scale around zero.

    Args:
        head_maps (tensor or array (layers, heads, rows, cols)): Contributions in logits; NaN, left out, of heads that
            a layer lacks.
        title (`str`, defaults to ""): Over the figure.
        label (`str`, defaults to ""): Beside the colour bar: what the numbers are, and their unit.
        layers (`Sequence[int]`, *optional*): Which layers; all by default.
        figure (`matplotlib.figure.Figure` or `SubFigure`, *optional*): Where to draw; by default a new one, which
            shows itself in Jupyter.

    Returns:
        The figure.

    Raises:
        ArgumentError: If `head_maps` is not of shape (layers, heads, rows, cols) or not finite, or there is no such
            layer.
    """
    from gmar_hf.plotting.shown_figure import new_figure

    values = finite_array(head_maps, "head_maps", "layers", "heads", "rows", "cols")
    shown = range(values.shape[0]) if layers is None else layers
    if not shown or not all(0 <= layer < values.shape[0] for layer in shown):
        raise ArgumentError(f"`layers` must name layers in [0, {values.shape[0] - 1}]; got {layers}.")
    figure = figure or new_figure(values.shape[1] + 1, len(shown) + 0.4)
    norm, colours = color_scale(values)
    grid = figure.subplots(len(shown), values.shape[1], squeeze=False)
    for axes, layer in zip(grid, shown, strict=True):
        for head, ax in enumerate(axes):
            picture = ax.imshow(values[layer, head], norm=norm, cmap=colours)
            ax.set(xticks=[], yticks=[])
            ax.set_visible(not np.isnan(values[layer, head]).all())
        axes[0].set_ylabel(f"layer {layer}", fontsize="small")
    for head, ax in enumerate(grid[0]):
        ax.set_title(f"head {head}", fontsize="small")
    figure.colorbar(picture, ax=grid, label=plain(label), aspect=40, fraction=0.03, pad=0.01)
    figure.suptitle(plain(title), fontsize="medium")
    return figure
