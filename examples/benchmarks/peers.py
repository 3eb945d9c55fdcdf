"""How others explain a ViT, beside which `costs.py` sets gmar_hf: what each gives, and a call that makes it.

What is published for explicit attention is written here from its formula, in the way that is usual elsewhere: the
"eager" implementation, `output_attentions`, `retain_grad`, one image after the other, full tokens x tokens matrices.
It is given the best case: parameters want no gradient, so that no backward computes theirs. Libraries are called as
they are.
"""

import importlib.util
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from candidates import make_model

from gmar_hf.evaluation.maps.libraries import TokensAsImage, integrated_gradients
from gmar_hf.models.introspection import encoder_layers

Draw = Callable[[torch.nn.Module, torch.Tensor, torch.Tensor], Any]


class Peer(NamedTuple):
    """One way of explaining.

    Args:
        gives (`str`): What comes out, in words.
        draw (`Callable`): From a model, images (batch, channels, height, width) and classes (batch,) to maps.
        is_explicit (`bool`): Whether it wants a model with explicit attention, and images one by one.
        needs (`str`, *optional*): The Python package without which there is none, as it is imported.
    """

    gives: str
    draw: Draw
    is_explicit: bool = False
    needs: str | None = None


def calls_of(shape: str, image_size: int, batch_size: int) -> dict[str, Callable[[], Any]]:
    """Every peer that can be had here, by name, for random images of a batch and their first class."""
    explicit, fused = make_model(image_size, shape), make_model(image_size, shape)
    explicit.set_attn_implementation("eager")
    images = torch.randn(batch_size, 3, image_size, image_size)
    classes = torch.zeros(batch_size, dtype=torch.int64)
    return {
        name: partial(_one_by_one if peer.is_explicit else _together, peer.draw, model, images, classes)
        for name, peer in PEERS.items()
        if not is_missing(peer)
        for model in [explicit if peer.is_explicit else fused]
    }


def is_missing(peer: Peer) -> bool:
    return peer.needs is not None and importlib.util.find_spec(peer.needs) is None


