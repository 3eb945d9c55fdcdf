"""How good an explanation is: pure functions of tensors, with one number an image.

A `score_fn` maps pixel values (M, channels, height, width) to one score a row (M,); its rows are the batch over and
over, in its order. [`score_function`] makes one of a classifier.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
