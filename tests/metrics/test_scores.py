"""Score functions of real models."""

from __future__ import annotations

import pytest
import torch

from gmar_hf import ArgumentError, ArgumentTypeError
from gmar_hf.metrics import score_function
from tests.helpers import zoo
from tests.helpers.state import snapshot

MAKERS = {"softmax": lambda logits: logits.softmax(-1), "sigmoid": torch.sigmoid, "logit": lambda logits: logits}


def logits(model, rows):
    with torch.no_grad():
        return model(pixel_values=rows).logits


@pytest.mark.parametrize("function", MAKERS)
@pytest.mark.parametrize("name", ["vit", "siglip", "deit_teacher"])
def test_each_row_has_its_image_s_target(name, function):
    model = zoo.MODELS[name]()
    rows, target = zoo.pixel_values(model, batch=6), [4, 0]
    scores = score_function(model, target, function)(rows)
    expected = MAKERS[function](logits(model, rows))
    torch.testing.assert_close(scores, torch.stack([expected[row, target[row % 2]] for row in range(6)]))
    assert not scores.requires_grad


@pytest.mark.parametrize("target", [3, torch.tensor(3), [3], torch.tensor([3, 3]), (3, 3, 3, 3)])
def test_targets_of_all_kinds(target):
    model = zoo.vit()
    rows = zoo.pixel_values(model, batch=4)
    expected = logits(model, rows).softmax(-1)[:, 3]
    torch.testing.assert_close(score_function(model, target)(rows), expected)


def test_the_target_is_a_copy():
    model, target = zoo.vit(), torch.tensor([3, 1])
    rows = zoo.pixel_values(model, batch=2)
    score = score_function(model, target)
    before = score(rows)
    target.zero_()
    assert torch.equal(score(rows), before)


def test_the_model_answers_in_eval_mode_and_is_as_it_was():
    model = zoo.build(
        type(zoo.vit()), zoo.ViTConfig(**zoo.NARROW, **zoo.SQUARE, num_labels=5, hidden_dropout_prob=0.5)
    )
    rows = zoo.pixel_values(model, batch=2)
    expected = logits(model, rows).softmax(-1)[:, 2]
    model.train()
    model.vit.embeddings.requires_grad_(False)
    before = snapshot(model)
    torch.testing.assert_close(score_function(model, 2)(rows), expected)
    assert snapshot(model) == before


def test_pixels_are_brought_to_the_model_s_dtype():
    model = zoo.vit().bfloat16()
    rows = zoo.pixel_values(zoo.vit(), batch=2)
    scores = score_function(model, [1, 2], "logit")(rows)
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores, logits(model, rows.bfloat16()).float()[[0, 1], [1, 2]])


def test_arguments_of_the_model():
    model = zoo.vit()
    rows = zoo.pixel_values(model, batch=2, size=(48, 32))
    scores = score_function(model, 1, "logit", interpolate_pos_encoding=True)(rows)
    with torch.no_grad():
        expected = model(pixel_values=rows, interpolate_pos_encoding=True).logits[:, 1]
    torch.testing.assert_close(scores, expected)


@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        *(
            (target, ArgumentTypeError, "`target` must be ints")
            for target in ("cat", [0.5], True, None, [[1], [2, 3]])
        ),
        ([[1, 2]], ArgumentError, r"`target` must have shape \(batch,\), one class an image; got \(1, 2\)"),
        ([], ArgumentError, r"got \(0,\)"),
        ([1, -1], ArgumentError, "must not be negative; got -1"),
        ([0, 5], ArgumentError, r"`target` must be in \[0, 4\] .* got 5"),
        ([0, 1, 2], ArgumentError, "must repeat the batch of 3 images, whose targets are known; got 2 rows"),
    ],
)
def test_targets_that_do_not_fit(target, error, message):
    model = zoo.vit()
    with pytest.raises(error, match=message):
        score_function(model, target)(zoo.pixel_values(model, batch=2))


def test_arguments_that_the_model_does_not_know():
    with pytest.raises(ArgumentError, match="`interpolate` must be an argument that ViTForImageClassification knows"):
        score_function(zoo.vit(), 0, interpolate=True)
    with pytest.raises(ArgumentError, match="`interpolate_pos_encoding` must be True or False; got 'no'"):
        score_function(zoo.vit(), 0, interpolate_pos_encoding="no")


def test_unknown_functions_and_no_model():
    with pytest.raises(ArgumentError, match='`function` must be one of "softmax", "sigmoid", "logit"; got \'relu\''):
        score_function(zoo.vit(), 0, "relu")
    with pytest.raises(ArgumentTypeError, match="`model` must be"):
        score_function("google/vit", 0)


def test_masks_of_the_batch_are_repeated_with_it():
    model = zoo.vit()
    images = zoo.pixel_values(model, batch=2)
    mask = torch.ones(2, 17)
    mask[0, -3:] = 0
    score = score_function(model, 1, "logit", attention_mask=mask)
    once = score(images)
    assert not torch.allclose(once, score_function(model, 1, "logit")(images))
    torch.testing.assert_close(score(images.repeat(3, 1, 1, 1)), once.repeat(3))
