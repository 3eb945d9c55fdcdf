"""One figure of an image and its explanations."""

from collections.abc import Sequence
from textwrap import shorten
from typing import Any

from PIL import Image

from gmar_hf.errors import ArgumentError
from gmar_hf.images.reading import read_image
from gmar_hf.plotting.heads import plot_head_importance
from gmar_hf.plotting.overlays import overlay
from gmar_hf.plotting.values import plain


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
    image = read_image(image)
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
    figure.suptitle(plain(title), fontsize="medium")
    return figure


def _name(result: dict) -> str:
    """Say what was explained, short enough to stand over a picture."""
    labels = [shorten(result[key], 40, placeholder=" ...") for key in ("label", "versus") if key in result]
    return plain(", not ".join(labels))
