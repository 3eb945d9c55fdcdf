"""The name that `gmar_hf.utils.files` had in version 0.1; scripts that were written then find it here."""

from gmar_hf.utils.files import replacing

__all__ = ["replacing"]
