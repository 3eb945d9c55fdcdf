"""Where the tokens of attention lie on the map of their layer, in models whose layers stand in stages.

Such a layer cuts its map of tokens into windows, or has one for all of them, and attends inside each. Later stages
have coarser maps: each of their tokens was merged from several. Keys, too, may be merged from several, or queries.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import nn

from gmar_hf.models.patches import Grid

PADDING, PREFIX = -1, -2  # in place of a place on the map


@dataclass(frozen=True, eq=False)
class WindowLayout:
    """Where the tokens of an image's windows lie.

    Args:
        places (`torch.LongTensor` of shape (windows, tokens)): Of each window's tokens the place on the map, row by
            row; `PADDING`, or `PREFIX` of class tokens. Every place of the map is in one window.
        rows, cols (`int`): Of the map.
        covers (`tuple[int, int]`, defaults to (1, 1)): How many rows and columns of patches a token covers; fewer at
            the lower and right edge, where a map was padded before it was merged. Where it was cut, the last patches
            are covered by none.
        sequence (`torch.LongTensor` of shape (rows * cols,), *optional*): Of each token the place on the map, in the
            order in which the layer hands them on; row by row by default.
        outputs ([`WindowLayout`], *optional*): Of the queries and outputs, where the layer merges its queries or keys;
            else they lie as the keys do.
    """

    places: torch.Tensor
    rows: int
    cols: int
    covers: tuple[int, int] = (1, 1)
    sequence: torch.Tensor | None = None
    outputs: "WindowLayout | None" = None

    @property
    def num_windows(self) -> int:
        """How many windows an image has."""
        return self.places.shape[0]

    @cached_property
    def num_prefix(self) -> int:
        """How many class tokens an image has."""
        return int((self.places == PREFIX).sum())

    @property
    def num_tokens(self) -> int:
        """How many tokens of an image there are: class tokens and those of the map, padding not counted."""
        return self.num_prefix + self.rows * self.cols

    @property
    def has_others(self) -> bool:
        """Whether some tokens of windows are none of the map: class tokens, or padding."""
        return self.places.numel() > self.rows * self.cols

    @property
    def of_outputs(self) -> "WindowLayout":
        """The layout of the queries and outputs."""
        return self if self.outputs is None else self.outputs

    def by_image(self, by_window: torch.Tensor) -> torch.Tensor:
        """Put windows together, (images * windows, heads, tokens, ...) to (images, heads, prefix + places, ...)."""
        order = self._tokens.argsort(stable=True)  # class tokens, padding, places
        order = torch.cat([order[: self.num_prefix], order[-self.rows * self.cols :]])
        return self._together(by_window).index_select(2, order.to(by_window.device))

    def sum_of_others(self, by_window: torch.Tensor) -> torch.Tensor:
        """Sum numbers (images * windows, heads, tokens) over an image's tokens off the map: (images, heads)."""
        others = (self._tokens < 0).nonzero()[:, 0]
        return self._together(by_window).index_select(2, others.to(by_window.device)).sum(dim=2)

    def by_window(self, by_image: torch.Tensor) -> torch.Tensor:
        """Repeat what belongs to images, (images, ...), for each of their windows: (images * windows, ...)."""
        return by_image.repeat_interleave(self.num_windows, dim=0)

    def by_place(self, handed_on: torch.Tensor) -> torch.Tensor:
        """Put numbers (images, tokens) of the tokens that the layer hands on at their places: (images, places)."""
        if self.sequence is None:
            return handed_on
        return handed_on.index_select(1, self.sequence.argsort().to(handed_on.device))

    @property
    def _tokens(self) -> torch.Tensor:
        """The places of the tokens of all windows, one window after the other."""
        return self.places.flatten()

    def _together(self, by_window: torch.Tensor) -> torch.Tensor:
        return by_window.unflatten(0, (-1, self.num_windows)).transpose(1, 2).flatten(2, 3)


