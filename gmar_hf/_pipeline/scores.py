"""The scores that the pipeline gives beside labels."""

import torch
from torch import nn
from transformers.pipelines.image_classification import ClassificationFunction

from gmar_hf.models.introspection import is_multi_label
from gmar_hf.models.text_classifier import TextClassifier
from gmar_hf.models.wrappers import config_of


def scores_of(logits: torch.Tensor, model: nn.Module, function: ClassificationFunction | None) -> torch.Tensor:
    """Make scores of logits as `ImageClassificationPipeline` does, of texts as `ZeroShotImageClassificationPipeline`.

    Args:
        logits (`torch.Tensor` of shape (classes,)): What the model said of an image.
        model (`nn.Module`): The model, whose config says what its logits are.
        function (`ClassificationFunction`, *optional*): What to apply, in place of what suits the model.
    """
    if function is None:
        config = config_of(model)
        if config.problem_type == "regression":
            function = ClassificationFunction.NONE
        elif is_multi_label(model) or (config.num_labels == 1 and not isinstance(model, TextClassifier)):
            function = ClassificationFunction.SIGMOID
        else:
            function = ClassificationFunction.SOFTMAX
    if function is ClassificationFunction.SIGMOID:
        return logits.sigmoid()
    return logits.softmax(dim=-1) if function is ClassificationFunction.SOFTMAX else logits
