"""A figure that shows itself. This module loads matplotlib: functions import it when they draw."""

import io

from matplotlib.figure import Figure


class ShownFigure(Figure):
    """A figure of matplotlib's that Jupyter shows as a picture where it is a cell's last value, without pyplot."""

    def _repr_png_(self) -> bytes:
        picture = io.BytesIO()
        # By default matplotlib writes its version into the file.
        self.savefig(picture, format="png", dpi=100, metadata={"Software": None})
        return picture.getvalue()


def new_figure(width: float, height: float) -> ShownFigure:
    """Return an empty figure whose parts make room for each other.

    Args:
        width, height (`float`): In inches.
    """
    return ShownFigure(figsize=(width, height), layout="constrained")
