"""Which layer an attention call belongs to, also where layers share their modules."""

from collections import Counter
from collections.abc import Iterable

from torch import nn


class LayerOrder:
    """Tells layers apart by the modules that call, and layers that share a module by the order of their calls.

    Gradient checkpointing makes a layer's calls once more in the backward, the last layer's first.

    Args:
        layers (`Iterable[nn.Module]`): First layer first; a module may stand for several.
    """

    def __init__(self, layers: Iterable[nn.Module]) -> None:
        self._places: dict[int, list[int]] = {}  # the layers' indices by the ids of their modules
        for index, layer in enumerate(layers):
            for part in layer.modules():
                self._places.setdefault(id(part), []).append(index)
        self._calls: Counter[int] = Counter()

    def begin(self) -> None:
        """Start counting again: another forward begins."""
        self._calls.clear()

    def find(self, module: nn.Module) -> int | None:
        """Return the layer whose part calls now, from 0; None for a module of no layer.

        Ask once a call: of a module that is shared this counts.
        """
        places = self._places.get(id(module))
        if places is None or len(places) == 1:
            return None if places is None else places[0]
        repeat, place = divmod(self._calls[id(module)], len(places))
        self._calls[id(module)] += 1
        return places[place] if repeat == 0 else places[-1 - place]
