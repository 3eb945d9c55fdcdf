"""All scores of a batch's heads, against the float64 oracle with explicit attention."""

import numpy as np
import pytest
import torch

from gmar_hf import NonFiniteError
from gmar_hf.report.statistics import KEYS
from gmar_hf.surveys.scoring import score_heads
from tests.helpers import oracle, zoo
from tests.helpers.state import make_uneven, snapshot


def expected(reference):
    """The six scores (6, layers, heads) of one image and class."""
    l1, l2 = (oracle.head_scores(reference.gradient, norm) for norm in ("l1", "l2"))
    contribution = oracle.head_contributions(reference)
    found = [l1, l2, oracle.head_weights(l1), oracle.head_weights(l2), contribution, np.abs(contribution)]
    return np.stack(found)


def error(ours, theirs):
    return np.abs(ours.double().numpy() - theirs).max() / np.abs(theirs).max()


@pytest.mark.parametrize("name", ["vit_landscape", "deit_teacher", "beit_relative", "clip", "dinov2_registers"])
def test_every_score_agrees_with_the_oracle(name):
    model = zoo.MODELS[name]()
    images = zoo.pixel_values(model, batch=2)
    scores = score_heads(model, images, torch.tensor([[1, 3], [4, 0]]))
    for target in range(2):
        classes = [[1, 3], [4, 0]]
        references = oracle.explicit_reference(model, images, [row[target] for row in classes])
        for image, reference in enumerate(references):
            theirs = expected(reference)
            for index, key in enumerate(KEYS):
                assert error(scores.values[image, target, index], theirs[index]) < 1e-5, key


def test_the_predicted_class_is_the_default():
    model = zoo.vit()
    images = zoo.pixel_values(model, batch=3)
    scores = score_heads(model, images)
    assert torch.equal(scores.target, scores.logits.argmax(dim=-1))
    with torch.no_grad():
        assert torch.allclose(scores.logits, model(pixel_values=images).logits, atol=1e-5)
    named = score_heads(model, images, scores.target)
    assert torch.allclose(named.values, scores.values, atol=1e-6)
    assert scores.values.shape == (3, 6, 3, 3)


def test_the_model_is_as_it_was():
    model = zoo.deit_teacher()
    make_uneven(model)
    before = snapshot(model)
    with torch.no_grad():
        score_heads(model, zoo.pixel_values(model, batch=1))
    assert snapshot(model) == before


def test_infinite_gradients_are_refused():
    model = zoo.vit().half()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "v_proj.weight" in name:
                parameter.mul_(60000)
    with pytest.raises(NonFiniteError):
        score_heads(model, zoo.pixel_values(model, batch=1).half())
