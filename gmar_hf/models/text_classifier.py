"""Models that compare images with texts (CLIP, SigLIP), as classifiers whose labels are texts."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase, ProcessorMixin
from transformers.modeling_outputs import ImageClassifierOutput

from gmar_hf.errors import ArgumentError, ArgumentTypeError
from gmar_hf.models.flat_patches import ImagesAsPatches, takes_flat_patches
from gmar_hf.models.freezing import frozen
from gmar_hf.models.model_check import check_weights, is_dual_encoder
from gmar_hf.models.refusals import unsupported
from gmar_hf.models.wrappers import class_name, unwrapped

TEMPLATE = "This is a photo of {}."
# The model types whose logits are the scaled cosines of [`_TextHead`].
_SERVED = ("clip", "metaclip_2", "siglip", "siglip2", "altclip", "chinese_clip", "clipseg")


class TextClassifier(nn.Module):
    """An image classifier made of a dual encoder's image tower: its labels are texts. [`text_classifier`] makes it.

    The tower is the dual encoder's own, not a copy; of the texts only their embeddings are kept.

    Args:
        model (`nn.Module`): The dual encoder.
        text_embeds (`torch.Tensor` of shape (texts, channels)): What its text tower and projection make of the texts.
        labels (`Sequence[str]`): One for each text.
        hypothesis_template (`str`, defaults to "{}"): What made the texts of the labels.

    Attributes:
        config (`PreTrainedConfig`): The image tower's, with the labels.
    """

    def __init__(
        self, model: nn.Module, text_embeds: torch.Tensor, labels: Sequence[str], hypothesis_template: str = "{}"
    ) -> None:
        super().__init__()
        self.labels, self.hypothesis_template = list(labels), hypothesis_template
        encoder = unwrapped(model)
        tower = encoder.vision_model
        self.vision_model = ImagesAsPatches(tower) if takes_flat_patches(tower) else tower
        self.visual_projection = getattr(encoder, "visual_projection", None)  # SigLIP has none
        self.head = _TextHead(text_embeds, encoder.logit_scale, getattr(encoder, "logit_bias", None))
        self.config = copy.deepcopy(encoder.config.vision_config)
        self.config.id2label = dict(enumerate(labels))
        self.config.label2id = {label: index for index, label in enumerate(labels)}
        # SigLIP was trained to say of each text alone whether it holds.
        is_siglip = self.head.logit_bias is not None
        self.config.problem_type = "multi_label_classification" if is_siglip else "single_label_classification"
        self.config._name_or_path = encoder.config._name_or_path
        self.training = self.head.training = encoder.training  # not by `train`, which would reach into the tower

    def forward(self, pixel_values: torch.Tensor, **kwargs: Any) -> ImageClassifierOutput:
        """Return the logits (batch, texts) of images; further arguments are the image tower's."""
        image_embeds = self.vision_model(pixel_values=pixel_values, **kwargs).pooler_output
        if self.visual_projection is not None:
            image_embeds = self.visual_projection(image_embeds)
        return ImageClassifierOutput(logits=self.head(image_embeds))


class _TextHead(nn.Module):
    """Compares images with texts: the cosine of their embeddings, times a scale, plus SigLIP's bias."""

    def __init__(self, text_embeds: torch.Tensor, logit_scale: nn.Parameter, logit_bias: nn.Parameter | None) -> None:
        super().__init__()
        unit = text_embeds / text_embeds.norm(dim=-1, keepdim=True)
        self.text_embeds = nn.Parameter(unit, requires_grad=False)
        self.logit_scale, self.logit_bias = logit_scale, logit_bias

    def forward(self, image_embeds: torch.Tensor) -> torch.Tensor:
        unit = image_embeds / image_embeds.norm(dim=-1, keepdim=True)
        logits = unit @ self.text_embeds.T.to(unit) * self.logit_scale.exp().to(unit.device)
        return logits if self.logit_bias is None else logits + self.logit_bias.to(unit.device)


