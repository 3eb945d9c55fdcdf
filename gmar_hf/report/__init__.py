"""How much each head matters over a data set: the numbers, their files, card and Hub."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
