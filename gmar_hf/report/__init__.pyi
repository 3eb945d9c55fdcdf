from .report import HeadImportanceReport

__all__ = ["HeadImportanceReport"]