def grid_of(layouts: Iterable[WindowLayout | None]) -> Grid | None:
    """Return where the patches are: on the map of the first layer; None where layers have no map of their own.

    Class tokens and padding count as one token before the patches, if any layer has some.

    Args:
        layouts (`Iterable` of [`WindowLayout`], *optional*): Of the layers, first layer first.
    """
    known = [layout for layout in layouts if layout is not None]
    if not known:
        return None
    first = known[0].of_outputs
    return Grid(int(any(layout.has_others for layout in known)), first.rows, first.cols)


def on_patches(by_window: torch.Tensor, layout: WindowLayout | None, grid: Grid | None) -> torch.Tensor:
    """Lay what belongs to the tokens of windows onto the patches.

    Args:
        by_window (`torch.Tensor` of shape (images * windows, heads, tokens)): One number a token, as (batch, heads,
            tokens); without windows it is returned as it is.
        layout ([`WindowLayout`], *optional*): Where the tokens lie.
        grid ([`Grid`], *optional*): Where the patches are; with a prefix token, which stands for all that is no patch.

    Returns:
        `torch.Tensor` of shape (images, heads, prefix + rows * cols): Its sum over the last axis is that over an
            image's windows.
    """
    if layout is None or grid is None:
        return by_window
    by_patch = spread(layout.by_image(by_window)[..., layout.num_prefix :], layout, grid)
    return torch.cat([layout.sum_of_others(by_window)[..., None], by_patch], dim=-1) if grid.prefix else by_patch


def spread(by_place: torch.Tensor, layout: WindowLayout, grid: Grid) -> torch.Tensor:
    """Divide numbers of merged tokens evenly over the patches that they cover; the sum stays as it is.

    Args:
        by_place (`torch.Tensor` of shape (..., places)): One number a token, row by row.
        layout ([`WindowLayout`]): Of the map that the tokens lie on.
        grid ([`Grid`]): Of the patches.

    Returns:
        `torch.Tensor` of shape (..., rows * cols): One number a patch; zero of patches that no token covers.

    Example:
        >>> layout = WindowLayout(torch.arange(2)[None], rows=1, cols=2, covers=(2, 2))
        >>> spread(torch.tensor([4.0, 4.0]), layout, Grid(0, rows=2, cols=3))
        tensor([1., 1., 2., 1., 1., 2.])
        >>> spread(torch.tensor([4.0, 4.0]), layout, Grid(0, rows=2, cols=5))
        tensor([1., 1., 1., 1., 0., 1., 1., 1., 1., 0.])
    """
    values = by_place.unflatten(-1, (layout.rows, layout.cols))
    for dim, num_fine, factor in ((-2, grid.rows, layout.covers[0]), (-1, grid.cols, layout.covers[1])):
        num_covered_by_any = min(num_fine, values.shape[dim] * factor)
        covering = torch.arange(num_covered_by_any, device=values.device) // factor
        num_covered = covering.bincount(minlength=values.shape[dim]).to(values.dtype)
        shape = (-1, 1) if dim == -2 else (-1,)
        values = (values / num_covered.view(shape)).index_select(dim, covering)
        beyond = num_fine - num_covered_by_any
        values = nn.functional.pad(values, (0, 0, 0, beyond) if dim == -2 else (0, beyond))
    return values.flatten(-2)


@lru_cache(maxsize=64)
def swin_layout(rows: int, cols: int, window_size: int, shift_size: int, num_merged: int = 0) -> WindowLayout:
    """Return where tokens lie in windows as Swin cuts them.

    The map is padded below and to the right to whole windows, rolled up and to the left by the shift, and cut.

    Args:
        rows, cols (`int`): Of the map.
        window_size (`int`): Rows and columns of a window.
        shift_size (`int`): By how much the map is rolled.
        num_merged (`int`, defaults to 0): How often tokens were merged before, two by two.

    Example:
        >>> swin_layout(2, 3, window_size=2, shift_size=1).places
        tensor([[ 4,  5,  1,  2],
                [-1,  3, -1,  0]])
    """
    with torch.inference_mode(False):  # it is kept for others, who may want gradients
        places = torch.arange(rows * cols, device="cpu").view(rows, cols)
        below, right = -rows % window_size, -cols % window_size
        padded = nn.functional.pad(places, (0, right, 0, below), value=PADDING)
        shifted = padded.roll((-shift_size, -shift_size), dims=(0, 1))
        windows = shifted.unflatten(1, (-1, window_size)).unflatten(0, (-1, window_size)).transpose(1, 2)
        covers = (2**num_merged, 2**num_merged)
        return WindowLayout(windows.reshape(-1, window_size * window_size), rows, cols, covers)


