from .engine import explain
from .head_description import HeadDescription, describe_heads
from .result import Explanation

__all__ = ["Explanation", "HeadDescription", "describe_heads", "explain"]
