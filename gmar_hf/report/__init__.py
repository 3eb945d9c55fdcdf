"""How much each head matters over a data set: the numbers, their files, card and Hub."""

from gmar_hf.report.report import HeadImportanceReport

__all__ = ["HeadImportanceReport"]