@lru_cache(maxsize=64)
def hiera_layout(
    rows: int, cols: int, stride: tuple[int, int], num_strides: int, num_merged: int, num_windows: int, merges: bool
) -> WindowLayout:
    """Return where tokens lie in the mask units, or other windows, of a layer of Hiera.

    Its tokens stand in an order of their own, in which those that will be merged are far apart: first by their place
    inside the square that is merged first, row by row, then inside the next, and so on. Every so many tokens, one a
    window, are the first of their window, as many next ones the second.

    Args:
        rows, cols (`int`): Of the patches.
        stride (`tuple[int, int]`): How many rows and columns of tokens are merged at a time.
        num_strides (`int`): For how many mergings the patches were put in order.
        num_merged (`int`): How often tokens were merged before this layer.
        num_windows (`int`): How many windows an image has.
        merges (`bool`): Whether the layer merges its queries.

    Example:
        >>> layout = hiera_layout(4, 4, (2, 2), num_strides=1, num_merged=0, num_windows=4, merges=True)
        >>> layout.places
        tensor([[ 0,  1,  4,  5],
                [ 2,  3,  6,  7],
                [ 8,  9, 12, 13],
                [10, 11, 14, 15]])
        >>> layout.sequence[:6], layout.of_outputs.places.tolist()
        (tensor([ 0,  2,  8, 10,  1,  3]), [[0], [1], [2], [3]])
    """
    covers = stride[0] ** num_merged, stride[1] ** num_merged
    rows_left, cols_left = rows // covers[0], cols // covers[1]
    with torch.inference_mode(False):  # it is kept for others, who may want gradients
        sequence = torch.arange(rows_left * cols_left, device="cpu").view(1, rows_left, cols_left)
        for _ in range(num_strides - num_merged):
            cut = sequence.unflatten(2, (-1, stride[1])).unflatten(1, (-1, stride[0]))
            sequence = cut.permute(0, 2, 4, 1, 3).flatten(0, 2)
        sequence = sequence.flatten()
        places = sequence.unflatten(0, (-1, num_windows)).T
    outputs = None
    if merges:
        outputs = hiera_layout(rows, cols, stride, num_strides, num_merged + 1, num_windows, merges=False)
    return WindowLayout(places, rows_left, cols_left, covers, sequence, outputs)


@lru_cache(maxsize=64)
def reduced_layout(rows: int, cols: int, covers: tuple[int, int], reduction: int, num_prefix: int = 0) -> WindowLayout:
    """Return where tokens lie that all attend to keys which were merged from squares of them.

    Rows and columns that make no whole square are left out of the keys.

    Args:
        rows, cols (`int`): Of the map of tokens.
        covers (`tuple[int, int]`): How many rows and columns of patches a token covers.
        reduction (`int`): Rows and columns of a square; 1 where keys are the tokens themselves.
        num_prefix (`int`, defaults to 0): How many class tokens stand first.

    Example:
        >>> layout = reduced_layout(4, 5, (1, 1), reduction=2)
        >>> layout.places, layout.covers, layout.of_outputs.num_tokens
        (tensor([[0, 1, 2, 3]]), (2, 2), 20)
    """
    with torch.inference_mode(False):  # it is kept for others, who may want gradients
        own, of_keys = (torch.arange((rows // side) * (cols // side), device="cpu")[None] for side in (1, reduction))
        prefix = torch.full((1, num_prefix), PREFIX, device="cpu")
        outputs = WindowLayout(torch.cat([prefix, own], dim=1), rows, cols, covers)
        if reduction == 1:
            return outputs
        covers_of_keys = (covers[0] * reduction, covers[1] * reduction)
        places = torch.cat([prefix, of_keys], dim=1)
        return WindowLayout(places, rows // reduction, cols // reduction, covers_of_keys, outputs=outputs)
