"""Explain image classifiers of the ViT kind, head by head.

Importing this package registers the "gmar-explanation" task with `transformers.pipeline`; nothing else happens.
"""

from gmar_hf import demo, evaluation, metrics, pipeline, plotting
from gmar_hf._version import __version__
from gmar_hf.errors import (
    ArgumentError,
    ArgumentTypeError,
    ArtifactError,
    GMARError,
    HubError,
    ImageError,
    NonFiniteError,
    UnsupportedModelError,
)
from gmar_hf.evaluation import Evaluation, evaluate
from gmar_hf.explanation.engine import explain
from gmar_hf.explanation.result import Explanation
from gmar_hf.modeling import (
    AttentionRetentionMixin,
    GMARBeitForImageClassification,
    GMARDeiTForImageClassification,
    GMARDeiTForImageClassificationWithTeacher,
    GMARViTForImageClassification,
)
from gmar_hf.models.retention import retain_attention
from gmar_hf.models.silencing import silence_heads
from gmar_hf.pipeline import GMARExplainer
from gmar_hf.report.report import HeadImportanceReport
from gmar_hf.surveys.run import SurveyInterrupted
from gmar_hf.surveys.surveying import survey

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
