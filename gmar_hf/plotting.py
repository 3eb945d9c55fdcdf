"""Figures of explanations. Every function returns what it drew and shows nothing."""

from collections.abc import Mapping, Sequence
from textwrap import shorten
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from gmar_hf.errors import ArgumentError
from gmar_hf.utils.text import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize

Array = torch.Tensor | np.ndarray


def overlay(image: Image.Image, heatmap: Image.Image, *, alpha: float = 0.7, colormap: str = "inferno") -> Image.Image:
    """Lay a heatmap over its image: the hotter a pixel, the more of the colour map covers it.

    Args:
        image (PIL image): The image as the user sees it.
        heatmap (PIL image, mode "L"): Of the same size, as the pipeline gives it.
        alpha (`float`, defaults to 0.7): Share of the colour where the heatmap is at its maximum, in [0, 1].
        colormap (`str`, defaults to "inferno"): A colour map of matplotlib.

    Returns:
        PIL image, RGB, of the image's size.

    Raises:
        ArgumentError: If the sizes differ, `alpha` is out of range, or there is no such colour map.
    """
    import matplotlib

    if image.size != heatmap.size:
        raise ArgumentError(f"`heatmap` must be of the image's size {image.size}; got {heatmap.size}.")
    if not 0 <= alpha <= 1:
        raise ArgumentError(f"`alpha` must be in [0, 1]; got {alpha}.")
    if colormap not in matplotlib.colormaps:
        raise ArgumentError(f"`colormap` must be one that matplotlib knows, such as 'viridis'; got {colormap!r}.")
    # A heatmap has 256 levels, so colours come from a table, by Pillow: large photographs stay quick, small in memory.
    levels = np.arange(256) / 255
    palette = np.rint(matplotlib.colormaps[colormap](levels)[:, :3] * 255).astype(np.uint8)
    share = np.rint(alpha * np.sqrt(levels) * 255)  # a root keeps weaker regions in sight
    heat = heatmap.convert("L")
    colours = Image.fromarray(palette[np.asarray(heat)])
    colour = image.convert("RGB")
    # The image is muted, so that the map's colours are not mistaken for its own.
    base = Image.blend(colour, image.convert("L").convert("RGB"), 0.5)
    return Image.composite(colours, base, heat.point(share.astype(int).tolist()))


