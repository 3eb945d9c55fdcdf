"""Masses on parts, and how they rank what the parts add: by hand, and counted slowly."""

import numpy as np
import pytest
import torch

from gmar_hf import ArgumentError, ArgumentTypeError
from gmar_hf.metrics import part_mass, single_deletion


class TestPartMass:
    def test_by_hand(self):
        # 2 x 2 patches of 2 x 2 pixels: three quarters of the first, all of the last.
        mask = torch.tensor([[[1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]]).bool()
        found = part_mass(torch.tensor([[[4.0, 9.0], [-1.0, -2.5]]]), mask)
        assert (found.item(), found.dtype) == (0.5, torch.float32)

    def test_parts_that_cover_the_image_share_the_whole_map(self):
        generator = torch.Generator().manual_seed(0)
        maps = torch.randn(5, 3, 4, generator=generator)
        mask = torch.rand(5, 9, 8, generator=generator) < 0.4
        both = part_mass(maps, mask) + part_mass(maps, ~mask)
        torch.testing.assert_close(both, maps.sum(dim=(1, 2)))
        pixels = maps.repeat_interleave(3, 1).repeat_interleave(2, 2).double() / 6
        torch.testing.assert_close(
            part_mass(maps, mask).double(), (pixels * mask).sum(dim=(1, 2)), rtol=1e-5, atol=1e-6
        )

    def test_errors(self):
        with pytest.raises(ArgumentTypeError, match="`masks` must be a bool tensor"):
            part_mass(torch.ones(1, 2, 2), torch.ones(1, 4, 4))


class TestSingleDeletion:
    def test_by_hand(self):
        mass = torch.tensor([[5.0, 1.0], [2.0, 3.0], [4.0, 0.0]])
        effect = torch.tensor([[9.0, -1.0], [6.0, 0.5], [8.0, -2.0]])
        found = single_deletion(mass, effect)
        # Ranks of masses 6 2 3 4 5 1 and of effects 6 2 4 3 5 1: squared differences sum to 2, 1 - 6 * 2 / (6 * 35).
        assert found.pooled.item() == pytest.approx(1 - 12 / 210)
        assert found.by_image.tolist() == [1, -1, 1]
        assert found.by_part.tolist() == pytest.approx([1, 1])

    def test_three_parts_with_ties_against_a_slow_count(self):
        generator = torch.Generator().manual_seed(0)
        mass, effect = torch.randint(0, 5, (2, 6, 3), generator=generator).float()
        mass[4] = 1

        def slow(first, second):
            ranks = [
                [sum(each < value for each in row) + sum(each == value for each in row) / 2 for value in row]
                for row in (first.tolist(), second.tolist())
            ]
            return np.corrcoef(*ranks)[0, 1] if min(map(np.ptp, ranks)) else np.nan

        found = single_deletion(mass, effect)
        np.testing.assert_allclose(found.pooled, slow(mass.flatten(), effect.flatten()))
        np.testing.assert_allclose(found.by_image, list(map(slow, mass, effect)))
        np.testing.assert_allclose(found.by_part, list(map(slow, mass.T, effect.T)))
        assert found.by_image.isnan()[4]

    @pytest.mark.parametrize(
        ("mass", "effect", "error", "message"),
        [
            (torch.ones(2, 2), torch.ones(2, 3), ArgumentError, r"`effect` must .* got \(2, 3\)"),
            (torch.ones(2), torch.ones(2), ArgumentError, r"`mass` must .* got \(2,\)"),
            (torch.ones(0, 2), torch.ones(0, 2), ArgumentError, r"`mass` must .* got \(0, 2\)"),
            (torch.ones(2, 2), torch.full((2, 2), torch.nan), ArgumentError, "`effect` must be finite"),
            ([[1.0]], torch.ones(1, 1), ArgumentTypeError, "`mass` must be a tensor .* got list"),
        ],
    )
    def test_errors(self, mass, effect, error, message):
        with pytest.raises(error, match=message):
            single_deletion(mass, effect)
