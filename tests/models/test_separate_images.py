"""A model that makes an image's logits from the other images of the batch is refused, not explained wrongly."""

import pytest
import torch
from torch import nn

import gmar_hf
from gmar_hf.explanation.parity import check_parity
from gmar_hf.models.separate_images import are_separate
from tests.helpers import zoo

PIXELS = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
MIXES = "its head makes each image's logits from the other images of the batch too"


class Around(nn.Module):
    """A classifier whose logits are changed by a function."""

    def __init__(self, model, change):
        super().__init__()
        self.model, self.change, self.config = model, change, model.config

    def forward(self, pixel_values):
        output = self.model(pixel_values=pixel_values)
        output.logits = self.change(output.logits)
        return output


CHANGES = {
    "less their mean": lambda logits: logits - logits.mean(dim=0),
    "softmax over the batch": lambda logits: logits.softmax(dim=0),
    "in another order": lambda logits: logits.flip(0),
    "the next one's": lambda logits: logits + 1e-3 * logits.roll(1, dims=0),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("method", ["gmar", "rollout", "recommended"])
def test_heads_that_mix(change, method):
    model = Around(zoo.vit(), change)
    with pytest.raises(gmar_hf.UnsupportedModelError, match=MIXES):
        gmar_hf.explain(model, PIXELS, 0, method=method)


def test_one_image_less_the_mean_of_itself():
    with pytest.raises(gmar_hf.ArgumentError, match="takes the mean over the batch away"):
        gmar_hf.explain(Around(zoo.vit(), CHANGES["less their mean"]), PIXELS[:1])


@pytest.mark.parametrize("batch", [1, 2])
def test_batch_normalisation(batch):
    """By statistics of the batch it is refused; by those of the training data it mixes nothing."""
    model = zoo.vit()
    width = model.classifier.in_features
    model.classifier = nn.Sequential(nn.BatchNorm1d(width, track_running_stats=False), model.classifier)
    named = r"its `classifier\.0` \(BatchNorm1d, without running statistics\) normalises each image"
    with pytest.raises(gmar_hf.UnsupportedModelError, match=named):
        gmar_hf.explain(model, PIXELS[:batch])
    model.classifier[0] = nn.BatchNorm1d(width).eval()
    together = gmar_hf.explain(model, PIXELS, 1, method="contribution").attribution
    alone = gmar_hf.explain(model, PIXELS[:1], 1, method="contribution").attribution
    torch.testing.assert_close(together[:1], alone)


def test_the_check_finds_what_mixes_inside_the_encoder():
    model, pixels = zoo.vit(), PIXELS
    assert check_parity(model, pixels).images_are_separate
    model.vit.layers[0].register_forward_hook(lambda module, inputs, output: output - 0.5 * output.mean(0))
    parity = check_parity(model, pixels)
    assert parity.mixing > 0.01
    assert not parity.agrees


@pytest.mark.parametrize("size", [2, 3, 17, 33])
def test_any_two_images(size):
    """Whichever reads the other; against the whole Jacobian."""
    inputs = torch.randn(size, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    for i, j in {(0, 1), (1, 0), (size - 1, 0), (size // 2, size - 1)}:
        outputs = inputs.clone()
        outputs[i] = outputs[i] + 1e-4 * inputs[j]
        assert are_separate(outputs, inputs) == (i == j)
    assert are_separate(inputs.square(), inputs)
