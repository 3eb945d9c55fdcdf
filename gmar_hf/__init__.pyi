from . import demo, errors, evaluation, metrics, pages, plotting
from ._pipeline.results import ExplanationResult
from ._version import __version__
from .errors import (
    ArgumentError,
    ArgumentTypeError,
    ArtifactError,
    GMARError,
    HubError,
    ImageError,
    NonFiniteError,
    UnsupportedModelError,
)
from .evaluation import Evaluation, evaluate
from .explanation import Explanation, HeadDescription, describe_heads, explain
from .modeling import (
    AttentionRetentionMixin,
    GMARBeitForImageClassification,
    GMARDeiTForImageClassification,
    GMARDeiTForImageClassificationWithTeacher,
    GMARViTForImageClassification,
)
from .models.retention import retain_attention
from .models.silencing import silence_heads
from .models.text_classifier import TextClassifier, text_classifier
from .pipeline import GMARExplainer
from .report import HeadImportanceReport
from .surveys import SurveyInterrupted, centred_head_contribution, survey

__all__ = [
    "ArgumentError",
    "ArgumentTypeError",
    "ArtifactError",
    "AttentionRetentionMixin",
    "Evaluation",
    "Explanation",
    "ExplanationResult",
    "GMARBeitForImageClassification",
    "GMARDeiTForImageClassification",
    "GMARDeiTForImageClassificationWithTeacher",
    "GMARError",
    "GMARExplainer",
    "GMARViTForImageClassification",
    "HeadDescription",
    "HeadImportanceReport",
    "HubError",
    "ImageError",
    "NonFiniteError",
    "SurveyInterrupted",
    "TextClassifier",
    "UnsupportedModelError",
    "__version__",
    "centred_head_contribution",
    "demo",
    "describe_heads",
    "errors",
    "evaluate",
    "evaluation",
    "explain",
    "metrics",
    "pages",
    "plotting",
    "retain_attention",
    "silence_heads",
    "survey",
    "text_classifier",
]
