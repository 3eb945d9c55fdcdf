"""The "gmar-explanation" task of `transformers.pipeline`."""

import os
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import torch
from PIL import Image
from transformers import AutoModelForImageClassification, Pipeline
from transformers.pipelines import PIPELINE_REGISTRY
from transformers.pipelines.image_classification import ClassificationFunction

from gmar_hf.errors import ArgumentError, ArgumentTypeError
from gmar_hf.explanation.engine import explain_scores
from gmar_hf.explanation.head_weights import open_report
from gmar_hf.explanation.request import Request
from gmar_hf.images.placement import heatmap, image_box
from gmar_hf.images.reading import read_image
from gmar_hf.models.labels import find_label
from gmar_hf.models.targets import Choice, class_scores
from gmar_hf.plotting import overlay

_REQUEST = [one.name for one in fields(Request) if one.name != "return_maps"]  # a pipeline always makes the map
_KNOWN = [
    "top_k", "target", "versus", *_REQUEST, "interpolate_pos_encoding", "function_to_apply", "return_overlay",
    "timeout", "batch_size", "num_workers",
]  # fmt: skip


def sort_parameters(
    parameters: dict[str, Any], before: Mapping[str, Any], id2label: Mapping[int, str]
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Check the parameters that were given, and sort them by the step that takes them.

    Args:
        parameters (`dict[str, Any]`): Those of the constructor, or of a call.
        before (`Mapping[str, Any]`): The forward's parameters that hold already, which the given ones replace.
        id2label (`Mapping[int, str]`): The model's labels.

    Returns:
        Three dicts, of the parameters given only: for `preprocess`, `_forward` and `postprocess`.

    Raises:
        ArgumentError: If a value cannot be used, alone or beside the others.
        ArgumentTypeError: If there is no such parameter.
    """
    unknown = sorted(set(parameters) - set(_KNOWN))
    if unknown:
        raise ArgumentTypeError(f"`{unknown[0]}` is not a parameter of this pipeline. There are: {', '.join(_KNOWN)}.")
    given = dict(parameters)
    preprocess = {"timeout": given.pop("timeout")} if "timeout" in given else {}
    postprocess = {"return_overlay": given.pop("return_overlay")} if "return_overlay" in given else {}
    if "function_to_apply" in given:
        postprocess["function_to_apply"] = _function(given.pop("function_to_apply"))
    if given.get("head_weights") is not None:
        given["head_weights"] = open_report(given["head_weights"])  # once, and not for every batch
    forward = _choice(given, before, id2label)
    forward.update((name, given[name]) for name in ("interpolate_pos_encoding", *_REQUEST) if name in given)
    Request(**{name: given[name] for name in _REQUEST if name in given})  # which checks them
    return preprocess, forward, postprocess


def _choice(given: dict[str, Any], before: Mapping[str, Any], labels: Mapping[int, str]) -> dict[str, Any]:
    """`top_k`, `target` and `versus` as class indices; None takes back what the constructor was given."""
    top_k, target, versus = (given.get(name) for name in ("top_k", "target", "versus"))
    if top_k is not None and target is not None:
        raise ArgumentError("`top_k` must not be given together with `target` (which says what to explain). Drop one.")
    found: dict[str, Any] = {name: None for name in ("top_k", "target", "versus") if name in given}
    if top_k is not None:
        found.update(top_k=_top_k(top_k, len(labels)), target=None, versus=None)
    if target is not None:
        found.update(top_k=None, target=_indices(target, labels))
    if versus is not None:
        found["versus"] = find_label(versus, labels, "versus")
    holding: dict[str, Any] = {**before, **found}
    against = holding.get("versus")
    if against is not None and holding.get("target") is None:
        raise ArgumentError("`versus` must come with `target`: why that label and not this one. Pass `target` too.")
    if against is not None and against in holding["target"]:
        raise ArgumentError(f"`versus` must be another class than `target`; got {labels[against]!r} for both.")
    return found


def _top_k(top_k: Any, num_labels: int) -> int:
    if not isinstance(top_k, int) or isinstance(top_k, bool) or top_k < 1:
        raise ArgumentError(f"`top_k` must be an int of 1 or more; got {top_k!r}.")
    return min(top_k, num_labels)


def _indices(target: Any, labels: Mapping[int, str]) -> list[int]:
    wanted = target if isinstance(target, list | tuple) else [target]
    if not wanted:
        raise ArgumentError("`target` must name at least one label or index; got an empty list.")
    return [find_label(one, labels) for one in wanted]


def _function(name: Any) -> ClassificationFunction | None:
    if name is None or name == "default":
        return None
    names = [function.value for function in ClassificationFunction]
    if not isinstance(name, str) or name.lower() not in names:
        listed = ", ".join(f'"{known}"' for known in names)
        raise ArgumentError(f"`function_to_apply` must be one of {listed} or None; got {name!r}.")
    return ClassificationFunction(name.lower())


TASK = "gmar-explanation"
_BATCHED = ("attribution", "head_importance", "head_contribution", "head_maps")  # fields that go on to the result


class GMARExplainer(Pipeline):
    """Explains image classifiers: `pipeline("gmar-explanation", model=...)`.

    Takes a path, a URL, a PIL image, or a list, generator or torch data set of them. A single image gives a list of
    dicts, one for each target, best first (named targets in their order); a list of images gives a list of those,
    generators and data sets an iterator. Each dict has

    - `label` (`str`), `score` (`float`) and `target` (`int`) as in `ImageClassificationPipeline`, and `versus` (`str`)
      where one was given;
    - `attribution` (float32 CPU tensor (rows, cols)): the raw map;
    - `box` (`tuple[float, float, float, float]`): left, top, right, bottom of the rectangle of the image's pixels
      that the patches cover;
    - `heatmap` (PIL image, mode "L", the size of the upright input): the map's positive part divided by its maximum;
    - `head_importance` (tensor (layers, heads) or None): the head weights that the method used, rows sum to one;
    - `head_contribution` (tensor (layers, heads) or None): signed, in logits;
    - `head_weights_from` (`str`), with `head_weights`: "class", or "all images" where the report saw too few images of
      the class.

    Args (of the constructor or of a call):
        top_k (`int`, defaults to 1): How many of the best classes to explain; each costs a backward.
        target (`str`, `int` or a list of them): Labels or indices to explain instead.
        versus (`str` or `int`): Explain `target`'s logit minus this one's: why this and not that.
        method, norm, residual_weight, start_layer, head_weights, num_masks, mask_baseline, mask_pattern, seed,
            interpolate_pos_encoding: As in [`explain`].
        return_overlay (`bool`): Adds `overlay`, the heatmap on the image (PIL RGB).
        return_head_maps (`bool`): Adds `head_maps` (layers, heads, rows, cols), each head's contributions in logits.
        function_to_apply (`str`): "sigmoid", "softmax" or "none", for the scores.
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
        super().__init__(*args, **kwargs)
        if self.image_processor is None:
            raise ArgumentTypeError(
                "`image_processor` must be given where the model's repository has none; got None. "
                "Pass `image_processor=AutoImageProcessor.from_pretrained(...)`."
            )

    def __call__(self, inputs: Any, **kwargs: Any) -> Any:
        """Explain `inputs`; see the class for arguments and results."""
        if inputs is None or (isinstance(inputs, list | tuple) and not inputs):
            raise ArgumentError(
                f"`inputs` must hold at least one image; got {inputs!r}. Pass a path, a URL or a PIL image."
            )
        return super().__call__(list(inputs) if isinstance(inputs, tuple) else inputs, **kwargs)

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """Write model and image processor as a plain repository, which loads without gmar_hf too.

        Args:
            save_directory (`str` or `os.PathLike`): The folder.
            **kwargs: Handed to the model's and the processor's `save_pretrained`.
        """
        # The inherited method would name this class as code of the repository, which loads only for who trusts it.
        self.model.save_pretrained(save_directory, **kwargs)
        self.image_processor.save_pretrained(save_directory, **kwargs)

    def _sanitize_parameters(self, **parameters: Any) -> tuple[dict, dict, dict]:
        before = getattr(self, "_forward_params", {})  # the constructor's, in a call
        return sort_parameters(parameters, before, self.model.config.id2label)

    def preprocess(self, image: Any, timeout: float | None = None) -> dict[str, Any]:
        image = read_image(image, timeout=timeout)
        pixel_values = self.image_processor(images=image, return_tensors="pt")["pixel_values"]
        # In a list, as transformers would concatenate tensors without a word about sizes that differ.
        return {"pixel_values": [pixel_values.to(self.dtype)], "image": image}

    def get_inference_context(self) -> Any:
        return torch.enable_grad

    def _forward(
        self,
        model_inputs: dict[str, Any],
        top_k: int | None = None,
        target: list[int] | None = None,
        versus: int | None = None,
        interpolate_pos_encoding: bool | None = None,
        **settings: Any,
    ) -> dict[str, Any]:
        pixel_values = _stack(model_inputs["pixel_values"])

        def choose(logits: torch.Tensor) -> Choice:
            if target is None:
                indices = logits.detach().topk(top_k or 1, dim=-1).indices
            else:
                indices = torch.tensor(target, device=logits.device).expand(logits.shape[0], -1)

            def score(logits: torch.Tensor) -> list[torch.Tensor]:
                against = 0 if versus is None else logits[:, versus]
                return [found - against for found in class_scores(logits, indices)]

            return Choice(score(logits), indices, score)

        kwargs = {} if interpolate_pos_encoding is None else {"interpolate_pos_encoding": interpolate_pos_encoding}
        out = explain_scores(self.model, pixel_values, choose, Request(**settings), kwargs)
        batch = pixel_values.shape[0]
        found = {name: getattr(out, name) for name in ("logits", "target", *_BATCHED)}
        # transformers cuts batches apart along dimension 0: what is the same for every image is repeated.
        found["pixel_size"] = torch.tensor(pixel_values.shape[-2:]).repeat(batch, 1)
        found["patch_size"] = torch.tensor(out.settings["patch_size"]).repeat(batch, 1)
        if (weights := out.settings["head_weights"]) is not None:
            found["weights_from_all"] = torch.isin(
                found["target"], torch.tensor(weights["all_images_for"]).to(found["target"])
            )
        if versus is not None:
            found["versus"] = torch.full((batch,), versus)
        found["image"] = model_inputs["image"]
        return {name: value for name, value in found.items() if value is not None}

    def postprocess(
        self,
        model_outputs: dict[str, Any],
        function_to_apply: ClassificationFunction | None = None,
        return_overlay: bool = False,
    ) -> list[dict[str, Any]]:
        image: Image.Image = model_outputs["image"]
        scores = self._scores(model_outputs["logits"][0], function_to_apply)
        labels = self.model.config.id2label
        results = []
        for number, target in enumerate(model_outputs["target"][0].tolist()):
            tensors = {name: model_outputs[name][0, number].clone() for name in _BATCHED if name in model_outputs}
            box = self._box(image, tensors["attribution"].shape, model_outputs)
            result = {
                "label": labels[target],
                "score": scores[target].item(),
                "target": target,
                "attribution": tensors["attribution"],
                "box": box,
                "heatmap": heatmap(tensors["attribution"], box, image.size),
                "head_importance": tensors.get("head_importance"),
                "head_contribution": tensors.get("head_contribution"),
            }
            if "weights_from_all" in model_outputs:
                from_all = model_outputs["weights_from_all"][0, number]
                result["head_weights_from"] = "all images" if from_all else "class"
            if "versus" in model_outputs:
                result["versus"] = labels[model_outputs["versus"].item()]
            if return_overlay:
                result["overlay"] = overlay(image, result["heatmap"])
            if "head_maps" in tensors:
                result["head_maps"] = tensors["head_maps"]
            results.append(result)
        return results

    def _box(self, image: Image.Image, grid: torch.Size, outputs: dict[str, Any]) -> tuple[float, float, float, float]:
        patch_height, patch_width = outputs["patch_size"][0].tolist()
        height, width = outputs["pixel_size"][0].tolist()
        return image_box(
            image.size, self.image_processor, (height, width), (grid[0] * patch_height, grid[1] * patch_width)
        )

    def _scores(self, logits: torch.Tensor, function: ClassificationFunction | None) -> torch.Tensor:
        """Scores as `ImageClassificationPipeline` makes them."""
        config = self.model.config
        if function is None:
            if config.problem_type == "regression":
                function = ClassificationFunction.NONE
            elif config.problem_type == "multi_label_classification" or config.num_labels == 1:
                function = ClassificationFunction.SIGMOID
            else:
                function = ClassificationFunction.SOFTMAX
        if function is ClassificationFunction.SIGMOID:
            return logits.sigmoid()
        return logits.softmax(dim=-1) if function is ClassificationFunction.SOFTMAX else logits


def _stack(images: list[torch.Tensor] | list[list[torch.Tensor]]) -> torch.Tensor:
    """The lists of one (1, channels, height, width) that `preprocess` made, or a single one of them, as a batch."""
    flat = [one[0] if isinstance(one, list) else one for one in images]
    sizes = list(dict.fromkeys(f"{image.shape[-2]} x {image.shape[-1]}" for image in flat))
    if len(sizes) > 1:
        raise ArgumentError(
            f"Images of one batch must leave the image processor in one size; got {' and '.join(sizes)} pixels. "
            "Pass `batch_size=1`, or give the processor a fixed size."
        )
    return torch.cat(flat)


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
