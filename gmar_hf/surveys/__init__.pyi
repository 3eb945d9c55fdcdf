from .centring import centred_head_contribution
from .survey_run import SurveyInterrupted
from .surveying import survey

__all__ = ["SurveyInterrupted", "centred_head_contribution", "survey"]
