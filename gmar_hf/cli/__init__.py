"""The command line, the only place that prints: `gmar-hf` and `python -m gmar_hf`."""

from gmar_hf.cli import check, compare, demo, env, evaluate, explain, merge, report
from gmar_hf.cli.app import app, main

__all__ = ["app", "check", "compare", "demo", "env", "evaluate", "explain", "main", "merge", "report"]