def _one_by_one(draw: Draw, model: torch.nn.Module, images: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    pairs = zip(images.split(1), classes.split(1), strict=True)
    return torch.cat([draw(model, image, target) for image, target in pairs])


def _together(draw: Draw, model: torch.nn.Module, images: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    return torch.as_tensor(draw(model, images, classes))


def explicit_gmar(model: torch.nn.Module, pixel_values: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """GMAR's map (batch, tokens), norm L1, as `gmar_hf.explanation.methods` reads the paper."""
    attentions = _with_gradients(model, pixel_values, target)
    rollout = identity = torch.eye(attentions[0].shape[-1])
    for attention in attentions:
        scores = _gradient(attention).abs().sum(dim=(2, 3), keepdim=True)
        fused = (attention.detach() * scores / scores.sum(dim=1, keepdim=True)).sum(dim=1)
        rollout = (fused + identity) / 2 @ rollout
    return rollout[:, 0]


def gradient_rollout(model: torch.nn.Module, pixel_values: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The map (batch, tokens) of Chefer, Gur, Wolf, ICCV 2021: `R <- R + mean_h relu(G * A) R`."""
    attentions = _with_gradients(model, pixel_values, target)
    relevance = torch.eye(attentions[0].shape[-1])
    for attention in attentions:
        relevance = relevance + (_gradient(attention) * attention.detach()).clamp(min=0).mean(dim=1) @ relevance
    return relevance[:, 0]


def _with_gradients(model: torch.nn.Module, pixel_values: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor]:
    """Attentions (batch, heads, tokens, tokens) of all layers, each with the gradient of the class's logit."""
    outputs = model(pixel_values=pixel_values.detach().requires_grad_(), output_attentions=True)
    for attention in outputs.attentions:
        attention.retain_grad()
    outputs.logits.gather(1, target[:, None]).sum().backward()
    return outputs.attentions


def _gradient(attention: torch.Tensor) -> torch.Tensor:
    assert attention.grad is not None
    return attention.grad


def explicit_legrad(model: torch.nn.Module, pixel_values: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The map (batch, tokens) of Bousselham et al. 2024: every layer's own logit, differentiated in its attention."""
    pixels = pixel_values.detach().requires_grad_()
    outputs = model(pixel_values=pixels, output_attentions=True, output_hidden_states=True)
    total = torch.zeros(pixel_values.shape[0], outputs.attentions[0].shape[-1])
    for attention, hidden in zip(outputs.attentions, outputs.hidden_states[1:], strict=True):
        logits = model.classifier(model.vit.layernorm(hidden)[:, 0])
        (gradient,) = torch.autograd.grad(logits.gather(1, target[:, None]).sum(), attention, retain_graph=True)
        total += gradient.clamp(min=0).mean(dim=(1, 2))
    return total


def torch_cam(name: str, model: torch.nn.Module, pixel_values: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """A map (batch, rows, cols) by torch-cam, of the patches behind the last layer's first norm."""
    from torchcam import methods

    side = model.config.image_size // model.config.patch_size
    adapter = TokensAsImage(lambda pixels: model(pixel_values=pixels).logits, _last_norm(model), side, side).eval()
    with getattr(methods, name)(adapter, target_layer="image") as extractor:
        scores = adapter(pixel_values.detach().requires_grad_())
        (maps,) = extractor(target.tolist(), scores)
    return maps


def pytorch_grad_cam(model: torch.nn.Module, pixel_values: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Grad-CAM (batch, height, width) by pytorch-grad-cam, at the same place."""
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    side = model.config.image_size // model.config.patch_size
    adapter = _ToLogits(model)
    with GradCAM(
        adapter,
        target_layers=[_last_norm(model)],
        reshape_transform=lambda tokens: tokens[:, 1:].transpose(1, 2).unflatten(-1, (side, side)),
    ) as extractor:
        return extractor(
            pixel_values.detach().requires_grad_(), [ClassifierOutputTarget(each) for each in target.tolist()]
        )


class _ToLogits(torch.nn.Module):
    """A classifier of transformers as libraries want one: it returns a tensor."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return self.model(pixel_values=pixel_values).logits


def _last_norm(model: torch.nn.Module) -> torch.nn.Module:
    return encoder_layers(model)[1][-1].layernorm_before


_POSITIVE_MAP = "a map, positive parts only, of a class"

PEERS = {
    "GMAR by explicit attention, image by image": Peer(
        "a map without a sign and scores of heads without one, both hardly of a class", explicit_gmar, is_explicit=True
    ),
    "gradient rollout by explicit attention, image by image (Transformer-Explainability's authors)": Peer(
        _POSITIVE_MAP, gradient_rollout, is_explicit=True
    ),
    "LeGrad by explicit attention, image by image": Peer(_POSITIVE_MAP, explicit_legrad, is_explicit=True),
    "Grad-CAM by torch-cam": Peer(_POSITIVE_MAP, partial(torch_cam, "GradCAM"), needs="torchcam"),
    "Layer-CAM by torch-cam": Peer(_POSITIVE_MAP, partial(torch_cam, "LayerCAM"), needs="torchcam"),
    "Grad-CAM by pytorch-grad-cam": Peer(_POSITIVE_MAP, pytorch_grad_cam, needs="pytorch_grad_cam"),
    "integrated gradients of 32 steps by captum": Peer(
        "a signed map of a class", integrated_gradients, needs="captum"
    ),
}
OURS = {
    "gmar": "a map without a sign and scores of heads without one, both hardly of a class; contributions of heads",
    "contribution": "a signed map of a class, and signed contributions of heads, in logits",
    "removal": "the same",
    "gradient-rollout": f"{_POSITIVE_MAP}; signed contributions of heads, in logits",
    "recommended": "as contribution, and how far it is from complete",
}
