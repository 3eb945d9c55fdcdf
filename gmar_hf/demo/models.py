"""Loading the bundled models, which were trained on scenes of other garments than those that ship."""

from pathlib import Path
from typing import TYPE_CHECKING

from gmar_hf.errors import ArtifactError
from gmar_hf.utils.checks import check_choice

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ViTImageProcessorPil

MODELS = ("vit", "deit", "beit")
_FOLDER = Path(__file__).parent


def load(name: str) -> "tuple[PreTrainedModel, ViTImageProcessorPil]":
    """Load a bundled model that names the garments of a scene (multi-label, the labels of [`scenes`]).

    Args:
        name (`str`): "vit", "deit" (with distillation token and teacher head) or "beit" (relative position bias, mean
            pooling). Each has 6 layers, 8 heads, 8 x 8 pixel patches and takes 64 x 64 pixels.

    Returns:
        The model, in float32 on the CPU and in eval mode, and its image processor.

    Raises:
        ArgumentError: If there is no bundled model of that name.
        ArtifactError: If the model's files are not where the package keeps them.

    Example:
        >>> from gmar_hf.demo import scenes
        >>> model, image_processor = load("vit")
        >>> pixel_values = image_processor(scenes(1)[0]["image"], return_tensors="pt").pixel_values
        >>> model(pixel_values=pixel_values).logits.shape
        torch.Size([1, 6])
    """
    # The command line lists the names without waiting for torch and transformers.
    import torch
    from transformers import AutoModelForImageClassification, ViTImageProcessorPil

    check_choice("name", name, MODELS)
    folder = _FOLDER / name
    if not (folder / "model.safetensors").is_file():
        raise ArtifactError(f"The demo model {name!r} is missing from {folder}. Install gmar-hf again.")
    model = AutoModelForImageClassification.from_pretrained(
        folder, dtype=torch.float32, local_files_only=True, trust_remote_code=False
    )
    # The class that never needs torchvision: the same pixels, and nothing said, with it and without.
    return model, ViTImageProcessorPil.from_pretrained(folder, local_files_only=True)
