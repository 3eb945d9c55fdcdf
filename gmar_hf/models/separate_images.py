"""Does what a model gives for an image come from that image alone, or from the others of its batch too?"""

from typing import Any, cast

import torch
from torch import nn

from gmar_hf.errors import UnsupportedModelError
from gmar_hf.models.wrappers import class_name


def are_separate(outputs: torch.Tensor, inputs: torch.Tensor) -> bool:
    """Tell whether each image's output depends on that image's inputs only, by exact zeros of the gradient.

    Any two numbers differ in a binary digit, so it is enough to ask for every digit whether the images that have it
    move the others' inputs: two small backwards a digit. Each image weighs something else, so that nothing cancels.

    Args:
        outputs (`torch.Tensor` of shape (batch, ...)): Made from `inputs`, whose graph is kept.
        inputs (`torch.Tensor` of shape (batch, ...)): Wants gradients.
    """
    places = torch.arange(len(outputs), device=outputs.device)
    weights = 0.5 + torch.rand(outputs.shape, generator=torch.Generator().manual_seed(0), device="cpu").to(outputs)
    by_image = places.reshape(-1, *[1] * (outputs.ndim - 1))
    for digit in range((len(outputs) - 1).bit_length()):
        for asked in ((by_image >> digit) % 2 == 0, (by_image >> digit) % 2 == 1):
            upstream = torch.where(asked, weights, 0)
            (slope,) = torch.autograd.grad(outputs, inputs, upstream, retain_graph=True, allow_unused=True)
            if slope is None:
                return True  # which is for whoever differentiates it to say
            # Zero times an infinite slope is NaN, and tells nothing of the images; that, too, is said elsewhere.
            others = slope[~asked.flatten().to(slope.device)]
            if (others.nan_to_num(nan=0.0) != 0).any():
                return False
    return True


def check_head_separates(model: nn.Module, logits: torch.Tensor, hidden: torch.Tensor) -> None:
    """Refuse a head that makes an image's logits from the tokens of other images too, as far as a batch can tell.

    Args:
        model (`nn.Module`): Whose head it is.
        logits (`torch.Tensor` of shape (batch, classes)): As the model made them.
        hidden (`torch.Tensor` of shape (batch, tokens, hidden_size)): The last hidden state that they were made from.

    Raises:
        UnsupportedModelError: If the gradient of one image's logits reaches another image.
    """
    if logits.requires_grad and hidden.requires_grad and not are_separate(logits, hidden):
        raise _mixing(model, "its head makes each image's logits from the other images of the batch too")


def check_no_batch_statistics(model: nn.Module) -> None:
    """Refuse batch normalisation that has no statistics of its own, and takes the batch's in eval mode too.

    Args:
        model (`nn.Module`): The classifier.

    Raises:
        UnsupportedModelError: With the name of the module.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and cast(Any, module).running_mean is None:
            raise _mixing(
                model,
                f"its `{name}` ({type(module).__name__}, without running statistics) normalises each image by the "
                "other images of the batch",
            )


def _mixing(model: nn.Module, how: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"{class_name(model)} cannot be explained: {how}, so no gradient tells what one image did. Take the mean over "
        "the batch out of it, or put statistics of the training data in its place."
    )
