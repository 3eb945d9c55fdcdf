"""What a `target` may be, and the words for what it may not be."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gmar_hf.errors import ArgumentError, ArgumentTypeError
from gmar_hf.models.targets import choose_target, class_scores


@pytest.fixture
def logits() -> torch.Tensor:
    return torch.tensor([[1.0, 3.0, 2.0, 0.0], [5.0, 4.0, 6.0, 7.0]], requires_grad=True)


class TestIndices:
    @pytest.mark.parametrize(
        ("target", "indices", "scores"),
        [
            (None, [1, 3], [3.0, 7.0]),
            (2, [2, 2], [2.0, 6.0]),
            ([0, 1], [0, 1], [1.0, 4.0]),
            ((0, 1), [0, 1], [1.0, 4.0]),
            (torch.tensor([0, 1]), [0, 1], [1.0, 4.0]),
            (torch.tensor([0, 1], dtype=torch.uint8), [0, 1], [1.0, 4.0]),
            (torch.tensor([0, 1], dtype=torch.uint16), [0, 1], [1.0, 4.0]),
            (torch.tensor(2), [2, 2], [2.0, 6.0]),
            (np.array([0, 1]), [0, 1], [1.0, 4.0]),
            (np.int64(2), [2, 2], [2.0, 6.0]),
        ],
        ids=str,
    )
    def test_one_target(self, logits, target, indices, scores):
        choice = choose_target(target, logits)
        assert choice.target.tolist() == indices
        assert choice.target.dtype == torch.long
        assert not choice.has_axis
        (score,) = choice.scores
        assert score.tolist() == scores
        assert score.requires_grad

    def test_several_targets(self, logits):
        choice = choose_target([[0, 1, 0], [2, 2, 3]], logits)
        assert choice.has_axis
        assert choice.target.tolist() == [[0, 1, 0], [2, 2, 3]]
        assert [score.tolist() for score in choice.scores] == [[1, 6], [3, 6], [1, 7]]

    def test_one_column_is_an_axis(self, logits):
        choice = choose_target([[0], [2]], logits)
        assert choice.has_axis
        assert len(choice.scores) == 1

    def test_one_output(self):
        choice = choose_target(None, torch.tensor([[-2.0], [3.0]], requires_grad=True))
        assert choice.target.tolist() == [0, 0]
        assert choice.scores[0].tolist() == [-2, 3]

    def test_made_in_inference_mode(self, logits):
        with torch.inference_mode():
            target = torch.tensor([0, 1])
        (score,) = choose_target(target, logits).scores
        score.sum().backward()
        assert logits.grad.tolist() == [[1, 0, 0, 0], [0, 1, 0, 0]]

    def test_the_users_tensor_is_not_shared(self, logits):
        target = torch.tensor([0, 1])
        choice = choose_target(target, logits)
        target[0] = 3
        assert choice.target.tolist() == [0, 1]

    def test_class_scores_have_each_its_gradient(self, logits):
        first, second = class_scores(logits, torch.tensor([[0, 1], [2, 3]]))
        assert torch.autograd.grad(first.sum(), logits, retain_graph=True)[0].tolist() == [[1, 0, 0, 0], [0, 0, 1, 0]]
        assert torch.autograd.grad(second.sum(), logits)[0].tolist() == [[0, 1, 0, 0], [0, 0, 0, 1]]


class TestCallable:
    def test_difference(self, logits):
        choice = choose_target(lambda logits: logits[:, 1] - logits[:, 0], logits)
        assert choice.target is None
        assert not choice.has_axis
        assert choice.scores[0].tolist() == [2, -1]

    @pytest.mark.parametrize(
        ("function", "got"),
        [
            (lambda logits: logits, r"got shape \(2, 4\)\."),
            (lambda logits: logits.sum(), r"got shape \(\)\."),
            (lambda logits: logits[:, :1], r"got shape \(2, 1\)\."),
            (lambda logits: logits.detach()[:, 0], r"got shape \(2,\) without a gradient\."),
            (lambda logits: torch.ones(2), r"got shape \(2,\) without a gradient\."),
            (lambda logits: 3.0, r"got float\."),
            (lambda logits: None, r"got NoneType\."),
            (lambda logits: logits[:, 0] * 1j, r"got shape \(2,\) of complex numbers\."),
            (lambda logits: [logits[0, 0], logits[1, 0]], r"got list\."),
        ],
    )
    def test_what_is_no_scalar_an_image(self, logits, function, got):
        with pytest.raises(ArgumentError, match=got) as caught:
            choose_target(function, logits)
        assert str(caught.value).startswith("`target` must turn logits (2, 4) into one differentiable scalar an image")
        assert "`lambda logits: logits[:, 3] - logits[:, 5]`" in str(caught.value)

    @pytest.mark.parametrize(
        "function",
        [
            lambda logits: logits.softmax(dim=0)[:, 1],
            lambda logits: logits[:, 1] - logits[:, 1].mean(),
            lambda logits: logits[:, 1].flip(0),
            lambda logits: logits[:, 1] * logits[:, 0].sum(),
        ],
    )
    def test_what_mixes_images(self, logits, function):
        with pytest.raises(ArgumentError) as caught:
            choose_target(function, logits)
        assert str(caught.value) == (
            "`target` must make each image's scalar from that image's logits; got one that mixes the images of the "
            "batch. Reduce over `dim=-1`."
        )

    @pytest.mark.parametrize("size", [2, 3, 17, 33, 48, 64])
    @pytest.mark.parametrize(
        "mixed",
        [
            lambda logits, i, j: logits[j, 1],
            lambda logits, i, j: 1e-4 * logits[j, 1],  # hardly at all
            lambda logits, i, j: logits[j, 1] - logits[j, 1].detach(),  # with a value of zero
        ],
    )
    def test_any_image_that_reads_another(self, size, mixed):
        """Whichever two of the batch they are, also those 16, 32 or an odd number apart."""
        logits = torch.randn(size, 4, generator=torch.Generator().manual_seed(size)).requires_grad_()
        pairs = {(size - 1, 0), (0, size - 1), (0, 1), (size // 2, 0), (size - 1, size - 17), (size - 33, size - 1)}
        for i, j in (pair for pair in pairs if min(pair) >= 0 and pair[0] != pair[1]):
            only = torch.zeros(size)
            only[i] = 1
            with pytest.raises(ArgumentError, match="got one that mixes the images of the batch"):
                choose_target(lambda logits, i=i, j=j, only=only: logits[:, 0] + only * mixed(logits, i, j), logits)

    @pytest.mark.parametrize("size", [2, 16, 32, 48])
    @pytest.mark.parametrize(
        "function",
        [
            lambda logits: logits[:, 0].roll(len(logits) // 2) + logits[:, 0],  # 16 apart, among others
            lambda logits: logits[:, 1] + logits[:, 1].flip(0) * 1e-5,
            lambda logits: logits[:, 1] + (logits[0, 2] - logits[1, 2]),  # of opposite signs
            lambda logits: logits.softmax(dim=0)[:, 1],
        ],
    )
    def test_patterns_that_mix(self, function, size):
        logits = torch.randn(size, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
        with pytest.raises(ArgumentError, match="got one that mixes the images of the batch"):
            choose_target(function, logits)

    def test_a_slope_that_is_infinite_mixes_nothing(self):
        logits = torch.zeros(3, 4).requires_grad_()
        (scores,) = choose_target(lambda logits: logits[:, 1].sqrt(), logits).scores
        assert scores.tolist() == [0, 0, 0]

    @pytest.mark.parametrize("size", [1, 2, 40])
    @pytest.mark.parametrize(
        "function",
        [
            lambda logits: logits.softmax(dim=-1)[:, 1] * 1e-20,
            lambda logits: logits.logsumexp(dim=-1) * 1e20,
            lambda logits: logits.max(dim=-1).values,
            lambda logits: logits[:, 1] * torch.linspace(-3, 3, len(logits)),
            lambda logits: (logits - logits.mean(dim=-1, keepdim=True)).square().sum(dim=-1),
            lambda logits: logits.double()[:, 2],
            lambda logits: logits[:, 2] * 0,
        ],
    )
    def test_what_mixes_classes_only(self, function, size):
        logits = torch.randn(size, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
        (scores,) = choose_target(function, logits).scores
        assert torch.equal(scores, function(logits))
        assert logits.grad is None

    def test_its_own_exception_is_not_dressed_up(self, logits):
        def broken(logits):
            raise ZeroDivisionError("mine")

        with pytest.raises(ZeroDivisionError, match="mine"):
            choose_target(broken, logits)


class TestRefusal:
    RANGE = (
        "`target` must be in [0, 3] (the model has 4 classes); got {}. Look the index up in `model.config.label2id`."
    )
    LENGTH = (
        "`target` must have one row for each of the 2 images, shape (2,) or (2, targets); got shape {}. Pass one int "
        "for all images, or one entry an image."
    )

    @pytest.mark.parametrize(
        ("target", "words", "got"),
        [
            (4, RANGE, 4),
            (-1, RANGE, -1),
            ([0, 9], RANGE, 9),
            ([[0, 1], [1, 4]], RANGE, 4),
            (torch.tensor([-7, 0]), RANGE, -7),
            ([0], LENGTH, "(1,)"),
            ([0, 1, 2], LENGTH, "(3,)"),
            ([[0, 1]], LENGTH, "(1, 2)"),
            ([[[0]], [[1]]], LENGTH, "(2, 1, 1)"),
            ([], LENGTH, "(0,)"),
            ([[], []], LENGTH, "(2, 0)"),
        ],
        ids=str,
    )
    def test_out_of_range_or_of_wrong_length(self, logits, target, words, got):
        with pytest.raises(ArgumentError) as caught:
            choose_target(target, logits)
        assert str(caught.value) == words.format(got)

    @pytest.mark.parametrize(
        "target",
        [
            "tabby", 1.5, [0.0, 1.0], True, [True, False], {1, 2}, {"a": 1}, [[0], [0, 1]], 2**70, [None, 1], 1j,
            b"a", "x" * 1000,
        ],
        ids=lambda target: str(target)[:20],
    )  # fmt: skip
    def test_wrong_kind(self, logits, target):
        with pytest.raises(ArgumentTypeError) as caught:
            choose_target(target, logits)
        assert str(caught.value) == (
            "`target` must be None, an int, a tensor or list of ints of shape (batch,) or (batch, targets), or a "
            f"callable; got {target!r:.80}. The pipeline understands labels; here pass `model.config.label2id[label]`."
        )
