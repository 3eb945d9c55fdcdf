"""Head scores, weights and contributions on matrices small enough to work out by hand."""

from __future__ import annotations

import pytest
import torch

from gmar_hf.explanation import blocks
from gmar_hf.explanation.head_scores import head_contribution, head_weights, l1_norm, l2_norm, token_contribution

# One image, one head, two tokens, two channels. G = dO V^T = [[1, 1], [1, -1]] @ [[1, 2], [-1, 0]] = [[0, 2], [2, 2]]:
# in the first entry two products cancel, which a sum of magnitudes taken too early would miss.
OUTPUT_GRAD = torch.tensor([[[[1.0, 1.0], [1.0, -1.0]]]])
VALUE = torch.tensor([[[[1.0, -1.0], [2.0, 0.0]]]])


def random_layer(shape: tuple[int, ...] = (2, 3, 11, 4), seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return two seeded tensors of one shape, in float32."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)


class TestNorms:
    @pytest.mark.parametrize(
        ("output_grad", "value", "l1", "l2"),
        [
            # G = [[3, -4], [6, -8]]
            ([[1.0], [2.0]], [[3.0], [-4.0]], 21.0, 125**0.5),
            # Products cancel before the magnitude is taken: G = [[0, 2], [2, 2]].
            (OUTPUT_GRAD[0, 0], VALUE[0, 0], 6.0, 12**0.5),
            # dO on query 0 only, V on key 1 only: one entry of G, 2 * 5, which would vanish if the two were exchanged.
            ([[2.0, 0.0], [0.0, 0.0]], [[0.0, 7.0], [5.0, 0.0]], 10.0, 10.0),
        ],
        ids=["one channel", "cancelling", "query and key"],
    )
    def test_by_hand(self, output_grad, value, l1, l2):
        output_grad, value = (torch.as_tensor(matrix)[None, None] for matrix in (output_grad, value))
        torch.testing.assert_close(l1_norm(output_grad, value), torch.tensor([[l1]]))
        torch.testing.assert_close(l2_norm(output_grad, value), torch.tensor([[l2]]))

    @pytest.mark.parametrize("norm", [l1_norm, l2_norm])
    def test_images_and_heads_stay_apart(self, norm):
        # Two images of three heads: image b and head h scale the gradient by 10^b and by h.
        scale = torch.tensor([[0.0, 1.0, 2.0], [0.0, 10.0, 20.0]])
        output_grad = OUTPUT_GRAD * scale[:, :, None, None]
        value = VALUE.expand(2, 3, 2, 2)
        torch.testing.assert_close(norm(output_grad, value), norm(OUTPUT_GRAD, VALUE) * scale)

    @pytest.mark.parametrize("num_tokens", [1, 7, 300])
    def test_equals_the_whole_matrix(self, num_tokens):
        output_grad, value = random_layer((2, 3, num_tokens, 4))
        gradient = output_grad.double() @ value.double().transpose(-1, -2)
        l1 = gradient.abs().sum(dim=(-1, -2)).float()
        l2 = gradient.square().sum(dim=(-1, -2)).sqrt().float()
        torch.testing.assert_close(l1_norm(output_grad, value), l1, rtol=1e-5, atol=0)
        torch.testing.assert_close(l2_norm(output_grad, value), l2, rtol=1e-5, atol=0)

    @pytest.mark.parametrize("block_elements", [1, 11 * 4 + 5])
    def test_l1_by_row_blocks(self, monkeypatch, block_elements):
        output_grad, value = random_layer()
        whole = l1_norm(output_grad, value)
        monkeypatch.setattr(blocks, "BLOCK_ELEMENTS", block_elements)
        torch.testing.assert_close(l1_norm(output_grad, value), whole)

    @pytest.mark.parametrize("norm", [l1_norm, l2_norm])
    def test_zero_gradient_scores_exactly_zero(self, norm):
        scores = norm(torch.zeros(2, 3, 5, 4), random_layer((2, 3, 5, 4))[1])
        assert torch.equal(scores, torch.zeros(2, 3))

    def test_l2_of_nearly_opposite_channels_is_a_number(self):
        # The Gram matrices' product is zero up to rounding here; a root of a tiny negative number would be NaN.
        output_grad = torch.tensor([[[[1.0, 1.0]]]]).repeat(1, 1, 50, 1) / 3
        value = torch.tensor([[[[1.0, -1.0]]]]).repeat(1, 1, 50, 1) / 7
        score = l2_norm(output_grad, value)
        assert torch.isfinite(score).all()
        assert score.item() < 1e-2

    @pytest.mark.parametrize(
        ("dtype", "result"),
        [
            (torch.float16, torch.float32),
            (torch.bfloat16, torch.float32),
            (torch.float32, torch.float32),
            # Double stays double: a float64 model is how one measures what float32 costs.
            (torch.float64, torch.float64),
        ],
    )
    def test_results_are_at_least_float32(self, dtype, result):
        output_grad, value = OUTPUT_GRAD.to(dtype), VALUE.to(dtype)
        torch.testing.assert_close(l1_norm(output_grad, value), torch.tensor([[6.0]], dtype=result))
        torch.testing.assert_close(l2_norm(output_grad, value), torch.tensor([[12.0]], dtype=result).sqrt())
        assert head_contribution(output_grad, value).dtype == result
        assert token_contribution(value, output_grad).dtype == result

    def test_half_precision_inputs_do_not_overflow(self):
        # Every entry of G is 2 * 200 * 200 = 80000, above float16's 65504; four of them.
        layer = torch.full((1, 1, 2, 2), 200.0, dtype=torch.float16)
        torch.testing.assert_close(l1_norm(layer, layer), torch.tensor([[320_000.0]]))
        torch.testing.assert_close(l2_norm(layer, layer), torch.tensor([[160_000.0]]))
        torch.testing.assert_close(head_contribution(layer, layer), torch.tensor([[160_000.0]]))
        torch.testing.assert_close(token_contribution(layer, layer), torch.tensor([[[80_000.0, 80_000.0]]]))


class TestContributions:
    def test_by_hand(self):
        # The head: 1*1 + 2*0 + 3*(-1) + 4*2 = 6. By token: 1*1 + 2*0 = 1 and 3*(-1) + 4*2 = 5.
        output = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
        output_grad = torch.tensor([[[[1.0, 0.0], [-1.0, 2.0]]]])
        torch.testing.assert_close(head_contribution(output, output_grad), torch.tensor([[6.0]]))
        torch.testing.assert_close(token_contribution(output, output_grad), torch.tensor([[[1.0, 5.0]]]))

    def test_contributions_keep_their_sign(self):
        output, output_grad = random_layer()
        torch.testing.assert_close(head_contribution(output, -output_grad), -head_contribution(output, output_grad))
        assert (head_contribution(output, -output) < 0).all()

    def test_one_layer_by_hand(self):
        # A = [[1/2, 1/2], [1/4, 3/4]], V = [[4], [8]], y = O_0 - 2 O_1, so O = [[6], [7]], dO = [[1], [-2]],
        # G = [[4, 8], [-8, -16]] and A * G = [[2, 4], [-2, -12]]: tokens 0 and -8, the head -8 = y.
        attention = torch.tensor([[[[0.5, 0.5], [0.25, 0.75]]]])
        value = torch.tensor([[[[4.0], [8.0]]]])
        output_grad = torch.tensor([[[[1.0], [-2.0]]]])
        value_grad = attention.transpose(-1, -2) @ output_grad
        torch.testing.assert_close(head_contribution(attention @ value, output_grad), torch.tensor([[-8.0]]))
        torch.testing.assert_close(token_contribution(value, value_grad), torch.tensor([[[0.0, -8.0]]]))
        torch.testing.assert_close(l1_norm(output_grad, value), torch.tensor([[36.0]]))
        torch.testing.assert_close(l2_norm(output_grad, value), torch.tensor([[20.0]]))

    def test_tokens_add_up_to_their_head(self):
        value, output_grad = random_layer()
        scores = torch.randn(2, 3, 11, 11, generator=torch.Generator().manual_seed(1))
        attention = scores.softmax(dim=-1)
        per_token = token_contribution(value, attention.transpose(-1, -2) @ output_grad)
        assert per_token.shape == (2, 3, 11)
        per_head = head_contribution(attention @ value, output_grad)
        torch.testing.assert_close(per_token.sum(dim=-1), per_head, rtol=1e-5, atol=1e-5)


class TestHeadWeights:
    def test_scores_are_divided_by_their_sum(self):
        torch.testing.assert_close(head_weights(torch.tensor([[1.0, 3.0]])), torch.tensor([[0.25, 0.75]]))

    @pytest.mark.parametrize("score", [0.0, 1e-30, 2.5])
    def test_one_head_weighs_one(self, score):
        assert torch.equal(head_weights(torch.tensor([[score]])), torch.tensor([[1.0]]))

    def test_a_layer_without_gradient_is_uniform(self):
        scores = torch.tensor([[0.0, 0.0, 0.0, 0.0], [2.0, 0.0, 6.0, 0.0]])
        before = scores.clone()
        expected = torch.tensor([[0.25, 0.25, 0.25, 0.25], [0.25, 0.0, 0.75, 0.0]])
        torch.testing.assert_close(head_weights(scores), expected)
        assert torch.equal(scores, before)  # the input is left alone

    def test_tiny_scores_are_not_taken_for_zero(self):
        # An epsilon in the denominator would pull these towards zero instead of dividing them.
        torch.testing.assert_close(head_weights(torch.tensor([1e-30, 3e-30])), torch.tensor([0.25, 0.75]))

    @pytest.mark.parametrize("shape", [(4,), (2, 4), (2, 3, 4), (2, 5, 3, 4)])
    def test_any_leading_axes(self, shape):
        scores = torch.rand(shape, generator=torch.Generator().manual_seed(0))
        weights = head_weights(scores)
        assert weights.shape == shape
        torch.testing.assert_close(weights.sum(dim=-1), torch.ones(shape[:-1]))
        torch.testing.assert_close(weights, scores / scores.sum(dim=-1, keepdim=True))
