from .engine import explain
from .result import Explanation

__all__ = ["Explanation", "explain"]
