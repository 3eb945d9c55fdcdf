"""Which bundled scenes `gmar-hf demo` shows, and what is known of them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from gmar_hf.pipeline import GMARExplainer

METHODS = ("recommended", "gmar")
NUM_RIGHT, NUM_WRONG = 2, 1  # scenes shown on which the recommended map points the right way, and not
MAX_EXPLAINED = 12  # scenes, in search of them
_NUM_CANDIDATES = 60


@dataclass(frozen=True, kw_only=True)
class ShownScene:
    """A scene, its explanations, and what taking a garment out of it does.

    Args:
        scene (`dict`): From `gmar_hf.demo.scenes`.
        results (`dict[str, list[dict]]`): A method's results, one a garment, in the order of the scene's labels.
        effects (`list[float]`): By how many logits each label falls when its own garment is taken out of the scene.
    """

    scene: dict[str, Any]
    results: dict[str, list[Any]]
    effects: list[float]

    @property
    def points_right(self) -> bool:
        """Whether the recommended map of either label has twice as much on its own garment as on the other."""
        return all(points_right(self.scene, result) for result in self.results["recommended"])


def shares_on_garments(scene: dict[str, Any], result: Any) -> tuple[float, float]:
    """Return the share of a heatmap that lies on the garment asked for, and on the other one."""
    import numpy as np

    heat = np.asarray(result["heatmap"], dtype=float)
    total = heat.sum() or 1.0
    (neighbour,) = (label for label in scene["labels"] if label != result["target"])
    own, other = (heat[scene["masks"][label]].sum() / total for label in (result["target"], neighbour))
    return float(own), float(other)


def points_right(scene: dict[str, Any], result: Any) -> bool:
    """Whether a heatmap has twice as much on the garment asked for as on the other one."""
    own, other = shares_on_garments(scene, result)
    return own > 2 * other


def choose_scenes(explainer: "GMARExplainer", seed: int) -> list[ShownScene]:
    """Explain scenes until there are two on which the recommended map points the right way, and one on which not.

    Args:
        explainer ([`GMARExplainer`]): Of a bundled model.
        seed (`int`): Of the scenes.

    Returns:
        `list[ShownScene]`: At most three, that which points the wrong way at the end; all are scenes on which the
        model ranks both garments first, so that there is something to explain.
    """
    import numpy as np

    from gmar_hf import demo

    scenes = demo.scenes(_NUM_CANDIDATES, seed=seed)
    logits = _logits(explainer, scenes)
    # Column k: the logits of a scene without the garment of its k-th label.
    without = np.stack(
        [_logits(explainer, demo.scenes(_NUM_CANDIDATES, seed=seed, without=k)) for k in (0, 1)], axis=1
    )
    best = np.sort(np.argsort(-logits, axis=1)[:, :2], axis=1).tolist()
    right: list[ShownScene] = []
    wrong: list[ShownScene] = []
    ranked_first = [number for number, scene in enumerate(scenes) if scene["labels"] == best[number]]
    for number in ranked_first[:MAX_EXPLAINED]:
        scene = scenes[number]
        effects = [float(logits[number, label] - without[number, k, label]) for k, label in enumerate(scene["labels"])]
        shown = ShownScene(scene=scene, results=_explained(explainer, scene), effects=effects)
        (right if shown.points_right else wrong).append(shown)
        if len(right) >= NUM_RIGHT and len(wrong) >= NUM_WRONG:
            break
    return [*right[:NUM_RIGHT], *wrong[:NUM_WRONG]]


def _explained(explainer: "GMARExplainer", scene: dict[str, Any]) -> dict[str, list[Any]]:
    """Return what every method says of both garments."""
    results = explainer(scene["image"], target=scene["labels"], method=list(METHODS))
    return {method: [result for result in results if result["method"] == method] for method in METHODS}


def _logits(explainer: "GMARExplainer", scenes: list[dict[str, Any]]) -> "np.ndarray":
    """Return (scenes, labels)."""
    import torch

    images = [scene["image"] for scene in scenes]
    pixel_values = explainer.image_processor(images, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        logits: np.ndarray = explainer.model(pixel_values=pixel_values).logits.numpy()
    return logits
