"""The figures of a head-importance report."""

import io
from typing import Any

from gmar_hf.images.own_pictures import MARK
from gmar_hf.plotting import head_figure_size, plot_head_importance
from gmar_hf.report.statistics import HeadStatistics

# By score: what stands over the figure, and beside its bar of colours.
FIGURES = {
    "contribution_abs": ("contribution_abs: mean size of contributions", "logits"),
    "contribution": ("contribution: their mean, signed", "logits"),
    "l1_weight": ("l1_weight: mean head weights", "share of the layer"),
}


def draw_figures(statistics: HeadStatistics, figure: Any = None) -> Any:
    """Draw the means of all heads, one axes a score, and return the figure.

    Args:
        statistics ([`HeadStatistics`]): The means of one explanation or more.
        figure (`matplotlib.figure.Figure` or `SubFigure`, *optional*): Where to draw; by default a new one, which
            shows itself in Jupyter.
    """
    from gmar_hf.plotting.shown_figure import new_figure

    width, height = head_figure_size(*statistics.mean["l1"].shape)
    figure = figure or new_figure(len(FIGURES) * width, height)
    for ax, (key, (title, label)) in zip(figure.subplots(1, len(FIGURES)), FIGURES.items(), strict=True):
        plot_head_importance(statistics.mean[key], title=title, label=label, ax=ax)
    return figure


def png(statistics: HeadStatistics, score: str) -> bytes:
    """Return one of the figures as a PNG, the same bytes every time.

    Args:
        statistics ([`HeadStatistics`]): The means of one explanation or more.
        score (`str`): One of `FIGURES`.
    """
    title, label = FIGURES[score]
    figure: Any = plot_head_importance(statistics.mean[score], title=title, label=label)
    picture = io.BytesIO()
    # By default matplotlib writes its version into the file.
    figure.savefig(picture, format="png", dpi=100, metadata=MARK)
    return picture.getvalue()
