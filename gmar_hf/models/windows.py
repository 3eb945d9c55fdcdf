"""Attention inside windows, as Swin's: where the tokens of a window lie on the map of their layer.

Such a layer cuts its map of tokens into windows, perhaps shifted around the edges and padded to whole windows, and
attends inside each of them. Later stages have coarser maps: each of their tokens was merged from two by two.
"""

import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import nn

from gmar_hf.errors import UnsupportedModelError
from gmar_hf.models.freezing import Borrowed, Undo
from gmar_hf.models.patches import Grid

# By the class that cuts the windows, matched as it is; it has a `window_size` and a `shift_size`, and its forward gets
# the rows and columns of its map as `input_dimensions`.
_LAYERS = frozenset(
    {
        ("transformers.models.donut.modeling_donut_swin", "DonutSwinLayer"),
        ("transformers.models.swin.modeling_swin", "SwinLayer"),
        ("transformers.models.swinv2.modeling_swinv2", "Swinv2Layer"),
    }
)


@dataclass(frozen=True, eq=False)
class WindowLayout:
    """Where the tokens of an image's windows lie.

    Args:
        places (`torch.LongTensor` of shape (windows, tokens)): Of each window's tokens the place on the map, row by
            row; -1 of padding. Every place of the map is in one window.
        rows, cols (`int`): Of the map.
    """

    places: torch.Tensor
    rows: int
    cols: int

    @property
    def num_windows(self) -> int:
        """How many windows an image has."""
        return self.places.shape[0]

    @property
    def has_padding(self) -> bool:
        """Whether some tokens of windows are none of the map."""
        return self.places.numel() > self.rows * self.cols

    @property
    def _order(self) -> torch.Tensor:
        """Of each place of the map, (places,), the token among those of all windows."""
        tokens = self.places.flatten()
        return tokens.argsort(stable=True)[-self.rows * self.cols :]

    @property
    def _padding(self) -> torch.Tensor:
        """Which tokens among those of all windows are padding, (tokens,)."""
        return (self.places.flatten() < 0).nonzero()[:, 0]

    def by_image(self, by_window: torch.Tensor) -> torch.Tensor:
        """Put windows together, (images * windows, heads, tokens, ...) to (images, heads, places, ...)."""
        return self._together(by_window).index_select(2, self._order.to(by_window.device))

    def padding_sum(self, by_window: torch.Tensor) -> torch.Tensor:
        """Sum numbers (images * windows, heads, tokens) over the padding of each image: (images, heads)."""
        return self._together(by_window).index_select(2, self._padding.to(by_window.device)).sum(dim=2)

    def by_window(self, by_image: torch.Tensor) -> torch.Tensor:
        """Repeat what belongs to images, (images, ...), for each of their windows: (images * windows, ...)."""
        return by_image.repeat_interleave(self.num_windows, dim=0)

    def _together(self, by_window: torch.Tensor) -> torch.Tensor:
        return by_window.unflatten(0, (-1, self.num_windows)).transpose(1, 2).flatten(2, 3)


def grid_of(layouts: Iterable[WindowLayout | None]) -> Grid | None:
    """Return where the patches are: on the map of the first layer; None of attention without windows.

    Padding counts as one token before the patches, if any layer has some.

    Args:
        layouts (`Iterable` of [`WindowLayout`], *optional*): Of the layers, first layer first.
    """
    known = [layout for layout in layouts if layout is not None]
    if not known:
        return None
    return Grid(int(any(layout.has_padding for layout in known)), known[0].rows, known[0].cols)


def on_patches(by_window: torch.Tensor, layout: WindowLayout | None, grid: Grid | None) -> torch.Tensor:
    """Lay what belongs to the tokens of windows onto the patches.

    Args:
        by_window (`torch.Tensor` of shape (images * windows, heads, tokens)): One number a token, as (batch, heads,
            tokens); without windows it is returned as it is.
        layout ([`WindowLayout`], *optional*): Where the tokens lie.
        grid ([`Grid`], *optional*): Where the patches are; with a prefix token, which stands for all padding.

    Returns:
        `torch.Tensor` of shape (images, heads, prefix + rows * cols): Its sum over the last axis is that over an
            image's windows.
    """
    if layout is None or grid is None:
        return by_window
    by_patch = spread(layout.by_image(by_window), layout, grid)
    return torch.cat([layout.padding_sum(by_window)[..., None], by_patch], dim=-1) if grid.prefix else by_patch


def spread(by_place: torch.Tensor, layout: WindowLayout, grid: Grid) -> torch.Tensor:
    """Divide numbers of merged tokens evenly over the patches that they cover; the sum stays as it is.

    A token of a map that was merged k times covers 2^k x 2^k patches, and fewer at the lower and right edge, where a
    map of an odd number of rows or columns was padded before it was merged.

    Args:
        by_place (`torch.Tensor` of shape (..., places)): One number a token, row by row.
        layout ([`WindowLayout`]): Of the map that the tokens lie on.
        grid ([`Grid`]): Of the patches.

    Returns:
        `torch.Tensor` of shape (..., rows * cols): One number a patch.

    Example:
        >>> layout = WindowLayout(torch.arange(2)[None], rows=1, cols=2)
        >>> spread(torch.tensor([4.0, 4.0]), layout, Grid(0, rows=2, cols=3))
        tensor([1., 1., 2., 1., 1., 2.])
    """
    values = by_place.unflatten(-1, (layout.rows, layout.cols))
    for dim, num_fine in ((-2, grid.rows), (-1, grid.cols)):
        num_coarse = values.shape[dim]
        covers = torch.arange(num_fine, device=values.device) // _factor(num_fine, num_coarse)
        num_covered = covers.bincount(minlength=num_coarse).to(values.dtype)
        shape = (-1, 1) if dim == -2 else (-1,)
        values = (values / num_covered.view(shape)).index_select(dim, covers)
    return values.flatten(-2)


