"""Matplotlib's figures, rendered and read."""

import matplotlib
import numpy as np
from PIL import Image

NASTY = "a$b^c$ \\alpha \x1b[2J\n_{x}"
SIGNED = np.linspace(-1, 2, 12).reshape(3, 4)


def draw(figure, tmp_path):
    """Renders a figure; matplotlib complains only then."""
    figure.savefig(tmp_path / "figure.png")
    with Image.open(tmp_path / "figure.png") as image:
        return np.asarray(image.convert("RGB"))


def texts(figure):
    return [text.get_text() for text in figure.findobj(matplotlib.text.Text) if text.get_text()]
