"""Making the task known to `transformers.pipeline`, without importing transformers for it."""

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType

_PIPELINES = "transformers.pipelines"
_REGISTERING = "gmar_hf.pipeline"  # registers the task at its end, also where its own import set off this one


def register_with_transformers() -> None:
    """Register the task now where transformers' pipelines are imported already, else as soon as they are."""
    if _PIPELINES in sys.modules:
        importlib.import_module(_REGISTERING)
    elif not any(isinstance(finder, _PipelinesFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _PipelinesFinder())


class _PipelinesFinder(MetaPathFinder):
    """Stands before Python's own finders until `transformers.pipelines` is asked for, which they then find."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _PIPELINES:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _RegisteringLoader(spec.loader)
        return spec


class _RegisteringLoader(Loader):
    """Loads the module as its own loader does, and then registers the task with it."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        # The module keeps its own loader: inspect, importlib.resources and pickle ask it for more than this one knows.
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self._loader
        self._loader.exec_module(module)
        importlib.import_module(_REGISTERING)
