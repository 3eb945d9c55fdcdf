"""Row blocks of attention and the product of a row with a layer's fused attention, on hand-made matrices."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch

from gmar_hf.explanation import blocks
from gmar_hf.explanation.rollout import attend_back, attention_blocks, fuse, fuse_gradient
from gmar_hf.models.recorders import AttentionCall

LOG_2, LOG_3 = math.log(2.0), math.log(3.0)

# Scores q k^T of one head with two tokens: [[log 2, 0], [0, 0]], so A = [[2/3, 1/3], [1/2, 1/2]].
QUERY = torch.tensor([[[[LOG_2], [0.0]]]])
KEY = torch.tensor([[[[1.0], [0.0]]]])
ATTENTION = torch.tensor([[[[2 / 3, 1 / 3], [1 / 2, 1 / 2]]]])
ZEROS = torch.zeros(1, 1, 3, 1)


def layer_of(query, key, bias, scaling) -> AttentionCall:
    """Return the call of a layer whose values do not matter."""
    return AttentionCall(
        module=torch.nn.Identity(),
        query=query,
        key=key,
        value=torch.zeros_like(query),
        bias=bias,
        scaling=scaling,
        dropout=0.0,
    )


def random_layer(batch: int = 2, heads: int = 3, tokens: int = 13, channels: int = 4, seed: int = 0):
    """Return a seeded query and key (batch, heads, tokens, channels)."""
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, heads, tokens, channels)
    return torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)


def random_bias(batch: int, heads: int, tokens: int, seed: int = 1) -> torch.Tensor:
    """Return a seeded additive bias (batch, heads, tokens, tokens)."""
    return torch.randn(batch, heads, tokens, tokens, generator=torch.Generator().manual_seed(seed))


def whole_attention(query, key, bias, scaling) -> torch.Tensor:
    """Return the whole softmax in float64, written out."""
    scores = torch.einsum("bhid,bhjd->bhij", query.double(), key.double()) * scaling
    if bias is not None:
        scores = scores + bias.double()
    exponentials = scores.exp()
    return exponentials / exponentials.sum(dim=-1, keepdim=True)


def assemble(query, key, bias, scaling) -> tuple[torch.Tensor, list[list[tuple[int, int, int]]]]:
    """Put the blocks where their slices say; NaN where none came. Gives the (image, head, row) of each piece too."""
    batch, heads, tokens, _ = query.shape
    whole = torch.full((batch, heads, tokens, tokens), math.nan)
    parts = []
    for piece, block in attention_blocks(layer_of(query, key, bias, scaling)):
        numbers = [range(*part.indices(size)) for part, size in zip(piece, (batch, heads, tokens), strict=True)]
        assert block.shape == (*map(len, numbers), tokens)
        assert block.dtype == torch.float32
        whole[piece] = block
        parts.append(list(itertools.product(*numbers)))
    return whole, parts


class TestAttentionBlocks:
    @pytest.mark.parametrize(
        ("query", "key", "bias", "scaling", "expected"),
        [
            (QUERY, KEY, None, 1.0, ATTENTION),
            # Scaling multiplies the scores, 2 log 2 = log 4: the first row becomes (4/5, 1/5).
            (QUERY, KEY, None, 2.0, [[[[4 / 5, 1 / 5], [1 / 2, 1 / 2]]]]),
            # Scores [[log 4, log 3], [log 3, 0]]: were the bias scaled too, 3 would become 9.
            (QUERY, KEY, [[[[0.0, LOG_3], [LOG_3, 0.0]]]], 2.0, [[[[4 / 7, 3 / 7], [3 / 4, 1 / 4]]]]),
            # Equal tokens attend uniformly; masked keys get nothing; large scores do not overflow.
            (torch.ones(1, 2, 4, 3), torch.ones(1, 2, 4, 3), None, 0.5, torch.full((1, 2, 4, 4), 0.25)),
            (ZEROS, ZEROS, [[[[0, 0, -math.inf]] * 3]], 1.0, [[[[0.5, 0.5, 0]] * 3]]),
            (QUERY * 1000 / LOG_2, KEY, None, 1.0, [[[[1.0, 0.0], [0.5, 0.5]]]]),
        ],
        ids=["scores", "scaling", "bias", "equal tokens", "mask", "large scores"],
    )
    def test_by_hand(self, query, key, bias, scaling, expected):
        whole, _ = assemble(query, key, None if bias is None else torch.tensor(bias), scaling)
        torch.testing.assert_close(whole, torch.as_tensor(expected))

    @pytest.mark.parametrize("shared_by", ["images", "heads"])
    def test_a_bias_that_is_shared(self, shared_by):
        # (1, H, N, N), BEiT's relative positions, or (B, 1, N, N), a mask: scores from the bias alone.
        zeros = torch.zeros(2, 2, 2, 1)
        bias = torch.tensor([[[LOG_2, 0.0], [0.0, 0.0]], [[0.0, LOG_3], [0.0, 0.0]]])
        rows = torch.tensor([[[2 / 3, 1 / 3], [1 / 2, 1 / 2]], [[1 / 4, 3 / 4], [1 / 2, 1 / 2]]])
        axis = 0 if shared_by == "images" else 1
        whole, _ = assemble(zeros, zeros, bias.unsqueeze(axis), 1.0)
        torch.testing.assert_close(whole, rows.unsqueeze(axis).expand(2, 2, 2, 2))

    def test_one_block_is_enough_for_a_small_layer(self):
        _, parts = assemble(*random_layer(), None, 0.5)
        assert len(parts) == 1

    @pytest.mark.parametrize(
        ("block_elements", "most_rows"),
        [(1, 1), (13, 1), (13 * 4 + 5, 4), (13 * 13 + 5, 13), (2 * 13 * 13, 2 * 13), (3 * 13 * 13 + 5, 3 * 13)],
    )
    @pytest.mark.parametrize("bias_shape", [None, (1, 3), (2, 1), (2, 3), (1, 1)])
    def test_blocks_together_are_the_whole_softmax(self, monkeypatch, block_elements, most_rows, bias_shape):
        monkeypatch.setattr(blocks, "BLOCK_ELEMENTS", block_elements)
        query, key = random_layer()
        bias = None if bias_shape is None else random_bias(*bias_shape, tokens=13)
        whole, parts = assemble(query, key, bias, 0.7)
        torch.testing.assert_close(whole, whole_attention(query, key, bias, 0.7).float())
        torch.testing.assert_close(whole.sum(dim=-1), torch.ones(2, 3, 13))
        assert len(parts) > 1
        covered = [place for part in parts for place in part]
        assert sorted(covered) == list(itertools.product(range(2), range(3), range(13)))
        # Four rows and a bit are four rows; what is smaller than a row still has to be one.
        assert max(map(len, parts)) == most_rows

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision_layers_give_float32_rows(self, dtype):
        query, key = (tensor.to(dtype) for tensor in random_layer())
        whole, _ = assemble(query, key, None, 0.5)
        # The inputs are exact in their dtype, so a float32 softmax of float32 scores is this close; a half one is not.
        torch.testing.assert_close(whole, whole_attention(query, key, None, 0.5).float(), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(whole.sum(dim=-1), torch.ones(2, 3, 13), rtol=1e-6, atol=1e-6)


class TestFuse:
    def test_by_hand(self):
        # Heads [[2/3, 1/3], [1/2, 1/2]] and all 1/2, weights 1/4 and 3/4: fused [[13/24, 11/24], [1/2, 1/2]].
        query = torch.cat([QUERY, torch.zeros_like(QUERY)], dim=1)
        key = torch.cat([KEY, torch.zeros_like(KEY)], dim=1)
        weights = torch.tensor([[0.25, 0.75]])
        first = fuse(torch.tensor([[1.0, 0.0]]), weights, layer_of(query, key, None, 1.0))
        torch.testing.assert_close(first, torch.tensor([[13 / 24, 11 / 24]]))
        mixed = fuse(torch.tensor([[0.25, 0.75]]), weights, layer_of(query, key, None, 1.0))
        torch.testing.assert_close(mixed, torch.tensor([[49 / 96, 47 / 96]]))

    def test_one_head_of_weight_one_is_the_attention_itself(self):
        # The row stands on the left: (0, 1) A is the second row of A; A (0, 1) would be (1/3, 1/2).
        for token in range(2):
            row = torch.eye(2)[token : token + 1]
            fused = fuse(row, torch.ones(1, 1), layer_of(QUERY, KEY, None, 1.0))
            torch.testing.assert_close(fused, ATTENTION[:, 0, token])

    def test_images_have_their_own_row_and_weights(self):
        # Image 0 listens to head 0 alone and reads token 0, image 1 to head 1 alone and reads token 1.
        zeros = torch.zeros(2, 2, 2, 1)
        bias = torch.tensor([[[[LOG_2, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, LOG_3]]]])
        fused = fuse(torch.eye(2), torch.eye(2), layer_of(zeros, zeros, bias, 1.0))
        torch.testing.assert_close(fused, torch.tensor([[2 / 3, 1 / 3], [1 / 4, 3 / 4]]))

    def test_weights_that_sum_to_one_keep_the_mass(self):
        query, key = random_layer()
        row = torch.rand(2, 13, generator=torch.Generator().manual_seed(2)).softmax(dim=-1)
        weights = torch.rand(2, 3, generator=torch.Generator().manual_seed(3)).softmax(dim=-1)
        fused = fuse(row, weights, layer_of(query, key, None, 0.5))
        assert fused.shape == (2, 13)
        torch.testing.assert_close(fused.sum(dim=-1), torch.ones(2))

    @pytest.mark.parametrize("block_elements", [None, 1, 13 * 4 + 5, 2 * 13 * 13, 3 * 13 * 13])
    @pytest.mark.parametrize("bias_shape", [None, (1, 3), (2, 1)])
    @pytest.mark.parametrize("num_reached", [13, 2])
    def test_equals_the_whole_product(self, monkeypatch, block_elements, bias_shape, num_reached):
        if block_elements is not None:
            monkeypatch.setattr(blocks, "BLOCK_ELEMENTS", block_elements)
        query, key = random_layer()
        bias = None if bias_shape is None else random_bias(*bias_shape, tokens=13)
        row = torch.randn(2, 13, generator=torch.Generator().manual_seed(2))
        row[:, num_reached:] = 0
        weights = torch.rand(2, 3, generator=torch.Generator().manual_seed(3))
        attention = whole_attention(query, key, bias, 0.7)
        expected = torch.einsum("bi,bh,bhij->bj", row.double(), weights.double(), attention).float()
        torch.testing.assert_close(fuse(row, weights, layer_of(query, key, bias, 0.7)), expected, rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("bias_shape", [None, (2, 3), (1, 1)])
    @pytest.mark.parametrize("num_reached", [13, 2, 0])
    def test_the_other_products_too(self, bias_shape, num_reached):
        query, key = random_layer()
        value, output_grad = random_layer()
        bias = None if bias_shape is None else random_bias(*bias_shape, tokens=13)
        by_query = torch.randn(2, 3, 13, generator=torch.Generator().manual_seed(2))
        by_query[:, :, num_reached:] = 0
        call = replace(layer_of(query, key, bias, 0.7), value=value)
        attention = whole_attention(query, key, bias, 0.7)
        back = torch.einsum("bhi,bhij->bhj", by_query.double(), attention).float()
        torch.testing.assert_close(attend_back(by_query, call), back, rtol=1e-5, atol=1e-6)
        positive = (output_grad.double() @ value.double().transpose(-1, -2)).relu() * attention
        fused = torch.einsum("bi,bhij->bj", by_query[:, 0].double(), positive).float() / 3
        torch.testing.assert_close(fuse_gradient(by_query[:, 0], output_grad, call), fused, rtol=1e-5, atol=1e-6)

    def test_inputs_are_left_alone(self):
        row, weights = torch.tensor([[0.25, 0.75]]), torch.ones(1, 1)
        query, key = QUERY.clone(), KEY.clone()
        fuse(row, weights, layer_of(query, key, None, 1.0))
        assert torch.equal(row, torch.tensor([[0.25, 0.75]]))
        assert torch.equal(query, QUERY)
        assert torch.equal(key, KEY)
