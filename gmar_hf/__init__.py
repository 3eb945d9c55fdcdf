"""Explain image classifiers of the ViT kind, head by head.

Importing this package makes the "gmar-explanation" task known to `transformers.pipeline`. Everything else is imported
when it is first used, so that a command line that only shows its help does not wait for torch.
"""

import lazy_loader

from gmar_hf import _registration

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

_registration.register_with_transformers()
