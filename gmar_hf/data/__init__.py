"""What a survey reads: folders, the Hub, `datasets` and torch, all as samples of an image and the model's indices."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
