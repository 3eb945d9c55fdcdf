from .head_importance_report import HeadImportanceReport

__all__ = ["HeadImportanceReport"]
