"""What ships with the package to try it on: three small trained models and unlimited scenes with known truth."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
