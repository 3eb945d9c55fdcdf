"""Fashion scenes: garments pasted on textured backgrounds, with the exact mask of every garment."""

from importlib import resources
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from gmar_hf.errors import ArgumentError
from gmar_hf.utils.checks import check_whole

LABELS = ("T-shirt", "trouser", "dress", "sandal", "bag", "ankle boot")
SCENE_SIZE = 64
GARMENT_SIZE = 28  # the side of a Fashion-MNIST picture, pixels
GARMENT_THRESHOLD = 26  # grey level (0-255) from which a pixel belongs to the garment and not to its backdrop
_MAX_GARMENTS = 2  # for more, a scene has no room
_MAX_PLACEMENTS = 200


class SceneStyle(NamedTuple):
    """What a scene looks like.

    Args:
        min_size (`int`), max_size (`int`): Side of the square a garment is scaled to, pixels, both included.
        brightness (`float`): Factor in [0, 1] by which the background texture is darkened.
    """

    min_size: int = 24
    max_size: int = 32
    brightness: float = 0.4


_USUAL = SceneStyle()


def scenes(
    num_images: int, seed: int = 0, num_garments: int = 2, *, without: int | None = None
) -> list[dict[str, Any]]:
    """Make scenes of the bundled test garments, none of which any demo model was trained on.

    Args:
        num_images (`int`): How many scenes.
        seed (`int`, defaults to 0): Not negative. The same seed gives the same scenes, and a longer list begins with
            the shorter one.
        num_garments (`int`, defaults to 2): Garments in every scene, 1 or 2, each of another class.
        without (`int`, *optional*): The place, in the sorted `labels` of each whole scene, of a garment that is left
            out: its pixels show the background, and all others what they show in the whole scene.

    Returns:
        `list[dict]`: One dict per scene with `image` (PIL RGB, 64 x 64), `labels` (sorted list of label indices) and
        `masks` (label index -> bool array (64, 64), true where that garment's pixels are).

    Raises:
        ArgumentError: If `num_images` or `seed` is no whole number or negative, `num_garments` neither 1 nor 2, or
            `without` no place among them.

    Example:
        >>> scene = scenes(1, seed=0)[0]
        >>> scene["image"].size, len(scene["labels"]), scene["masks"][scene["labels"][0]].shape
        ((64, 64), 2, (64, 64))
        >>> scenes(1, seed=0, without=0)[0]["labels"] == scene["labels"][1:]
        True
    """
    check_whole("num_images", num_images)
    check_whole("seed", seed)
    check_whole("num_garments", num_garments, minimum=1, maximum=_MAX_GARMENTS)
    garments = _bundled_garments()
    drawn = []
    for index in range(num_images):
        pixels, masks = make_scene(np.random.default_rng([seed, index]), garments, num_garments, without=without)
        drawn.append({"image": Image.fromarray(pixels), "labels": sorted(masks), "masks": masks})
    return drawn


