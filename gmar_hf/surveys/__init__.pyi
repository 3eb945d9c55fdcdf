from .survey_run import SurveyInterrupted
from .surveying import survey

__all__ = ["SurveyInterrupted", "survey"]
