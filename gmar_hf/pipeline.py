"""The "gmar-explanation" task of `transformers.pipeline`."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import fields
from typing import TYPE_CHECKING, Any, overload

import torch
from torch.utils.data import Dataset, IterableDataset
from transformers import Pipeline
from transformers.pipelines import PIPELINE_REGISTRY
from transformers.pipelines.image_classification import ClassificationFunction

from gmar_hf._pipeline.images import prepare_image, stack_images
from gmar_hf._pipeline.models import dtype_of, pipeline_model, save_pretrained, users_model
from gmar_hf._pipeline.parameters import check_batching, make_requests, sort_parameters
from gmar_hf._pipeline.results import ExplanationResult, ResultList, covered_box, describe_target
from gmar_hf._pipeline.scores import scores_of
from gmar_hf._pipeline.texts import Texts, take_texts
from gmar_hf.errors import ArgumentError, ArgumentTypeError
from gmar_hf.explanation.engine import explain_scores
from gmar_hf.explanation.result import Explanation
from gmar_hf.models.auto_model import AutoModelForImageClassification
from gmar_hf.models.labels import check_label_names
from gmar_hf.models.model_check import is_dual_encoder
from gmar_hf.models.targets import Choice, class_scores
from gmar_hf.models.wrappers import class_name
from gmar_hf.plotting.notebook import thumbnail
from gmar_hf.plotting.result_overlay import overlay_of
from gmar_hf.utils.iteration import GuardedItems, no_stop_iteration

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

    from gmar_hf.report.head_importance_report import HeadImportanceReport

TASK = "gmar-explanation"
_FIELDS = [field.name for field in fields(Explanation) if field.name != "settings"]


class GMARExplainer(Pipeline):
    """Explains image classifiers: `pipeline("gmar-explanation", model=...)`.

    Takes a path, a URL, a PIL image, an array or tensor as `ImageClassificationPipeline` takes it (numbers from 0 to
    255, channels first or last), or a list, iterator or torch data set of them. A single image gives a list of dicts,
    one for each target, best first (named targets in their order); a list of images gives a list of those, iterators
    and data sets an iterable. They show themselves in notebooks. Each dict ([`ExplanationResult`], whose
    `to_dict()` is JSON, and whose `seen_share` says how much of the image a crop has left) has

    - `method` (`str`): the map's; of several, the results of a target follow each other in the methods' order;
    - `label` (`str`), `score` (`float`) and `target` (`int`) as in `ImageClassificationPipeline`, and `versus` (`str`)
      and its `versus_score` where one was given;
    - `predicted_label` (`str`) and `predicted_score` (`float`): the model's best class, whichever is explained;
    - `attribution` (float32 CPU tensor (rows, cols)): the raw map, and `unit` (`str`), what its numbers count:
      "logits" or "share of attention";
    - `box` (`tuple[float, float, float, float]`): left, top, right, bottom of the rectangle of the image's pixels
      that the patches cover;
    - `heatmap` (PIL image, mode "L", the size of the upright input): the map's positive part divided by its maximum;
    - `head_importance` (tensor (layers, heads) or None): the head weights that the method used, rows sum to one;
    - `head_contribution` (tensor (layers, heads) or None): signed, in logits;
    - `head_contribution_centred` (tensor (layers, heads) or None): the same of outputs less their mean;
    - `explained_logit` (`float`): what the map is of, the label's logit; with `versus`, less that label's;
    - `attention_contribution` (`float`), with "recommended" and "path" without `num_masks`: how much of it all
      attention adds, the logit less that of the model without any attention; and `completeness_gap` (`float`): by how
      much all contributions together are more than that;
    - `note` (`str`), what to beware of: that two patches hold most of a rollout; that the contributions of a path are
      half of what they should come to, twice it, or worse; that attention speaks for the other one of two labels than
      the model; or that a map cannot tell two labels apart;
    - `head_weights_from` (`str`), with `head_weights`: "class", or "all images" where the report saw too few images of
      the class.

    The constructor takes these arguments, or a call, for itself alone.

    Args:
        top_k (`int`, defaults to 1): How many of the best classes to explain, all if there are fewer; each costs a
            backward.
        target (`str`, `int` or a list of them): The labels or indices to explain, in place of the best.
        versus (`str` or `int`): Explain `target`'s logit minus this one's: why this and not that.
        candidate_labels (`list[str]`): The labels, where the model compares images with texts (CLIP, SigLIP).
        hypothesis_template (`str`, defaults to "This is a photo of {}."): What these are put into, at `{}`.
        method (`str` or a list of them, defaults to "gmar"): How the map is made; [`explain`] says what each name
            means. The default cannot tell why this class and not another.
        norm, residual_weight, start_layer, num_points, value_reference: More of how, as [`explain`] takes it.
        num_masks, mask_baseline, mask_pattern, seed: The same, of maps that are averaged over hidden patches.
        head_weights ([`HeadImportanceReport`], its repo id or folder): Weigh heads as this report does, in place of by
            the gradient.
        interpolate_pos_encoding (`bool`): Handed to models that know it, which then take images of any size.
        return_overlay (`bool`): Adds `overlay`, the map on the image (PIL RGB).
        overlay_style (`str`, defaults to "positive"): "positive", or "signed": what speaks against the label, too.
        overlay_grid, overlay_caption (`bool`): Draw the overlay patch by patch; put label, score, method and the scale
            below it. [`plotting.overlay`] says more.
        return_heatmap (`bool`, defaults to True): False leaves `heatmap` out, which is as large as the image.
        return_head_maps (`bool`): Adds `head_maps` (layers, heads, rows, cols), each head's contributions in logits.
        return_explanation (`bool`): Adds `explanation`, an [`Explanation`] of the image with all its targets, which
            can be saved.
        function_to_apply (`str`): "sigmoid", "softmax" or "none", which makes scores of logits.
        timeout (`float`): Seconds that a URL may take; None for no limit.

    Example:
        >>> import gmar_hf, gmar_hf.demo
        >>> model, image_processor = gmar_hf.demo.load("vit")
        >>> explain = gmar_hf.GMARExplainer(model=model, image_processor=image_processor, device="cpu")
        >>> result = explain(gmar_hf.demo.scenes(1)[0]["image"], method="contribution")
        >>> result[0]["attribution"].shape, result[0]["heatmap"].size
        (torch.Size([8, 8]), (64, 64))
    """

    _load_processor = False
    _load_image_processor = True
    _load_feature_extractor = False
    _load_tokenizer = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        check_batching(kwargs)
        if args:
            args = (pipeline_model(args[0]), *args[1:])
        if "model" in kwargs:
            kwargs["model"] = pipeline_model(kwargs["model"])
        super().__init__(*args, **kwargs)
        self.model: Any = users_model(self.model)
        if self.image_processor is None:
            raise ArgumentTypeError(
                "`image_processor` must be given where the model's repository has none; got None. "
                "Pass `image_processor=AutoImageProcessor.from_pretrained(...)`."
            )
        if not is_dual_encoder(self.model):
            check_label_names(self.model)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({class_name(self.model)}, device={str(self.device)!r})"

    @property
    def dtype(self) -> torch.dtype | None:
        """The type of the model's weights."""
        return dtype_of(self.model)

    @overload
    def __call__(
        self, inputs: "str | os.PathLike[str] | Image | np.ndarray | torch.Tensor", **kwargs: Any
    ) -> ResultList[ExplanationResult]: ...

    @overload
    def __call__(
        self, inputs: list[Any] | tuple[Any, ...], **kwargs: Any
    ) -> ResultList[ResultList[ExplanationResult]]: ...

    @overload
    def __call__(
        self, inputs: Iterator[Any] | Dataset[Any], **kwargs: Any
    ) -> Iterable[ResultList[ExplanationResult]]: ...

    def __call__(self, inputs: Any = None, **kwargs: Any) -> Any:
        """Explain `inputs`; see the class for arguments and results."""
        inputs = kwargs.pop("images", None) if inputs is None else inputs  # as image classification calls them, too
        if inputs is None or (isinstance(inputs, list | tuple) and not inputs):
            raise ArgumentError(
                f"`inputs` must hold at least one image; got {inputs!r}. Pass a path, a URL or a PIL image."
            )
        if isinstance(inputs, tuple):
            inputs = list(inputs)
        elif isinstance(inputs, Iterator) and not hasattr(inputs, "read"):  # transformers knows of generators alone
            inputs = (each for each in inputs)
        elif isinstance(inputs, Dataset) and not isinstance(inputs, IterableDataset) and hasattr(inputs, "__len__"):
            inputs = GuardedItems(inputs, "inputs")
        check_batching(kwargs)
        results = super().__call__(inputs, **kwargs)
        return ResultList(results) if type(results) is list else results

    def save_pretrained(self, save_directory: str | os.PathLike[str], **kwargs: Any) -> None:
        """Write model and processors to a folder as a plain repository, which loads without gmar_hf too."""
        save_pretrained(self, save_directory, **kwargs)

    def _sanitize_parameters(self, **parameters: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        before = getattr(self, "_forward_params", None)  # the constructor's, in a call
        others, texts = take_texts(parameters, before, self.model)
        labels = {} if texts is None and is_dual_encoder(self.model) else self._classifier(texts).config.id2label
        steps = sort_parameters(others, before or {}, labels)
        for step in steps[1:] if texts is not None else ():
            step["texts"] = texts
        return steps

    def _classifier(self, texts: Texts | None) -> Any:
        return self.model if texts is None else texts.classifier(self.model, self.tokenizer)

    @no_stop_iteration("image_processor", "preprocessing an image")
    def preprocess(self, image: Any, timeout: float | None = None, return_overlay: bool = False) -> dict[str, Any]:
        picture, pixel_values = prepare_image(image, self.image_processor, timeout)
        # In a list, as transformers would concatenate tensors without a word about sizes that differ. The picture is
        # large, and of no use but to draw on.
        inputs = {
            "pixel_values": [pixel_values.to(self.dtype)],
            "image_size": picture.size,
            "thumbnail": thumbnail(picture),
        }
        return {**inputs, "image": picture} if return_overlay else inputs

    def get_inference_context(self) -> Any:
        return torch.enable_grad

    @no_stop_iteration("model", "explaining a batch")
    def _forward(
        self,
        model_inputs: dict[str, Any],
        top_k: int | None = None,
        target: list[int] | None = None,
        versus: int | None = None,
        head_weights: "HeadImportanceReport | None" = None,
        interpolate_pos_encoding: bool | None = None,
        texts: Texts | None = None,
        **settings: Any,
    ) -> dict[str, Any]:
        classifier = self._classifier(texts)
        pixel_values = stack_images(model_inputs["pixel_values"])

        def choose(logits: torch.Tensor) -> Choice:
            check_label_names(classifier, logits.shape[1])
            if target is None:
                indices = logits.detach().topk(min(top_k or 1, logits.shape[1]), dim=-1).indices
            else:
                indices = torch.tensor(target, device=logits.device).expand(logits.shape[0], -1)

            def score(logits: torch.Tensor) -> list[torch.Tensor]:
                against = 0 if versus is None else logits[:, versus]
                return [class_score - against for class_score in class_scores(logits, indices)]

            return Choice(score(logits), indices, score)

        requests = make_requests({**settings, "head_weights": head_weights})
        kwargs = {} if interpolate_pos_encoding is None else {"interpolate_pos_encoding": interpolate_pos_encoding}
        explanations = explain_scores(classifier, pixel_values, choose, requests, kwargs, head_weights)
        # transformers cuts batches apart along dimension 0, and lists by their entries: what is the same for every
        # image of a batch is repeated. A single image comes without a list.
        more = {"pixel_size": list(pixel_values.shape[-2:]), "versus": versus}
        shared = {"by_method": [{**explanation.settings, **more} for explanation in explanations]}
        tensors = {
            f"{place}.{name}": tensor
            for place, explanation in enumerate(explanations)
            for name, tensor in explanation.tensors().items()
        }
        pictures = {name: value for name, value in model_inputs.items() if name != "pixel_values"}
        is_batch = isinstance(pictures["image_size"], list)
        return {**tensors, **pictures, "settings": [shared] * len(pixel_values) if is_batch else shared}

    def postprocess(
        self,
        model_outputs: dict[str, Any],
        function_to_apply: ClassificationFunction | None = None,
        return_overlay: bool = False,
        overlay_style: str = "positive",
        overlay_grid: bool = False,
        overlay_caption: bool = False,
        return_heatmap: bool = True,
        return_explanation: bool = False,
        texts: Texts | None = None,
    ) -> ResultList[ExplanationResult]:
        image_size: tuple[int, int] = model_outputs["image_size"]
        explanations = [
            Explanation(
                **{name: tensor for name in _FIELDS if (tensor := model_outputs.get(f"{place}.{name}")) is not None},
                settings=settings,
            )
            for place, settings in enumerate(model_outputs["settings"]["by_method"])
        ]
        first = explanations[0]
        assert first.logits is not None
        assert first.target is not None
        classifier = self._classifier(texts)
        scores = scores_of(first.logits[0], classifier, function_to_apply)
        box = covered_box(image_size, first.settings, self.image_processor)
        labels, heatmap_size = classifier.config.id2label, image_size if return_heatmap else None
        results: ResultList[ExplanationResult] = ResultList()
        for number, target in enumerate(first.target[0].tolist()):
            for explanation in explanations:
                entries = describe_target(explanation, number, target, scores, labels, box, heatmap_size)
                result = ExplanationResult(entries, model_outputs["thumbnail"], image_size)
                if return_overlay:
                    how: dict[str, Any] = {"style": overlay_style, "grid": overlay_grid, "caption": overlay_caption}
                    result["overlay"] = overlay_of(model_outputs["image"], result, **how)
                if return_explanation:
                    copies = {name: tensor.clone() for name, tensor in explanation.tensors().items()}
                    result["explanation"] = Explanation(**copies, settings={**explanation.settings, "box": list(box)})
                results.append(result)
        return results


def register() -> None:
    """Make the task known to `transformers.pipeline`, with the model that transformers itself pins for the kind."""
    if TASK in PIPELINE_REGISTRY.supported_tasks:
        return  # a second registration would only log a warning
    PIPELINE_REGISTRY.register_pipeline(
        TASK,
        pipeline_class=GMARExplainer,
        pt_model=AutoModelForImageClassification,
        default={"model": PIPELINE_REGISTRY.supported_tasks["image-classification"]["default"]["model"]},
        type="image",
    )


register()
