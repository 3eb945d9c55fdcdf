"""A figure that shows itself. This module loads matplotlib: functions import it when they draw."""

import io
from typing import Any

from matplotlib.figure import Figure
from PIL import Image

_MOST_PNG = 100_000  # bytes: who keeps a notebook keeps its pictures, and photographs are small as JPEG only


class ShownFigure(Figure):
    """A figure of matplotlib's that Jupyter shows as a picture where it is a cell's last value, without pyplot.

    As PNG, or as JPEG where the PNG is large, since there are photographs in it.
    """

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, bytes]:
        with io.BytesIO() as drawn, io.BytesIO() as smaller:
            # By default matplotlib writes its version into the file.
            self.savefig(drawn, format="png", dpi=100, metadata={"Software": None})
            if drawn.tell() <= _MOST_PNG:
                return {"image/png": drawn.getvalue()}
            with Image.open(drawn) as picture:
                picture.convert("RGB").save(smaller, "JPEG", quality=85, subsampling=0)
            return {"image/jpeg": smaller.getvalue()}


def new_figure(width: float, height: float) -> ShownFigure:
    """Return an empty figure whose parts make room for each other.

    Args:
        width, height (`float`): In inches.
    """
    return ShownFigure(figsize=(width, height), layout="constrained")
