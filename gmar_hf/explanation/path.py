"""Where on the path from no attention to the model as it is gradients are taken, and how much each point counts."""

import numpy as np

from gmar_hf.explanation.methods import Method, Points


def path_points(method: Method, num_points: int | None) -> Points:
    """Return the scales of attention, in (0, 1], and their weights, which sum to one.

    They are the method's own where it has so many, and Gauss-Legendre's else, whose average is exact for logits that
    are polynomials of degree `2 * num_points` in the scale.

    Args:
        method ([`Method`]): The method's row.
        num_points (`int`, *optional*): How many; None for the model as it is.

    Example:
        >>> from gmar_hf.explanation.methods import METHODS
        >>> [(round(scale, 4), weight) for scale, weight in path_points(METHODS["path"], 2)]
        [(0.2113, 0.5), (0.7887, 0.5)]
        >>> [(round(scale, 4), weight) for scale, weight in path_points(METHODS["recommended"], 2)]
        [(0.3333, 0.6), (0.75, 0.4)]
    """
    if num_points is None:
        return ((1.0, 1.0),)
    if num_points == len(method.own_points):
        return method.own_points
    scales, weights = np.polynomial.legendre.leggauss(num_points)  # on [-1, 1], weights of sum 2
    pairs = zip(scales.tolist(), weights.tolist(), strict=True)
    return tuple(((1 + scale) / 2, weight / 2) for scale, weight in pairs)
