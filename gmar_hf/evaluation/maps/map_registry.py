"""The registry of the maps that can be measured side by side: all that is known of each one, in one row.

A new map is a new row here; users add theirs by [`register_map_method`]. Nothing of torch is loaded before a row
draws, since the command line lists the rows.
"""

import re
from collections.abc import Callable

from gmar_hf.errors import ArgumentError
from gmar_hf.evaluation.maps.method import MapFunction, MapMethod, drawn_by, explained, first_line

BUILT_IN = (
    MapMethod(
        name="contribution",
        draw=explained(method="contribution"),
        cost=2,
        about="what attention to a patch adds to the class's logit or takes from it, to first order; signed",
        is_default=True,
    ),
    MapMethod(
        name="removal",
        draw=explained(method="removal"),
        cost=2,
        about="what a little less attention to a patch, given to all others, takes from the logit; signed",
        is_default=True,
    ),
    MapMethod(
        name="path",
        draw=explained(method="path", return_logits=False),
        cost=4,
        about="contributions at two points of the path along which all attention is scaled up from nothing; signed",
        is_default=True,
    ),
    MapMethod(
        name="recommended",
        draw=explained(method="recommended", return_logits=False),
        cost=4,
        about="contributions with all attention scaled to 1/3 and to 3/4, less half of what all tokens share; signed",
        is_default=True,
    ),
    MapMethod(
        name="path-half-centred",
        draw=explained(method="path", value_reference=0.5, return_logits=False),
        cost=4,
        about="as path, leaving out half of what all tokens have in common; signed",
    ),
    MapMethod(
        name="path-half-centred-4",
        draw=explained(method="path", value_reference=0.5, num_points=4, return_logits=False),
        cost=8,
        about="as path-half-centred, at four points of the path in place of two; signed",
    ),
    MapMethod(
        name="path-centred",
        draw=explained(method="path", value_reference=1.0, return_logits=False),
        cost=4,
        about="as path, leaving out all that the tokens have in common; signed",
    ),
    MapMethod(
        name="path-removal",
        draw=explained(method="path", value_reference="output", return_logits=False),
        cost=4,
        about="as removal, at two points of the path along which all attention is scaled up; signed",
    ),
    MapMethod(
        name="masked-contribution",
        draw=explained(method="contribution", num_masks=4, mask_baseline="blur"),
        cost=9,  # four passes, and the whole image's logits
        baseline="blur",
        about="contributions averaged over four images of which a random half is blurred, in opposite pairs; signed",
        is_default=True,
    ),
    MapMethod(
        name="partition-contribution",
        draw=explained(method="contribution", num_masks=4, mask_baseline="blur", mask_pattern="partition"),
        cost=9,
        baseline="blur",
        about="contributions averaged over four images, another quarter of the patches blurred in each; signed",
        is_default=True,
    ),
    MapMethod(
        name="gradient-rollout",
        draw=explained(method="gradient-rollout"),
        cost=2,
        about="attention times its gradient, positive parts, rolled out through the layers (Chefer et al. 2021)",
        is_default=True,
        needs_one_map=True,
    ),
    MapMethod(
        name="gmar-l1",
        draw=explained(method="gmar", norm="l1"),
        cost=2,
        about="rollout of heads weighted by the L1 norm of their attention's gradient (Jo et al. 2025)",
        is_default=True,
        needs_one_map=True,
    ),
    MapMethod(
        name="gmar-l2",
        draw=explained(method="gmar", norm="l2"),
        cost=2,
        about="rollout of heads weighted by the L2 norm of their attention's gradient",
        is_default=True,
        needs_one_map=True,
    ),
    MapMethod(
        name="rollout",
        draw=explained(method="rollout"),
        cost=1,
        about="attention, heads averaged, rolled out through the layers (Abnar and Zuidema 2020); no class in it",
        is_default=True,
        needs_one_map=True,
    ),
    MapMethod(
        name="attention",
        draw=explained(method="attention"),
        cost=1,
        about="the last layer's attention, heads averaged; no class in it",
        is_default=True,
        needs_one_map=True,
    ),
    MapMethod(
        name="legrad",
        draw=drawn_by("legrad:legrad"),
        cost=2,
        about="positive gradients of every layer's attention (Bousselham et al. 2024; their code reads the last two)",
        is_default=True,
        needs_one_map=True,
    ),
    MapMethod(
        name="integrated-gradients",
        draw=drawn_by("libraries:integrated_gradients"),
        cost=64,
        baseline="blur",
        needs=("captum",),
        about="pixels' gradients along 32 images from the blurred one to the image (captum); signed",
    ),
    MapMethod(
        name="expected-gradients",
        draw=drawn_by("libraries:expected_gradients"),
        cost=64,
        baseline=("blur", "zero", "mean"),
        needs=("captum",),
        about="pixels' gradients on ways from two blurs, zero and the mean, eight images each (captum); signed",
    ),
    MapMethod(
        name="occlusion",
        draw=drawn_by("libraries:occlusion"),
        cost=lambda num_patches: num_patches + 1,
        baseline="blur",
        needs=("captum",),
        about="what the logit loses when one patch is blurred (captum); signed",
    ),
    MapMethod(
        name="input-x-gradient",
        draw=drawn_by("libraries:input_x_gradient"),
        cost=2,
        baseline="zero",
        needs=("captum",),
        about="pixel values times the logit's gradient (captum); signed",
    ),
    MapMethod(
        name="grad-cam",
        draw=drawn_by("libraries:grad_cam"),
        cost=2,
        needs=("torchcam",),
        about="the last layer's features weighted by their mean gradient, positive part (torch-cam)",
        needs_one_map=True,
    ),
    MapMethod(
        name="gmar-shuffled",
        draw=drawn_by("controls:shuffled_weights"),
        cost=3,
        about="control: GMAR with each layer's weights dealt out to other heads",
        is_control=True,
        is_default=True,
        needs_one_map=True,
    ),
    MapMethod(
        name="gmar-uniform",
        draw=drawn_by("controls:uniform_weights"),
        cost=1,
        about="control: GMAR with equal weights, which is rollout",
        is_control=True,
        needs_one_map=True,
    ),
    MapMethod(
        name="edges",
        draw=drawn_by("controls:edges"),
        cost=0,
        about="control: where the image has edges; knows no model",
        is_control=True,
        is_default=True,
    ),
    MapMethod(
        name="centre-blob",
        draw=drawn_by("controls:centre_blob"),
        cost=0,
        about="control: a blob in the middle; knows no image",
        is_control=True,
        is_default=True,
    ),
    MapMethod(
        name="random",
        draw=drawn_by("controls:random"),
        cost=0,
        about="control: noise",
        is_control=True,
        is_default=True,
    ),
)
"""The maps that come along, in the order of the tables."""