def _factor(num_fine: int, num_coarse: int) -> int:
    """Return how many rows of patches one row of merged tokens covers: a power of two."""
    factor = 1
    while factor < num_fine and -(-num_fine // factor) > num_coarse:
        factor *= 2
    if -(-num_fine // factor) != num_coarse:
        raise UnsupportedModelError(
            f"The model must merge its tokens two by two; got a map of {num_coarse} rows or columns for {num_fine} "
            "of patches. Use a model like Swin."
        )
    return factor


@lru_cache(maxsize=64)
def swin_layout(rows: int, cols: int, window_size: int, shift_size: int) -> WindowLayout:
    """Return where tokens lie in windows as Swin cuts them.

    The map is padded below and to the right to whole windows, rolled up and to the left by the shift, and cut.

    Args:
        rows, cols (`int`): Of the map.
        window_size (`int`): Rows and columns of a window.
        shift_size (`int`): By how much the map is rolled.

    Example:
        >>> swin_layout(2, 3, window_size=2, shift_size=1).places
        tensor([[ 4,  5,  1,  2],
                [-1,  3, -1,  0]])
    """
    with torch.inference_mode(False):  # it is kept for others, who may want gradients
        places = torch.arange(rows * cols, device="cpu").view(rows, cols)
        below, right = -rows % window_size, -cols % window_size
        padded = nn.functional.pad(places, (0, right, 0, below), value=-1)
        shifted = padded.roll((-shift_size, -shift_size), dims=(0, 1))
        windows = shifted.unflatten(1, (-1, window_size)).unflatten(0, (-1, window_size)).transpose(1, 2)
        return WindowLayout(windows.reshape(-1, window_size * window_size), rows, cols)


class _LayerUnderWay(NamedTuple):
    """The layer that this thread computes now, the config of the encoder that it is in, and the size of its map."""

    layer: Any
    config: Any
    rows: int
    cols: int


_under_way: ContextVar[_LayerUnderWay | None] = ContextVar("gmar_hf_window_layer", default=None)


def layout_of(module: nn.Module) -> WindowLayout | None:
    """Return where the tokens of a call lie that an attention module makes now; None where it has no windows.

    It is known where the calls are recorded, see [`windows_known`].
    """
    around = _layer_around(module)
    if around is None:
        return None
    return swin_layout(around.rows, around.cols, int(around.layer.window_size), int(around.layer.shift_size))


def config_around(module: nn.Module) -> Any:
    """Return the config of the encoder of an attention module that calls now, has windows and no config of its own."""
    around = _layer_around(module)
    return None if around is None else around.config


def _layer_around(module: nn.Module) -> _LayerUnderWay | None:
    under_way = _under_way.get()
    if under_way is None or all(part is not module for part in under_way.layer.modules()):
        return None
    return under_way


def _keep_sizes(layer: Any) -> Undo:
    """Keep the sizes of a layer, which its forward makes smaller for small maps."""
    window_size, shift_size = layer.window_size, layer.shift_size

    def undo() -> None:
        layer.window_size, layer.shift_size = window_size, shift_size

    return undo


_sizes_kept = Borrowed(_keep_sizes)
_one_thread_at_a_time = threading.RLock()


@contextmanager
def windows_known(model: nn.Module) -> Iterator[None]:
    """Let [`layout_of`] know the windows of a model's layers inside the block; their sizes are as before after it.

    Swin's layers shrink their windows to a small map in their own forward, for all threads. Threads that explain
    models with windows therefore take turns; a plain forward of another thread is not kept from meeting other sizes.
    """
    layers = list(filter(_cuts_windows, model.modules()))
    if not layers:
        yield
        return
    configs = _configs_by_layer(model)

    def note(layer: nn.Module, args: Any, kwargs: Any) -> None:
        rows, cols = kwargs["input_dimensions"] if "input_dimensions" in kwargs else args[1]
        _under_way.set(_LayerUnderWay(layer, configs.get(id(layer)), int(rows), int(cols)))

    def forget(layer: nn.Module, args: Any, output: Any) -> None:
        _under_way.set(None)

    with ExitStack() as stack:
        stack.enter_context(_one_thread_at_a_time)
        stack.enter_context(_sizes_kept.hold(layers))
        for layer in layers:
            stack.callback(layer.register_forward_pre_hook(note, with_kwargs=True).remove)
            stack.callback(layer.register_forward_hook(forget, always_call=True).remove)
        yield


def _configs_by_layer(model: nn.Module) -> dict[int, Any]:
    """Return of each layer with windows, by its id, the config of the nearest module around it that has one."""
    configs: dict[str, Any] = {}
    by_layer = {}
    for name, module in model.named_modules():
        around = configs.get(name.rpartition(".")[0]) if name else None
        configs[name] = getattr(module, "config", None) or around
        if _cuts_windows(module):
            by_layer[id(module)] = configs[name]
    return by_layer


def attends_in_windows(model: nn.Module) -> bool:
    """Tell whether a model has layers that attend inside windows, of a kind that is known."""
    return any(map(_cuts_windows, model.modules()))


def _cuts_windows(module: nn.Module) -> bool:
    return (type(module).__module__, type(module).__qualname__) in _LAYERS