def make_scene(
    rng: np.random.Generator,
    garments: list[np.ndarray],
    num_garments: int,
    style: SceneStyle = _USUAL,
    *,
    without: int | None = None,
) -> tuple[np.ndarray, dict[int, np.ndarray]]:
    """Draw one scene.

    Args:
        rng (`np.random.Generator`): The only source of chance.
        garments (`list` of uint8 arrays (n, 28, 28)): Grey garments on black, one array per label, in label order.
        num_garments (`int`): Garments to paste, each of another class.
        style ([`SceneStyle`]): Sizes and background.
        without (`int`, *optional*): The place of a garment that is left out, counted in the order of the labels.

    Returns:
        Pixels (64, 64, 3) uint8 and a dict from label index to the bool mask (64, 64) of that garment.

    Raises:
        ArgumentError: If the garments cannot stand side by side in a scene, or the one to leave out is none of them.
    """
    check_whole("num_garments", num_garments, minimum=1, maximum=_MAX_GARMENTS)
    if without is not None:
        check_whole("without", without, maximum=num_garments - 1)
    if not 1 <= style.min_size <= style.max_size <= SCENE_SIZE or num_garments * style.min_size > SCENE_SIZE:
        raise ArgumentError(
            f"`style` must have 1 <= min_size <= max_size <= {SCENE_SIZE} and room for {num_garments} garments of "
            f"min_size side by side; got {style}. Make them smaller."
        )
    # The order of the draws below decides what a seed shows: scenes of a seed must never change.
    canvas = _texture(rng) * style.brightness
    labels = [int(label) for label in rng.choice(len(garments), num_garments, replace=False)]
    left_out = None if without is None else sorted(labels)[without]
    masks = {}
    for label, (left, top, size) in zip(labels, _place(rng, num_garments, style), strict=True):
        grey = Image.fromarray(garments[label][rng.integers(len(garments[label]))])
        scaled = np.asarray(grey.resize((size, size), Image.Resampling.BILINEAR))
        # The garment is coloured and shaded by its grey level; its backdrop lets the canvas through.
        inside = scaled >= GARMENT_THRESHOLD
        colour = 0.5 + 0.5 * rng.random(3)
        shaded = (0.4 + 0.6 * scaled[..., None] / 255) * colour
        if label == left_out:
            continue  # only now: what follows is drawn as in the whole scene
        window = (slice(top, top + size), slice(left, left + size))
        canvas[window] = np.where(inside[..., None], shaded, canvas[window])
        masks[label] = np.zeros((SCENE_SIZE, SCENE_SIZE), dtype=bool)
        masks[label][window] = inside
    return (canvas * 255).round().astype(np.uint8), masks


def _place(rng: np.random.Generator, count: int, style: SceneStyle) -> list[tuple[int, int, int]]:
    """Draw `count` squares (left, top, size) that do not overlap."""
    while True:
        squares: list[tuple[int, int, int]] = []
        for _ in range(_MAX_PLACEMENTS):
            size = int(rng.integers(style.min_size, style.max_size + 1))
            left, top = (int(start) for start in rng.integers(0, SCENE_SIZE - size + 1, 2))
            if all(_are_apart((left, top, size), square) for square in squares):
                squares.append((left, top, size))
            if len(squares) == count:
                return squares
        # A first square in the very middle can leave no room: draw again from the start.


def _are_apart(a: tuple[int, int, int], b: tuple[int, int, int]) -> bool:
    """Tell whether two squares (left, top, size) do not overlap."""
    return any(a[axis] + a[2] <= b[axis] or b[axis] + b[2] <= a[axis] for axis in (0, 1))


def _texture(rng: np.random.Generator) -> np.ndarray:
    """A coloured background (64, 64, 3) in [0, 1]: smooth blotches crossed by stripes."""
    # Blotches: a few random colours, blown up smoothly.
    cells = int(rng.integers(3, 17))
    blotches = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
    smooth = np.asarray(blotches.resize((SCENE_SIZE, SCENE_SIZE), Image.Resampling.BICUBIC)) / 255
    # Stripes: a sine of random angle, period (pixels) and phase.
    angle, period, phase = rng.random(3) * (np.pi, 20, 2 * np.pi) + (0, 4, 0)
    rows, columns = np.mgrid[:SCENE_SIZE, :SCENE_SIZE]
    stripes = np.sin(2 * np.pi * (columns * np.cos(angle) + rows * np.sin(angle)) / period + phase)
    strength = 0.5 * rng.random()
    return np.clip(smooth * (1 + strength * stripes[..., None]) / (1 + strength), 0, 1)


def _bundled_garments() -> list[np.ndarray]:
    """Read the sheet of test garments: one row of 28 x 28 pictures per label."""
    with resources.files(__package__).joinpath("garments.png").open("rb") as file:
        sheet = np.asarray(Image.open(file))
    rows, columns = sheet.shape[0] // GARMENT_SIZE, sheet.shape[1] // GARMENT_SIZE
    cells = sheet.reshape(rows, GARMENT_SIZE, columns, GARMENT_SIZE).swapaxes(1, 2)
    return list(cells)
