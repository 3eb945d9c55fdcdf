"""The files of `gmar-hf explain`: pictures, tensors and JSON of each image."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gmar_hf.cli.file_names import FileNames
from gmar_hf.cli.image_arguments import safe
from gmar_hf.utils.files import locked, staged
from gmar_hf.utils.own_files import IMAGE, image_digest

if TYPE_CHECKING:
    from PIL import Image

    from gmar_hf._pipeline.results import ExplanationResult
    from gmar_hf.explanation.result import Explanation

_LEAST_SIDE = 640  # pixels: small photos are enlarged, so that lines are smooth where they are looked at
_NUM_STRONGEST = 3  # heads that are listed for each label


@dataclass(frozen=True, kw_only=True)
class ExplanationFiles:
    """Where and how results are written.

    Args:
        folder (`Path`): Where they go.
        names ([`FileNames`]): Gives their names.
        settings (`dict[str, Any]`): What the files say of how they were made.
        style (`str`): Of overlays, and
        grid, caption (`bool`): whether they show patches, and have a caption: see [`plotting.overlay`].
        saturated (`float`): Share of a map's patches that have the full colour.
    """

    folder: Path
    names: FileNames
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
            name (`str`): Of its files, as [`FileNames`] gave it.
            source (`str`): What the user called it.
            image (PIL image): The image, upright.
            results (`list[ExplanationResult]`): The pipeline's.

        Returns:
            Its entry in the summary.

        Raises:
            ArgumentError: If the folder cannot be written; then nothing is.
        """
        digest = image_digest(source)
        num_methods = len(self.settings["method"])
        by_target = [results[place : place + num_methods] for place in range(0, len(results), num_methods)]
        labels = [of_methods[0]["label"] for of_methods in by_target]
        versus = f"-not-{results[0]['versus']}" if "versus" in results[0] else ""
        kept = (
            "method",
            "label",
            "score",
            "target",
            "versus",
            "versus_score",
            "predicted_label",
            "predicted_score",
            "head_weights_from",
            "box",
            "unit",
            "explained_logit",
            "attention_contribution",
            "completeness_gap",
            "note",
        )
        shown = [
            {**{key: result[key] for key in kept if key in result}, "top_heads": result.top_heads(_NUM_STRONGEST)}
            for result in results
        ]
        entry = {"image": source, "seen_share": round(results[0].seen_share, 4), "results": shown}
        with staged("`--out`", self.folder) as stage:
            pictures = self._draw(stage, image, by_target, digest)
            tensors = self._save(stage, {"image": source, "labels": labels, IMAGE: digest}, by_target)
            # Names are chosen and taken while no other process does the same.
            with locked(self.folder):
                if not self.names.is_left(name, digest):
                    name = self.names.of_image(name, digest)
                places = self._name_tensors(name, list(tensors), digest)
                overlays = [self.names.of_file(f"{name}-{safe(label + versus)}", ".png", digest) for label in labels]
                files: dict[str, Any] = {"tensors": places, "overlays": overlays}
                about = {**entry, IMAGE: digest, "files": files, "settings": self.settings}
                (stage / "json").write_text(json.dumps(about, indent=2), encoding="utf-8")
                made = [*pictures, *tensors.values(), stage / "json"]
                for path, place in zip(made, [*overlays, *places.values(), f"{name}.json"], strict=True):
                    self.names.place(path, place)
        return {**entry, "files": {"json": f"{name}.json", **files}}

    def _draw(
        self, stage: Path, image: "Image.Image", by_target: list[list["ExplanationResult"]], digest: str
    ) -> list[Path]:
        """Draw a picture for each target."""
        from gmar_hf.images.own_pictures import save_picture

        pictures = [stage / f"{place}.png" for place in range(len(by_target))]
        for path, of_methods in zip(pictures, by_target, strict=True):
            save_picture(self._drawn(image, of_methods), path, digest)
        return pictures

    def _save(self, stage: Path, about: dict[str, Any], by_target: list[list["ExplanationResult"]]) -> dict[str, Path]:
        """Save the tensors of each method."""
        tensors: dict[str, Path] = {}
        for result in by_target[0]:
            path = tensors[result["method"]] = stage / f"{result['method']}.safetensors"
            explanation = _without_targets_axis(result["explanation"], len(by_target))
            settings = {**explanation.settings, **about, "command": self.settings}
            replace(explanation, settings=settings).save(path)
        return tensors

    def _name_tensors(self, name: str, methods: list[str], digest: str) -> dict[str, str]:
        """Name a file for each method; the first method's bears the image's name alone."""
        first, *others = methods
        more = {method: self.names.of_file(f"{name}.{method}", ".safetensors", digest) for method in others}
        return {first: f"{name}.safetensors", **more}

    def _drawn(self, image: "Image.Image", results: list["ExplanationResult"]) -> "Image.Image":
        """Draw the maps of one target over the image, side by side: one after the other, as photographs are large."""
        from gmar_hf.plotting import side_by_side

        if len(results) == 1:
            return self._overlay(image, results[0])
        return side_by_side({result["method"]: partial(self._overlay, image, result) for result in results})

    def _overlay(self, image: "Image.Image", result: Mapping[str, Any]) -> "Image.Image":
        from gmar_hf.plotting.result_overlay import overlay_of

        return overlay_of(
            image,
            result,
            style=self.style,
            grid=self.grid,
            saturated=self.saturated,
            caption=self.caption,
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
