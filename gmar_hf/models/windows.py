"""Layers that stand in stages, each on a map of its own, whose tokens are merged from stage to stage.

Swin's kinds and Hiera's attend inside windows of their map; SegFormer's and PVT's attend to keys that are merged from
several tokens. Where the tokens of their calls lie is known while these are recorded, see [`layout_of`].
"""

import inspect
import math
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

from torch import nn

from gmar_hf.models.freezing import Borrowed, Undo
from gmar_hf.models.hooks import BorrowedHook
from gmar_hf.models.patches import stage_strides
from gmar_hf.models.window_layout import WindowLayout, hiera_layout, reduced_layout, swin_layout


class _Station(NamedTuple):
    """Where a layer stands: the config of the encoder that it is in, and its stage, from 0."""

    config: Any
    stage: int


class _LayerUnderWay(NamedTuple):
    """The layer that this thread computes now, where it stands, and what its forward was given."""

    layer: Any
    station: _Station
    args: Any
    kwargs: Any


_under_way: ContextVar[_LayerUnderWay | None] = ContextVar("gmar_hf_window_layer", default=None)
_image_size: ContextVar[tuple[int, int] | None] = ContextVar("gmar_hf_window_image_size", default=None)  # in pixels


def _swin(around: _LayerUnderWay) -> WindowLayout:
    layer, kwargs = around.layer, around.kwargs
    rows, cols = kwargs["input_dimensions"] if "input_dimensions" in kwargs else around.args[1]
    return swin_layout(int(rows), int(cols), int(layer.window_size), int(layer.shift_size), around.station.stage)


