"""Which map to believe: maps of all kinds measured side by side on a model and data of your own."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
