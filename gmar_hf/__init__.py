"""Explain image classifiers of the ViT kind, head by head.

Importing this package registers the "gmar-explanation" task with `transformers.pipeline`; nothing else happens.
"""

from . import demo, evaluation, metrics, pipeline, plotting
from ._version import __version__
from .dataset_survey import survey
from .engine import explain
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
from .explanation import Explanation
from .modeling import (
    AttentionRetentionMixin,
    GMARBeitForImageClassification,
    GMARDeiTForImageClassification,
    GMARDeiTForImageClassificationWithTeacher,
    GMARViTForImageClassification,
)
from .pipeline import GMARExplainer
from .report import HeadImportanceReport
from .retention import retain_attention
from .silencing import silence_heads
from .survey_run import SurveyInterrupted

pipeline.register()

__all__ = [
    "ArgumentError",
    "ArgumentTypeError",
    "ArtifactError",
    "AttentionRetentionMixin",
    "Evaluation",
    "Explanation",
    "GMARBeitForImageClassification",
    "GMARDeiTForImageClassification",
    "GMARDeiTForImageClassificationWithTeacher",
    "GMARError",
    "GMARExplainer",
    "GMARViTForImageClassification",
    "HeadImportanceReport",
    "HubError",
    "ImageError",
    "NonFiniteError",
    "SurveyInterrupted",
    "UnsupportedModelError",
    "__version__",
    "demo",
    "evaluate",
    "evaluation",
    "explain",
    "metrics",
    "plotting",
    "retain_attention",
    "silence_heads",
    "survey",
]
