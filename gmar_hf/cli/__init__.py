"""The command line, the only place that prints: `gmar-hf` and `python -m gmar_hf`."""

from . import commands, data_commands
from .app import app, main

__all__ = ["app", "commands", "data_commands", "main"]
