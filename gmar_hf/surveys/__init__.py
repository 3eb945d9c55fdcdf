"""Head importance over a data set."""

from gmar_hf.surveys.run import SurveyInterrupted
from gmar_hf.surveys.surveying import survey

__all__ = ["SurveyInterrupted", "survey"]
