"""The colours of maps: what speaks for a label, what against it, where a model looks, and lines around the strong."""

import numpy as np

from gmar_hf.errors import ArgumentError
from gmar_hf.utils.checks import check_choice, check_share

OVERLAY_STYLES = ("positive", "signed")

# From weak to strong, in sRGB. The colour-blind tell orange from blue; stronger is darker on white, lighter on black.
_FOR = ((252, 163, 17), (208, 52, 10))
_AGAINST = ((92, 156, 232), (16, 66, 160))
_LOOKS = ((214, 120, 200), (150, 0, 130))  # of maps without a sign, which say neither
_STRIPE = (240, 246, 255)  # through what speaks against, which looks different in grey, too
ZERO = 127  # the middle one of 255 levels


def colour_words(style: str, has_sign: bool, sides: tuple[str, str] = ("for", "against")) -> list[str]:
    """Say what each colour of a map means.

    Args:
        style, sides: See [`overlay`].
        has_sign (`bool`): See [`has_sign`].

    Example:
        >>> colour_words("signed", True), colour_words("positive", True), colour_words("signed", False)
        (['red: for', 'blue stripes: against'], ['red: for'], ['magenta: looks here'])
    """
    if not has_sign:
        return ["magenta: looks here"]
    return [f"red: {sides[0]}", *([f"blue stripes: {sides[1]}"] if style == "signed" else [])]


def palettes_of(style: str, alpha: float, colormap: str | None, has_sign: bool = True) -> np.ndarray:
    """Return two tables of RGBA (2, 255, 4), uint8: the colours of levels from -1 to 1, and those of the stripes."""
    import matplotlib

    check_choice("style", style, OVERLAY_STYLES)
    check_share("alpha", alpha)
    levels = (np.arange(2 * ZERO + 1) - ZERO) / ZERO
    size = np.abs(levels)[:, None]
    if colormap is None:
        above = _FOR if has_sign else _LOOKS
        weak, strong = (np.where(levels[:, None] > 0, *ends) for ends in zip(above, _AGAINST, strict=True))
        plain = weak + (strong - weak) * size
        stripes = np.where(levels[:, None] < 0, _STRIPE, plain)
    elif colormap in matplotlib.colormaps:
        along = (levels + 1) / 2 if style == "signed" else levels.clip(0)
        plain = stripes = matplotlib.colormaps[colormap](along)[:, :3] * 255
    else:
        raise ArgumentError(f"`colormap` must be one that matplotlib knows, such as 'viridis'; got {colormap!r}.")
    tables = [np.concatenate([colours, alpha * 255 * size], axis=1) for colours in (plain, stripes)]
    return np.rint(tables).astype(np.uint8)


def paint(levels: np.ndarray, palettes: np.ndarray, period: int, first_row: int = 0) -> np.ndarray:
    """Return RGBA (rows, width, 4) of levels (rows, width), with diagonal stripes every so many pixels.

    Args:
        first_row (`int`, defaults to 0): Where the first of the rows stands in the picture.
    """
    # Four bytes as one number: photographs have millions of pixels.
    plain, striped = palettes.view(np.uint32)[..., 0]
    painted = plain[levels]
    if (plain != striped).any():
        rows = np.arange(first_row, first_row + len(levels))[:, None]
        is_stripe = (rows + np.arange(levels.shape[1], dtype=np.int32)) % period < max(1, period // 4)
        painted[is_stripe] = striped[levels[is_stripe]]
    return painted[..., None].view(np.uint8)


def outlines(levels: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return lines just outside and just inside of what has half of the full colour or more, (height, width).

    What reaches the picture's edge is closed there by the line inside.
    """
    outside, inside = np.zeros(levels.shape, bool), np.zeros(levels.shape, bool)
    height, length = levels.shape
    for is_strong in (levels >= 1.5 * ZERO, levels <= 0.5 * ZERO):
        if not is_strong.any():
            continue
        padded = np.pad(is_strong, width)
        # The neighbours below, above, right and left.
        shifts = ((2 * width, width), (0, width), (width, 2 * width), (width, 0))
        for top, left in shifts:
            is_near = padded[top : top + height, left : left + length]
            outside |= is_near & ~is_strong
            inside |= is_strong & ~is_near
    return outside, inside
