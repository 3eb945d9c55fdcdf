"""Hidden patches guessed from the pixels around them, so that no edge gives away where they were."""

from contextlib import AbstractContextManager, nullcontext
from functools import cached_property

import torch
from torch.nn.functional import avg_pool2d, conv2d, pad

from gmar_hf.utils.tensors import at_least_float32

NOISE = 0.01
"""Standard deviation of the noise on imputed pixels, in the unit of the pixel values; that of the authors' code."""

_TOLERANCE = 3e-4  # of the residual's norm, beside that of the right-hand side: far below the noise
_MOST_STEPS = 200


class NoisyLinearImputation:
    """Hidden pixels are imputed linearly, with a little noise: the filling of ROAD (Rong et al., ICML 2022).

    Each hidden pixel is the weighted mean of its eight neighbours, hidden ones too: direct neighbours count 1/6,
    diagonal ones 1/12, at the image's edge those that are there. Normal noise of standard deviation 0.01 is added,
    the same for every image. Of an image that is hidden whole each pixel is its channel's mean.
    """

    def hide(
        self, pixel_values: torch.Tensor, hidden: torch.Tensor, patch_size: tuple[int, int]
    ) -> AbstractContextManager[torch.Tensor]:
        """Hide patches, as [`Filling.hide`] says."""
        images = at_least_float32(pixel_values)
        rows = images.repeat(len(hidden), 1, 1, 1)
        system = _Neighbours(hidden.flatten(0, 1), patch_size, (rows.shape[-2], rows.shape[-1]), rows.dtype)
        imputed = system.impute(rows)
        noise = torch.randn(rows.shape[1:], generator=torch.Generator().manual_seed(0), device="cpu").to(rows) * NOISE
        return nullcontext(torch.where(system.hidden, imputed + noise, rows).to(pixel_values.dtype))


