"""One batch explained."""

from gmar_hf.explanation.engine import explain
from gmar_hf.explanation.result import Explanation

__all__ = ["Explanation", "explain"]
