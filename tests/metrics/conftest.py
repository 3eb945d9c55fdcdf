"""What the tests of the metrics share: a bundled model's batch, and a model of the zoo that nobody changes."""

import functools

import pytest
import torch

from gmar_hf import demo
from tests.helpers import zoo


@functools.cache
def batch_of(name):
    model, image_processor = demo.load(name)
    scenes = demo.scenes(8)
    images = image_processor([scene["image"] for scene in scenes], return_tensors="pt")["pixel_values"]
    return model, images, torch.tensor([scene["labels"][0] for scene in scenes]), scenes


@pytest.fixture(scope="session")
def demo_batch():
    """From a bundled model's name to the model, pixel values (8, 3, 64, 64), a label of each image, and the scenes."""
    return batch_of


@pytest.fixture(scope="module")
def vit():
    """The zoo's plain ViT, three layers of three heads, and two images for it."""
    model = zoo.vit()
    return model, zoo.pixel_values(model)
