"""Pages that need nothing else: no network, no second file, and all text of others escaped."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