def text_classifier(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase | ProcessorMixin,
    labels: Sequence[str],
    hypothesis_template: str = TEMPLATE,
) -> TextClassifier:
    """Make an image classifier whose labels are texts, of a model that compares images with texts.

    Its logits are the model's `logits_per_image` (CLIP, Radford et al. 2021, arXiv 2103.00020; SigLIP, Zhai et al.
    2023, arXiv 2303.15343), and what takes a classifier takes it: [`explain`], [`survey`], [`evaluate`] and others.
    The texts are read once, here: after training the text tower, make another.

    Args:
        model (`nn.Module`): A dual encoder of transformers, such as `CLIPModel`, `MetaClip2Model` or `SiglipModel`. It
            stays as it was; its image tower and projection serve in the classifier, uncopied.
        tokenizer (`PreTrainedTokenizerBase` or `ProcessorMixin`): The model's, or its processor, which holds one.
        labels (`Sequence[str]`): The texts, all different.
        hypothesis_template (`str`, defaults to "This is a photo of {}."): What each label is put into, at `{}`; "{}"
            where the labels are whole texts.

    Returns:
        [`TextClassifier`]: A module that takes `pixel_values` and returns `.logits` (batch, labels).

    Raises:
        ArgumentError: If there are no labels, two are the same, one is empty, the template has no `{}`, a text has
            more tokens than the model reads, or the model's weights are inference tensors or on the meta device.
        ArgumentTypeError: If the model is no dual encoder, the tokenizer is none, or a label is no string.
        UnsupportedModelError: If the model's kind is not served.

    Example:
        >>> import gmar_hf
        >>> from transformers import AutoModelForZeroShotImageClassification, AutoTokenizer
        >>> name = "openai/clip-vit-base-patch32"
        >>> model = AutoModelForZeroShotImageClassification.from_pretrained(name)  # doctest: +SKIP
        >>> tokenizer = AutoTokenizer.from_pretrained(name)  # doctest: +SKIP
        >>> classifier = gmar_hf.text_classifier(model, tokenizer, ["a cat", "a dog"])  # doctest: +SKIP
        >>> gmar_hf.explain(classifier, pixel_values, target=1, method="recommended")  # doctest: +SKIP
    """
    check_texts("labels", labels, hypothesis_template)
    encoder = checked_encoder(model)
    if isinstance(tokenizer, ProcessorMixin):
        tokenizer = getattr(tokenizer, "tokenizer", None)
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise ArgumentTypeError(
            "`tokenizer` must be the model's tokenizer or processor (it reads the labels); got "
            f"{type(tokenizer).__name__}. Load it with `AutoTokenizer.from_pretrained`."
        )
    texts = [hypothesis_template.format(label) for label in labels]  # as transformers' own pipeline does
    most = encoder.config.text_config.max_position_embeddings
    longest = max(len(ids) for ids in tokenizer(texts)["input_ids"])
    if longest > most:
        raise ArgumentError(
            f"Every label in its template must have at most {most} tokens (the model reads no more); got {longest}. "
            "Shorten the longest."
        )
    # Padded as in transformers' own pipeline: SigLIP has only ever seen texts of full length.
    is_siglip = "siglip" in encoder.config.model_type
    padding = {"padding": "max_length", "max_length": most} if is_siglip else {"padding": True}
    tokens = tokenizer(texts, return_tensors="pt", **padding)
    with torch.inference_mode(False), torch.no_grad():
        with frozen(encoder):
            text_embeds = encoder.get_text_features(**tokens.to(encoder.device)).pooler_output
        return TextClassifier(encoder, text_embeds, labels, hypothesis_template)


def check_texts(argument: str, labels: object, hypothesis_template: object) -> None:
    """Refuse labels that are no list of different texts, or a template that does not take them.

    Args:
        argument (`str`): What the labels are called.
        labels (`object`): What was given as labels.
        hypothesis_template (`object`): What was given as template.

    Raises:
        ArgumentError: If they are of the right kind and cannot be used.
        ArgumentTypeError: If they are of another kind.

    Example:
        >>> check_texts("labels", ["a cat", "a cat"], "{}")
        Traceback (most recent call last):
        ...
        gmar_hf.errors.ArgumentError: `labels` must all be different; got 'a cat' twice. Drop one.
    """
    if isinstance(labels, str) or not isinstance(labels, Sequence):
        advice = f"Pass [{labels!r:.40}]." if isinstance(labels, str) else "Make a list of it."
        raise ArgumentTypeError(f"`{argument}` must be a list of texts; got {labels!r:.80}. {advice}")
    if not labels:
        raise ArgumentError(f"`{argument}` must hold at least one text; got {labels!r}. Name what may be seen.")
    for label in labels:
        if not isinstance(label, str):
            raise ArgumentTypeError(f"`{argument}` must be texts; got {label!r:.80}. Write them as strings.")
        if not label.strip():
            raise ArgumentError(f"`{argument}` must not be empty texts; got {label!r}. Drop it.")
    twice = [label for place, label in enumerate(labels) if label in labels[:place]]
    if twice:
        raise ArgumentError(f"`{argument}` must all be different; got {twice[0]!r:.80} twice. Drop one.")
    if not isinstance(hypothesis_template, str):
        raise ArgumentTypeError(
            f"`hypothesis_template` must be a text with {{}} in it; got {hypothesis_template!r:.80}. "
            f'Pass "{TEMPLATE}".'
        )
    if not _takes_labels(hypothesis_template):
        raise ArgumentError(
            f"`hypothesis_template` must have one {{}} where each label goes; got {hypothesis_template!r:.80}. "
            f'Pass "{TEMPLATE}", or "{{}}" for the labels as they are.'
        )


def _takes_labels(hypothesis_template: str) -> bool:
    label = "\0"  # in no template
    try:
        return label in hypothesis_template.format(label)
    except (IndexError, KeyError, ValueError, AttributeError):  # more than one place, or places with names
        return False


def checked_encoder(model: Any) -> Any:
    """Return the dual encoder that computes in a user's model.

    Args:
        model (`nn.Module`): What the user gave.

    Raises:
        ArgumentError: If no gradient can pass its weights.
        ArgumentTypeError: If it is no dual encoder.
        UnsupportedModelError: If its kind is not served.
    """
    if not is_dual_encoder(model):
        raise ArgumentTypeError(
            "`model` must be a model of transformers that compares images with texts, such as CLIPModel; got "
            f"{class_name(model)}. Load it with `AutoModelForZeroShotImageClassification.from_pretrained`."
        )
    check_weights(model)
    encoder = unwrapped(model)
    if encoder.config.model_type not in _SERVED:
        raise unsupported(model, f"of models that compare images with texts {', '.join(_SERVED)} are served")
    return encoder