def _hiera(around: _LayerUnderWay) -> WindowLayout | None:
    attention, (config, stage), image_size = around.layer.attn, around.station, _image_size.get()
    if image_size is None:  # somebody calls the encoder alone
        return None
    rows, cols = (size // stride for size, stride in zip(image_size, config.patch_stride, strict=True))
    merges = attention.query_stride > 1
    num_merged = min(stage, config.num_query_pool) - int(merges)
    num_windows = 1
    if attention.use_mask_unit_attn:
        num_tokens = rows * cols // math.prod(config.query_stride) ** num_merged
        num_windows = num_tokens // (attention.query_stride * attention.window_size)
    num_strides = len(config.depths) - 1
    return hiera_layout(rows, cols, tuple(config.query_stride), num_strides, num_merged, num_windows, merges)


def _segformer(around: _LayerUnderWay) -> WindowLayout:
    return _reduced(around, around.layer.attention.sequence_reduction_ratio)


def _pvt(around: _LayerUnderWay) -> WindowLayout:
    is_last = around.station.stage + 1 == len(around.station.config.depths)
    return _reduced(around, around.layer.attention.self.sequences_reduction_ratio, num_prefix=int(is_last))


def _pvt_v2(around: _LayerUnderWay) -> WindowLayout | None:
    attention = around.layer.attention
    if attention.linear_attention:  # keys are means of overlapping parts of the map
        return None
    return _reduced(around, attention.spatial_reduction_ratio)


def _reduced(around: _LayerUnderWay, reduction: int, num_prefix: int = 0) -> WindowLayout:
    """Return the layout of a layer that is handed the rows and columns of its map."""
    given = inspect.signature(around.layer.forward).bind_partial(*around.args, **around.kwargs).arguments
    config, stage = around.station
    covers = math.prod(stage_strides(config)[1 : stage + 1])
    return reduced_layout(int(given["height"]), int(given["width"]), (covers, covers), int(reduction), num_prefix)


# How the layout is found, by the class of the layer, matched as it is. Swin's has a `window_size` and a `shift_size`,
# and its forward gets the rows and columns of its map as `input_dimensions`; Hiera's gets tokens alone.
_LAYERS: dict[tuple[str, str], Callable[[_LayerUnderWay], WindowLayout | None]] = {
    ("transformers.models.donut.modeling_donut_swin", "DonutSwinLayer"): _swin,
    ("transformers.models.hiera.modeling_hiera", "HieraLayer"): _hiera,
    ("transformers.models.pvt.modeling_pvt", "PvtLayer"): _pvt,
    ("transformers.models.pvt_v2.modeling_pvt_v2", "PvtV2BlockLayer"): _pvt_v2,
    ("transformers.models.segformer.modeling_segformer", "SegformerLayer"): _segformer,
    ("transformers.models.swin.modeling_swin", "SwinLayer"): _swin,
    ("transformers.models.swinv2.modeling_swinv2", "Swinv2Layer"): _swin,
}
_GETS_IMAGES = ("transformers.models.hiera.modeling_hiera", "HieraEmbeddings")  # before the layers that are not told


def layout_of(module: nn.Module) -> WindowLayout | None:
    """Return where the tokens of a call lie that an attention module makes now; None where it stands in no stage.

    It is known where the calls are recorded, see [`windows_known`].
    """
    around = _layer_around(module)
    return None if around is None else _LAYERS[_kind(around.layer)](around)


def config_around(module: nn.Module) -> Any:
    """Return the config of the encoder of an attention module that calls now, stands in a stage and has no config."""
    around = _layer_around(module)
    return None if around is None else around.station.config


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
    """Let [`layout_of`] know where a model's layers stand inside the block; Swin's sizes are as before after it.

    Swin's layers shrink their windows to a small map in their own forward, for all threads. Threads that explain
    models whose layers stand in stages therefore take turns; a plain forward of another thread is not kept from
    meeting other sizes.
    """
    layers = list(filter(_stands_in_a_stage, model.modules()))
    if not layers:
        yield
        return
    stations = _stations(model)

    def note(layer: nn.Module, args: Any, kwargs: Any) -> None:
        _under_way.set(_LayerUnderWay(layer, stations[id(layer)], args, kwargs))

    def forget(layer: nn.Module, args: Any, output: Any) -> None:
        _under_way.set(None)

    with ExitStack() as stack:
        stack.enter_context(_one_thread_at_a_time)
        stack.enter_context(_sizes_kept.hold([layer for layer in layers if hasattr(layer, "shift_size")]))
        for layer in layers:
            stack.callback(layer.register_forward_pre_hook(BorrowedHook(note), with_kwargs=True).remove)
            stack.callback(layer.register_forward_hook(BorrowedHook(forget), always_call=True).remove)
        stack.callback(_image_size.set, None)
        for module in model.modules():
            if _kind(module) == _GETS_IMAGES:
                stack.callback(module.register_forward_pre_hook(BorrowedHook(_note_images), with_kwargs=True).remove)
        yield


def _note_images(embeddings: nn.Module, args: Any, kwargs: Any) -> None:
    pixels = kwargs["pixel_values"] if "pixel_values" in kwargs else args[0]
    _image_size.set((pixels.shape[-2], pixels.shape[-1]))


def _stations(model: nn.Module) -> dict[int, _Station]:
    """Return where each layer in a stage stands, by its id: its config is that of the nearest module around it."""
    configs: dict[str, Any] = {}
    num_seen: Counter[int] = Counter()  # layers of each config
    stations = {}
    for name, module in model.named_modules():
        around = configs.get(name.rpartition(".")[0]) if name else None
        configs[name] = getattr(module, "config", None) or around
        if _stands_in_a_stage(module):
            config = configs[name]
            stages = [stage for stage, depth in enumerate(config.depths) for _ in range(depth)]
            stations[id(module)] = _Station(config, stages[num_seen[id(config)]])
            num_seen[id(config)] += 1
    return stations


def has_stages(model: nn.Module) -> bool:
    """Tell whether a model has layers that stand in stages, each on a map of its own, of a kind that is known."""
    return any(map(_stands_in_a_stage, model.modules()))


def _stands_in_a_stage(module: nn.Module) -> bool:
    return _kind(module) in _LAYERS


def _kind(module: nn.Module) -> tuple[str, str]:
    return type(module).__module__, type(module).__qualname__
