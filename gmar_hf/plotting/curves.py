"""Curves of scores, with the areas under them."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gmar_hf.errors import ArgumentError
from gmar_hf.plotting.values import Array, finite_array, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure


def plot_curves(
    curves: Any, *, shares: Array | None = None, title: str = "", label: str = "", ax: "Axes | None" = None
) -> "Figure | SubFigure":
    """Draw how scores fall or rise, with the area under each curve in the legend, the largest first.

    The colour and dashes of a curve are given by its place in `curves`, so that figures of the same names agree.

    Args:
        curves ([`Curve`], or `Mapping` from names to [`Curve`] or scores (points,) or (batch, points)): Of a batch the
            mean is drawn, in a band of one standard error.
        shares (tensor or array (points,), *optional*): Where scores were taken; needed unless curves bring their own.
        title (`str`, defaults to ""): Over the axes.
        label (`str`, defaults to ""): Below the axes: what the shares are of.
        ax (`matplotlib.axes.Axes`, *optional*): Where to draw; by default a new figure, which shows itself in Jupyter.

    Returns:
        The figure, or the one that `ax` belongs to.

    Raises:
        ArgumentError: If there is nothing to draw, something is not finite, or shares are missing or do not fit.
    """
    import matplotlib

    from gmar_hf.plotting.shown_figure import new_figure

    named = curves if isinstance(curves, Mapping) else {"": curves}
    if not named:
        raise ArgumentError("`curves` must hold at least one curve; got none.")
    rows = [(number, name, *_mean_curve(curve, shares)) for number, (name, curve) in enumerate(named.items())]
    ax = ax or new_figure(7, 4.5).subplots()
    colours = matplotlib.colormaps["tab10"].colors  # type: ignore[attr-defined]
    for number, name, area, places, mean, error in sorted(rows, key=lambda row: (-row[2], row[0])):
        colour, style = colours[number % 10], ("-", "--", ":", "-.")[number // 10 % 4]
        # The area first: matplotlib leaves names out of legends that begin with an underscore.
        ax.plot(places, mean, style, color=colour, label=f"{area:z.2f}  {plain(name)}".rstrip(), linewidth=1.5)
        if error.any():
            ax.fill_between(places, mean - error, mean + error, color=colour, alpha=0.15, linewidth=0)
    ax.set(xlabel=plain(label), ylabel="score")
    ax.set_title(plain(title), fontsize="medium")
    ax.legend(
        fontsize="small", loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False, title="area under the curve"
    )
    return ax.figure


def _mean_curve(curve: Any, shares: Array | None) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
    """Return the area under a curve's mean over the batch, the shares, the mean and its standard error."""
    places = getattr(curve, "shares", shares)
    if places is None:
        raise ArgumentError("`shares` must be given for curves that are plain scores; got None.")
    scores = getattr(curve, "scores", curve)
    axes = ("points",) if np.ndim(scores) == 1 else ("batch", "points")
    scores, places = np.atleast_2d(finite_array(scores, "curves", *axes)), finite_array(places, "shares", "points")
    if scores.shape[1] != len(places):
        raise ArgumentError(f"`shares` must be one a point, {scores.shape[1]}; got {len(places)}.")
    mean = scores.mean(axis=0)
    error = scores.std(axis=0, ddof=1) / np.sqrt(len(scores)) if len(scores) > 1 else np.zeros_like(mean)
    area = float(torch.trapezoid(torch.as_tensor(mean), torch.as_tensor(places)))
    return area / ((places[-1] - places[0]) or 1.0), places, mean, error