MAP_METHODS: dict[str, MapMethod] = {method.name: method for method in BUILT_IN}
"""All maps by name: those that come along, then those that users registered."""

NAMES_IN_EXPLAIN = {"gmar": "gmar-l1"}
"""What `explain` calls a method by default settings, and its row among the maps."""

DEFAULT_METHODS = tuple(method.name for method in BUILT_IN if method.is_default)
"""The maps that are drawn by default: they need no other package, and no two are the same."""


def register_map_method(
    name: str,
    draw: MapFunction,
    *,
    cost: float | Callable[[int], float] | None = None,
    baseline: str | tuple[str, ...] | None = None,
    about: str | None = None,
) -> MapMethod:
    """Add a map of your own to the registry, where [`evaluate`] looks its `methods` up.

    Args:
        name (`str`): The name in tables and options: lower case letters, digits and hyphens.
        draw (`Callable`): From a model, pixel values (rows, channels, height, width) and classes (rows,) to maps
            (rows, grid rows, grid columns), finite, on any device.
        cost (`float` or `Callable[[int], float]`, *optional*): For one class of one image, in forwards, a backward
            counting as one; or a function from the number of patches to it.
        baseline (`str` or `tuple[str, ...]`, *optional*): What it fills hidden pixels with, if it does.
        about (`str`, *optional*): In a few words, what it shows; by default the first line of the function's
            docstring.

    Returns:
        [`MapMethod`]: The new row.

    Raises:
        ArgumentError: If the name is taken, by a map or a method of `explain`, or not made of lower case letters,
            digits and hyphens, or if `draw` is no function.

    Example:
        >>> import gmar_hf, gmar_hf.demo
        >>> from gmar_hf.evaluation import register_map_method
        >>> def magnitudes(model, pixel_values, target):
        ...     return gmar_hf.explain(model, pixel_values, target, method="contribution").attribution.abs()
        >>> method = register_map_method("magnitudes", magnitudes, cost=2, about="contributions without their sign")
        >>> model, image_processor = gmar_hf.demo.load("vit")
        >>> evaluation = gmar_hf.evaluate(
        ...     model, gmar_hf.demo.scenes(2), image_processor, methods=["magnitudes"], metrics=["sparseness"]
        ... )
        >>> evaluation.methods[0]["name"]
        'magnitudes'
        >>> _ = MAP_METHODS.pop("magnitudes")  # nothing else needs it
    """
    if not isinstance(name, str) or not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name):
        raise ArgumentError(f"`name` must be of lower case letters, digits and hyphens; got {name!r}.")
    if name in MAP_METHODS or name in NAMES_IN_EXPLAIN:
        raise ArgumentError(f"`name` must not be taken; got {name!r}, which is. Choose another.")
    if not callable(draw):
        raise ArgumentError(f"`draw` must be a function; got {type(draw).__name__}.")
    about = first_line(draw) if about is None else about
    MAP_METHODS[name] = MapMethod(name=name, draw=draw, cost=cost, baseline=baseline, about=about)
    return MAP_METHODS[name]
