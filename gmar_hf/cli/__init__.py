"""The command line, the only place that prints: `gmar-hf` and `python -m gmar_hf`."""

from .commands import app, main

__all__ = ["app", "main"]
