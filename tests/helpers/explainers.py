"""Pipelines around the zoo's models, pictures for them, and a model whose contributions are known beforehand."""

from contextlib import contextmanager

import numpy as np
import torch
from PIL import Image
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

import gmar_hf
from tests.helpers import loopback, zoo

LABELS = ["cat", "dog", "tabby cat", "bird", "fire truck"]


def image_processor(size=(32, 32), **settings):
    """The processor that a ViT of this size has; of the class that wants no torchvision."""
    return ViTImageProcessorPil(size=dict(height=size[0], width=size[1]), **settings)


def name_classes(model, labels=LABELS):
    model.config.id2label = dict(enumerate(labels))
    model.config.label2id = {label: index for index, label in enumerate(labels)}
    return model


def make_explainer(model=None, **settings):
    """A pipeline around a model of the zoo, by default its plain ViT, on the CPU."""
    model = name_classes(zoo.vit()) if model is None else model
    if "image_processor" not in settings:
        settings["image_processor"] = image_processor(zoo.image_size(model))
    return gmar_hf.GMARExplainer(model=model, device="cpu", **settings)


def photo(seed=0, size=(60, 40)):
    """A picture (width, height) of smooth noise."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


def bright_model():
    """A ViT on 64 x 64 pixels in 8 x 8 patches that says "bright" or "dark" by the sum of the patches' brightness.

    One layer of uniform attention: a patch's contribution to "bright" grows with its brightness, is 0 where it is
    black, and its negative is the contribution to "dark". Pixel values must be brightness in [0, 1].
    """
    config = ViTConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, image_size=64, patch_size=8,
        num_labels=2,
    )  # fmt: skip
    model = ViTForImageClassification(config).eval()
    weights = dict(model.named_parameters())
    with torch.no_grad():
        for name, parameter in weights.items():
            parameter.fill_(1.0 if "layernorm" in name and name.endswith("weight") else 0.0)
        embeddings = "vit.embeddings."
        # Channel 0 is brightness, channel 1 is 1 in every token, so that the layer norm keeps brightness apart.
        weights[embeddings + "patch_embeddings.projection.weight"][0] = 1 / (3 * 8 * 8)
        weights[embeddings + "cls_token"][..., 1] = 1
        weights[embeddings + "position_embeddings"][:, 1:, 1] = 1
        # A value is channel 0 less channel 2, which is always empty; the output goes to channel 3, which is read.
        weights["vit.layers.0.attention.v_proj.weight"][0, [0, 2]] = torch.tensor([1.0, -1.0])
        weights["vit.layers.0.attention.o_proj.weight"][3, 0] = 1
        weights["classifier.weight"][0, [3, 2]] = torch.tensor([1.0, -1.0])
        weights["classifier.weight"][1, [3, 2]] = torch.tensor([-1.0, 1.0])
    return name_classes(model, ["bright", "dark"])


def marked(size, box, mode="RGB"):
    """A black picture (width, height) with a white rectangle (left, top, right, bottom)."""
    image = Image.new("L", size)
    image.paste(255, box)
    return image.convert(mode)


@contextmanager
def serving(files):
    """Serve `{path: (status, content type, bytes)}` on this machine; gives the address without a slash."""

    class Handler(loopback.QuietHandler):
        def do_GET(self):
            status, kind, body = files.get(self.path, (404, "text/plain", b"no such file"))
            self.send(status, body, Content_Type=kind)

    with loopback.serving(Handler) as address:
        yield address
