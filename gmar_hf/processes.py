"""The name that `gmar_hf.runs.processes` had in version 0.1; scripts that were written then find it here."""

from gmar_hf.runs.processes import joined

__all__ = ["joined"]