def side_by_side(pictures: Mapping[str, Image.Image]) -> Image.Image:
    """Put pictures of one size into a row, each under its name.

    Args:
        pictures (`Mapping[str, PIL image]`): By name; names with letters beyond ASCII lose them.

    Returns:
        PIL image, RGB.
    """
    width, height = next(iter(pictures.values())).size
    gap = max(4, width // 50)
    font = ImageFont.load_default(size=max(10, min(width, height) // 20))
    caption = int(font.getbbox("Ag")[3]) + 4
    row = Image.new("RGB", (len(pictures) * (width + gap) - gap, height + caption), "white")
    draw = ImageDraw.Draw(row)
    for place, (name, picture) in enumerate(pictures.items()):
        left = place * (width + gap)
        draw.text((left, 1), name.encode("ascii", "ignore").decode(), fill="black", font=font)
        row.paste(picture.convert("RGB"), (left, caption))
    return row


def plot_head_importance(scores: Array, *, title: str = "", label: str = "", ax: "Axes | None" = None) -> "Axes":
    """Draw one number for every head, layers downwards; signed numbers in two colours around zero.

    Args:
        scores (tensor or array (layers, heads)): Head weights, norms or contributions.
        title (`str`, defaults to ""): Over the axes.
        label (`str`, defaults to ""): Beside the colour bar: what the numbers are, and their unit.
        ax (`matplotlib.axes.Axes`, *optional*): Where to draw; a new figure by default.

    Returns:
        `matplotlib.axes.Axes`: What was drawn on; its `.figure` can be saved.

    Raises:
        ArgumentError: If `scores` is not of shape (layers, heads) or not finite.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    values = _array(scores, "scores", "layers", "heads")
    ax = ax or Figure(figsize=head_figure_size(*values.shape), layout="constrained").subplots()
    norm, colours = _scale(values)
    picture = ax.imshow(values, norm=norm, cmap=colours, aspect="equal")
    ax.set(xlabel="head", ylabel="layer")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(nbins=12, integer=True))
    ax.set_title(_plain(title), fontsize="medium")
    ax.figure.colorbar(picture, ax=ax, label=_plain(label), fraction=0.05)
    return ax


def head_figure_size(layers: int, heads: int) -> tuple[float, float]:
    """Return the width and height in inches of a figure with one number for every head."""
    return 2.2 + 0.35 * max(heads, 6), 1 + 0.35 * max(layers, 4)


def plot_head_maps(
    head_maps: Array,
    *,
    title: str = "",
    label: str = "",
    layers: Sequence[int] | None = None,
    figure: Any = None,
) -> Any:
    """Draw the map of every head, one row a layer, all on one scale around zero.

    Args:
        head_maps (tensor or array (layers, heads, rows, cols)): Contributions in logits.
        title (`str`, defaults to ""): Over the figure.
        label (`str`, defaults to ""): Beside the colour bar: what the numbers are, and their unit.
        layers (`Sequence[int]`, *optional*): Which layers; all by default.
        figure (`matplotlib.figure.Figure` or `SubFigure`, *optional*): Where to draw; a new one by default.

    Returns:
        The figure.

    Raises:
        ArgumentError: If `head_maps` is not of shape (layers, heads, rows, cols) or not finite, or there is no such
            layer.
    """
    from matplotlib.figure import Figure

    values = _array(head_maps, "head_maps", "layers", "heads", "rows", "cols")
    shown = range(values.shape[0]) if layers is None else layers
    if not shown or not all(0 <= layer < values.shape[0] for layer in shown):
        raise ArgumentError(f"`layers` must name layers in [0, {values.shape[0] - 1}]; got {layers}.")
    figure = figure or Figure(figsize=(values.shape[1] + 1, len(shown) + 0.4), layout="constrained")
    norm, colours = _scale(values)
    grid = figure.subplots(len(shown), values.shape[1], squeeze=False)
    for axes, layer in zip(grid, shown, strict=True):
        for head, ax in enumerate(axes):
            picture = ax.imshow(values[layer, head], norm=norm, cmap=colours)
            ax.set(xticks=[], yticks=[])
        axes[0].set_ylabel(f"layer {layer}", fontsize="small")
    for head, ax in enumerate(grid[0]):
        ax.set_title(f"head {head}", fontsize="small")
    figure.colorbar(picture, ax=grid, label=_plain(label), aspect=40, fraction=0.03, pad=0.01)
    figure.suptitle(_plain(title), fontsize="medium")
    return figure


def plot_explanation(image: Image.Image, results: Sequence[dict], *, title: str = "", figure: Any = None) -> Any:
    """Draw an image beside the overlays and head figures of its explained targets, one row a target.

    Args:
        image (PIL image): The image as the user sees it.
        results (`Sequence[dict]`): What the pipeline gave for it.
        title (`str`, defaults to ""): Over the figure.
        figure (`matplotlib.figure.Figure` or `SubFigure`, *optional*): Where to draw; a new one by default.

    Returns:
        The figure.

    Raises:
        ArgumentError: If there is nothing to draw.
    """
    from matplotlib.figure import Figure

    if not results:
        raise ArgumentError("`results` must hold at least one explained target; got none.")
    figure = figure or Figure(figsize=(10, 2.8 * len(results) + 0.3), layout="constrained")
    grid = figure.subplots(len(results), 3, squeeze=False)
    for (left, middle, right), result in zip(grid, results, strict=True):
        left.imshow(image)
        left.set_title("image", fontsize="medium")
        middle.imshow(overlay(image, result["heatmap"]))
        middle.set_title(f"{_name(result)}: {result['score']:.2f}", fontsize="medium")
        for ax in (left, middle):
            ax.set(xticks=[], yticks=[])
        if result["head_contribution"] is not None:
            plot_head_importance(result["head_contribution"], title="head contributions", label="logits", ax=right)
        elif result["head_importance"] is not None:
            plot_head_importance(result["head_importance"], title="head weights", label="share of the layer", ax=right)
        else:
            right.set_axis_off()
    figure.suptitle(_plain(title), fontsize="medium")
    return figure


def plot_curves(
    curves: Any, *, shares: Array | None = None, title: str = "", label: str = "", ax: "Axes | None" = None
) -> "Axes":
    """Draw how scores fall or rise, with the area under each curve in the legend, the largest first.

    The colour and dashes of a curve are given by its place in `curves`, so that figures of the same names agree.

    Args:
        curves ([`Curve`], or `Mapping` from names to [`Curve`] or scores (points,) or (batch, points)): Of a batch the
            mean is drawn, in a band of one standard error.
        shares (tensor or array (points,), *optional*): Where scores were taken; needed unless curves bring their own.
        title (`str`, defaults to ""): Over the axes.
        label (`str`, defaults to ""): Below the axes: what the shares are of.
        ax (`matplotlib.axes.Axes`, *optional*): Where to draw; a new figure by default.

    Returns:
        `matplotlib.axes.Axes`: What was drawn on.

    Raises:
        ArgumentError: If there is nothing to draw, something is not finite, or shares are missing or do not fit.
    """
    import matplotlib
    from matplotlib.figure import Figure

    named = curves if isinstance(curves, Mapping) else {"": curves}
    if not named:
        raise ArgumentError("`curves` must hold at least one curve; got none.")
    rows = [(number, name, *_mean_curve(curve, shares)) for number, (name, curve) in enumerate(named.items())]
    ax = ax or Figure(figsize=(7, 4.5), layout="constrained").subplots()
    colours = matplotlib.colormaps["tab10"].colors  # type: ignore[attr-defined]
    for number, name, area, places, mean, error in sorted(rows, key=lambda row: (-row[2], row[0])):
        colour, style = colours[number % 10], ("-", "--", ":", "-.")[number // 10 % 4]
        # The area first: matplotlib leaves names out of legends that begin with an underscore.
        ax.plot(places, mean, style, color=colour, label=f"{area:z.2f}  {_plain(name)}".rstrip(), linewidth=1.5)
        if error.any():
            ax.fill_between(places, mean - error, mean + error, color=colour, alpha=0.15, linewidth=0)
    ax.set(xlabel=_plain(label), ylabel="score")
    ax.set_title(_plain(title), fontsize="medium")
    ax.legend(
        fontsize="x-small", loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False, title="area under the curve"
    )
    return ax


def _mean_curve(curve: Any, shares: Array | None) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
    """Return the area under a curve's mean over the batch, the shares, the mean and its standard error."""
    places = getattr(curve, "shares", shares)
    if places is None:
        raise ArgumentError("`shares` must be given for curves that are plain scores; got None.")
    scores = getattr(curve, "scores", curve)
    axes = ("points",) if np.ndim(scores) == 1 else ("batch", "points")
    scores, places = np.atleast_2d(_array(scores, "curves", *axes)), _array(places, "shares", "points")
    if scores.shape[1] != len(places):
        raise ArgumentError(f"`shares` must be one a point, {scores.shape[1]}; got {len(places)}.")
    mean = scores.mean(axis=0)
    error = scores.std(axis=0, ddof=1) / np.sqrt(len(scores)) if len(scores) > 1 else np.zeros_like(mean)
    area = float(torch.trapezoid(torch.as_tensor(mean), torch.as_tensor(places)))
    return area / ((places[-1] - places[0]) or 1.0), places, mean, error


def _array(values: Array, name: str, *axes: str) -> np.ndarray:
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().double().numpy()
    array = np.asarray(values, dtype=float)
    if array.ndim != len(axes) or not array.size:
        raise ArgumentError(
            f"`{name}` must have shape ({', '.join(axes)}); got {array.shape}. Pass what belongs to one image."
        )
    if not np.isfinite(array).all():
        raise ArgumentError(f"`{name}` must be finite; got NaN or infinity.")
    return array


def _scale(values: np.ndarray) -> "tuple[Normalize, str]":
    """Return a scale and its colours: from zero for numbers that are not negative, around zero for signed ones."""
    from matplotlib.colors import Normalize, TwoSlopeNorm

    limit = float(np.abs(values).max()) or 1.0
    if values.min() >= 0:
        return Normalize(0, limit), "inferno"
    return TwoSlopeNorm(0, -limit, limit), "RdBu_r"


def _name(result: dict) -> str:
    """Say what was explained, short enough to stand over a picture."""
    labels = [shorten(result[key], 40, placeholder=" ...") for key in ("label", "versus") if key in result]
    return _plain(", not ".join(labels))


def _plain(text: str) -> str:
    """Return text that matplotlib does not take for mathematics, without control characters, which no font has."""
    return printable(text).replace("$", r"\$")