class _Neighbours:
    """The linear system of the hidden pixels, solved by conjugate gradients.

    Its matrix is symmetric and positive definite. What a patch's pixels have in common, which neighbours alone would
    settle only in as many steps as there are pixels between, is settled patch by patch in every step.

    Args:
        hidden (`torch.Tensor` of shape (rows, grid rows, grid columns), bool): The patches.
        patch_size (`tuple[int, int]`): In pixels.
        size (`tuple[int, int]`): Height and width of the images.
        dtype (`torch.dtype`): Of the images.
    """

    def __init__(
        self, hidden: torch.Tensor, patch_size: tuple[int, int], size: tuple[int, int], dtype: torch.dtype
    ) -> None:
        self._patches = hidden
        self._patch_size = patch_size
        covered = tuple(number * side for number, side in zip(hidden.shape[1:], patch_size, strict=True))
        self._margin = (0, size[1] - covered[1], 0, size[0] - covered[0])
        self.hidden = self._to_pixels(hidden[:, None].float()) > 0  # (rows, 1, height, width)
        self._num_neighbours = self._mean(torch.ones(1, 1, *size, device=hidden.device, dtype=dtype))

    def impute(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the images (rows, channels, height, width) with hidden pixels imputed; the others stay."""
        right = self._mean(rows.masked_fill(self.hidden, 0)) * self.hidden
        values = torch.zeros_like(rows)
        residual, direction, size_before = right, None, None
        limit = _TOLERANCE * right.square().sum(dim=(-2, -1)).sqrt()
        for _ in range(_MOST_STEPS):
            if bool((residual.square().sum(dim=(-2, -1)).sqrt() <= limit).all()):
                break
            better = self._roughly_solved(residual)
            size_now = (residual * better).sum(dim=(-2, -1), keepdim=True)
            direction = better if direction is None else better.addcmul_(_ratio(size_now, size_before), direction)
            image = self._matrix_times(direction)
            step = _ratio(size_now, (direction * image).sum(dim=(-2, -1), keepdim=True))
            values.addcmul_(step, direction)
            residual.addcmul_(step, image, value=-1)
            size_before = size_now
        # Of a row that is hidden whole the system says nothing.
        whole = self.hidden.flatten(1).all(dim=1)[:, None, None, None]
        means = rows.mean(dim=(-2, -1), keepdim=True)
        return torch.where(self.hidden, torch.where(whole, means, values), rows)

    def _matrix_times(self, values: torch.Tensor) -> torch.Tensor:
        return (self._num_neighbours * values).sub_(self._mean(values)).mul_(self.hidden)

    def _mean(self, values: torch.Tensor) -> torch.Tensor:
        """Return the weighted sum of each pixel's neighbours; zeros stand beyond the image's edge."""
        # [1, 2, 1] along rows and columns, less the 4 of the middle: 2 for direct neighbours, 1 for diagonal ones.
        padded = pad(values, (1, 1, 1, 1))
        along = (padded[..., :-2] + padded[..., 2:]).add_(padded[..., 1:-1], alpha=2)
        both = (along[..., :-2, :] + along[..., 2:, :]).add_(along[..., 1:-1, :], alpha=2)
        return both.sub_(values, alpha=4).div_(12)

    def _roughly_solved(self, residual: torch.Tensor) -> torch.Tensor:
        """Return about what the matrix makes `residual` of: pixel by pixel, and patch by patch."""
        sums = avg_pool2d(residual, self._patch_size, divisor_override=1)
        flat = sums.flatten(2).transpose(1, 2)  # (rows, patches, channels)
        coarse = torch.cholesky_solve(flat, self._factor).transpose(1, 2).view(sums.shape)
        return (residual / self._num_neighbours).add_(self._to_pixels(coarse)).mul_(self.hidden)

    @cached_property
    def _factor(self) -> torch.Tensor:
        """Cholesky's factor of the matrix summed over patches (rows, patches, patches); visible ones are alone."""
        num_rows, num_cols = self._patches.shape[1:]
        height, width = self._patch_size
        # What lies between two patches: pairs of pixels that touch along an edge, or at a corner.
        kernel = torch.tensor(
            [[1.0, 4 * width - 2, 1.0], [4 * height - 2, 0.0, 4 * height - 2], [1.0, 4 * width - 2, 1.0]]
        )
        kernel = (kernel / 12).to(self._num_neighbours)
        num_patches = num_rows * num_cols
        each = torch.eye(num_patches).view(num_patches, 1, num_rows, num_cols).to(kernel)
        between = conv2d(each, kernel[None, None], padding=1).view(num_patches, num_patches)
        # Pixels beyond the last whole patch count as patches that always show.
        beyond = pad(
            torch.ones(1, 1, num_rows, num_cols).to(kernel), [int(side > 0) for side in self._margin], value=1.0
        )
        all_around = conv2d(beyond, kernel[None, None], padding=1)[..., :num_rows, :num_cols].flatten()
        matrix = torch.diag(all_around) - between
        hidden = self._patches.flatten(1)
        is_whole = hidden.all(dim=1, keepdim=True) & (sum(self._margin) == 0)
        hidden = hidden & ~is_whole
        both = hidden[:, :, None] & hidden[:, None, :]
        alone = torch.eye(num_patches).to(kernel)
        return torch.linalg.cholesky(torch.where(both, matrix, alone))

    def _to_pixels(self, patches: torch.Tensor) -> torch.Tensor:
        """Bring values of patches (rows, channels, grid rows, grid columns) to pixels; zeros beyond the last patch."""
        height, width = self._patch_size
        return pad(patches.repeat_interleave(height, dim=-2).repeat_interleave(width, dim=-1), self._margin)


def _ratio(above: torch.Tensor, below: torch.Tensor | None) -> torch.Tensor:
    """Divide; 0 where nothing is left to be done."""
    assert below is not None
    return torch.where(below > 0, above / below.clamp_min(torch.finfo(below.dtype).tiny), 0)
