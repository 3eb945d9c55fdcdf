from .models import MODELS, load
from .scene import scenes

__all__ = ["MODELS", "load", "scenes"]
