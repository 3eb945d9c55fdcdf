"""Explain image classifiers of the ViT kind, head by head."""

from ._version import __version__
from .engine import explain
from .errors import (
    ArgumentError,
    ArgumentTypeError,
    ArtifactError,
    GMARError,
    ImageError,
    NonFiniteError,
    UnsupportedModelError,
)
from .explanation import Explanation
from .retention import retain_attention

__all__ = [
    "ArgumentError",
    "ArgumentTypeError",
    "ArtifactError",
    "Explanation",
    "GMARError",
    "ImageError",
    "NonFiniteError",
    "UnsupportedModelError",
    "__version__",
    "explain",
    "retain_attention",
]
