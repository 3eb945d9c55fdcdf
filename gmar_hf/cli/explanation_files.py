"""The files of `gmar-hf explain`: pictures, tensors and JSON of each image."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from gmar_hf.cli.image_arguments import safe, unique
from gmar_hf.utils.files import replacing

if TYPE_CHECKING:
    from PIL import Image

    from gmar_hf._pipeline.results import ExplanationResult
    from gmar_hf.explanation.result import Explanation

_LEAST_SIDE = 640  # pixels: small photos are enlarged, so that lines are smooth where they are looked at
_NUM_STRONGEST = 3  # heads that are listed for each label


class Taken(NamedTuple):
    """Names of files in use, without their endings, in lower case."""

    pictures: set[str]
    tensors: set[str]


@dataclass(frozen=True, kw_only=True)
class ExplanationFiles:
    """Where and how results are written.

    Args:
        folder (`Path`): Where they go.
        taken ([`Taken`]): Names of files in use.
        settings (`dict[str, Any]`): What the files say of how they were made.
        style (`str`): Of overlays, and
        grid, caption (`bool`): whether they show patches, and have a caption: see [`plotting.overlay`].
        saturated (`float`): Share of a map's patches that have the full colour.
    """

    folder: Path
    taken: Taken
    settings: dict[str, Any]
    style: str
    grid: bool
    caption: bool
    saturated: float

    def write(
        self, name: str, source: str, image: "Image.Image", results: list["ExplanationResult"]
    ) -> dict[str, Any]:
        """Write one image's pictures, tensors and JSON; the JSON comes last, so that it stands for complete results.

        Args:
            name (`str`): Of its files.
            source (`str`): What the user called it.
            image (PIL image): The image, upright.
            results (`list[ExplanationResult]`): The pipeline's.

        Returns:
            Its entry in the summary.
        """
        from gmar_hf.images.own_pictures import save_picture

        # Pictures first, then tensors, then the JSON that names them all.
        num_methods = len(self.settings["method"])
        by_target = [results[place : place + num_methods] for place in range(0, len(results), num_methods)]
        labels = [of_methods[0]["label"] for of_methods in by_target]
        pictures = unique([f"{name}-{safe(label)}" for label in labels], self.taken.pictures)
        for picture, of_methods in zip(pictures, by_target, strict=True):
            drawn = self._drawn(image, of_methods)
            with replacing(self.folder / f"{picture}.png") as temporary:
                save_picture(drawn, temporary)
            del drawn  # before the next one is drawn
        # A file a method; the first method's bears the image's name alone.
        tensors: dict[str, str] = {}
        for result in by_target[0]:
            method = result["method"]
            (file_name,) = unique([f"{name}.{method}"], self.taken.tensors) if tensors else [name]
            tensors[method] = f"{file_name}.safetensors"
            explanation = _without_targets_axis(result["explanation"], len(by_target))
            about = {"image": source, "labels": labels, "command": self.settings}
            replace(explanation, settings={**explanation.settings, **about}).save(self.folder / tensors[method])
        files = {"tensors": tensors, "overlays": [f"{picture}.png" for picture in pictures]}
        kept = ("method", "label", "score", "target", "versus", "box", "unit", "completeness_gap", "note")
        shown = [
            {**{key: result[key] for key in kept if key in result}, "top_heads": result.top_heads(_NUM_STRONGEST)}
            for result in results
        ]
        entry = {"image": source, "seen_share": round(results[0].seen_share, 4), "results": shown, "files": files}
        with replacing(self.folder / f"{name}.json") as temporary:
            text = json.dumps({**entry, "settings": self.settings}, indent=2)
            temporary.write_text(text, encoding="utf-8")
        return {**entry, "files": {"json": f"{name}.json", **files}}

    def _drawn(self, image: "Image.Image", results: list["ExplanationResult"]) -> "Image.Image":
        """Draw the maps of one target over the image, side by side: one after the other, as photographs are large."""
        from gmar_hf.plotting import side_by_side

        if len(results) == 1:
            return self._overlay(image, results[0])
        return side_by_side({result["method"]: partial(self._overlay, image, result) for result in results})

    def _overlay(self, image: "Image.Image", result: Mapping[str, Any]) -> "Image.Image":
        from gmar_hf._pipeline.results import caption_of
        from gmar_hf.plotting import overlay
        from gmar_hf.plotting.values import full_colour, has_sign

        attribution = result["attribution"]
        return overlay(
            image,
            attribution,
            box=result["box"],
            style=self.style,
            grid=self.grid,
            limit=full_colour(attribution.numpy(), self.style, self.saturated) or None,
            has_sign=has_sign(attribution, result["unit"]),
            caption=caption_of(result, image.size) if self.caption else "",
            least_side=_LEAST_SIDE,
        )


def _without_targets_axis(explanation: "Explanation", num_targets: int) -> "Explanation":
    """Return an explanation of one image as `explain` has it: with an axis of targets only where there are several."""
    if num_targets > 1:
        return explanation
    squeezed: dict[str, Any] = {
        name: tensor.squeeze(1) for name, tensor in explanation.tensors().items() if name != "logits"
    }
    return replace(explanation, **squeezed)
