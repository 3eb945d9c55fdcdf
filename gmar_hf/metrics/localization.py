"""Whether a map lies on the object that it explains. Only maps and masks are read, never the model.

Of each of these but [`sparseness`], which has no mask, an image whose mask is empty gets 0: leave such images out.
"""

from typing import NamedTuple

import torch
from torch.nn.functional import max_pool2d

from gmar_hf.errors import ArgumentError, ArgumentTypeError
from gmar_hf.utils.checks import check_whole
from gmar_hf.utils.tensors import at_least_float32, check_plain


def pointing_game(attribution: torch.Tensor, masks: torch.Tensor, tolerance: int = 0) -> torch.Tensor:
    """Tell whether the map's maximum is on the object (Zhang et al., "Excitation Backprop", IJCV 2018).

    Args:
        attribution (`torch.Tensor` of shape (batch, rows, cols)): The maps.
        masks (`torch.Tensor` of shape (batch, height, width), bool): True on the object's pixels, in the frame of the
            map; height and width are multiples of rows and cols.
        tolerance (`int`, defaults to 0): How many patches away, along rows and columns, still counts.

    Returns:
        `torch.Tensor` of shape (batch,): 1 where the mask touches the patch of the maximum (of equal ones the first,
            row by row) or one within the tolerance, else 0; float32 on the map's device.

    Raises:
        ArgumentError, ArgumentTypeError: If an argument cannot be used, or map and masks do not fit together.

    Example:
        >>> mask = torch.tensor([[[True, False], [False, False]]])
        >>> pointing_game(torch.tensor([[[0.1, 0.7], [0.0, 0.2]]]), mask)
        tensor([0.])
        >>> pointing_game(torch.tensor([[[0.1, 0.7], [0.0, 0.2]]]), mask, tolerance=1)
        tensor([1.])
    """
    check_whole("tolerance", tolerance)
    patches = by_patch(attribution, masks)
    touched = (patches.num_inside > 0).float().unflatten(1, attribution.shape[1:])
    reach = min(tolerance, max(attribution.shape[1:]))  # beyond it every patch is within reach
    near = max_pool2d(touched[:, None], 2 * reach + 1, stride=1, padding=reach).flatten(1)
    return near.gather(1, patches.values.argmax(dim=1, keepdim=True))[:, 0]


def energy_pointing_game(attribution: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Return the share of the map's positive mass on the object (Wang et al., "Score-CAM", CVPR Workshops 2020).

    Args:
        attribution (`torch.Tensor` of shape (batch, rows, cols)): The maps; a patch's mass lies evenly on its pixels.
        masks (`torch.Tensor` of shape (batch, height, width), bool): True on the object's pixels.

    Returns:
        `torch.Tensor` of shape (batch,): In [0, 1], 0 where the map has no positive part; float32 on the map's
            device. A map that says nothing gets the object's share of the image.

    Raises:
        ArgumentError, ArgumentTypeError: If an argument cannot be used, or map and masks do not fit together.

    Example:
        >>> mask = torch.tensor([[[True, False], [False, False]]])
        >>> energy_pointing_game(torch.tensor([[[3.0, 1.0], [-5.0, 0.0]]]), mask)
        tensor([0.7500])
    """
    patches = by_patch(attribution, masks)
    mass = _relative(patches.values.relu())
    inside = (mass * patches.share_inside).sum(dim=1)
    total = mass.sum(dim=1)
    return (inside / total).where(total > 0, 0).float()


def grid_pointing_game(
    attribution: torch.Tensor, cell: torch.Tensor, *, grid: tuple[int, int] = (2, 2)
) -> torch.Tensor:
    """Return the share of the map's positive mass in its class's cell of a mosaic (Rao et al., CVPR 2022).

    Each cell of the mosaic shows an image of another class, so that no masks are needed.

    Args:
        attribution (`torch.Tensor` of shape (batch, rows, cols)): The maps over the mosaics; a patch that lies in
            several cells is shared by its area.
        cell (`torch.LongTensor` of shape (batch,)): The cell of the explained class, counted row by row from 0.
        grid (`tuple[int, int]`, defaults to (2, 2)): Rows and columns of the mosaic.

    Returns:
        `torch.Tensor` of shape (batch,): In [0, 1], 0 where the map has no positive part; float32 on the map's
            device. A map that says nothing of the class gets one over the number of cells.

    Raises:
        ArgumentError, ArgumentTypeError: If an argument cannot be used.

    Example:
        >>> grid_pointing_game(torch.tensor([[[3.0, 1.0], [-5.0, 0.0]]]), torch.tensor([0]))
        tensor([0.7500])
    """
    cells = _cells(attribution, cell, grid)
    return energy_pointing_game(attribution, cells == cell.to(attribution.device)[:, None, None])


def right_quadrant(attribution: torch.Tensor, cell: torch.Tensor, *, grid: tuple[int, int] = (2, 2)) -> torch.Tensor:
    """Tell whether the cell of its class has the largest sum of the map in a mosaic, negative values and all.

    Args:
        attribution (`torch.Tensor` of shape (batch, rows, cols)): The maps over the mosaics; a patch that lies in
            several cells is shared by its area.
        cell (`torch.LongTensor` of shape (batch,)): The cell of the explained class, counted row by row from 0.
        grid (`tuple[int, int]`, defaults to (2, 2)): Rows and columns of the mosaic.

    Returns:
        `torch.Tensor` of shape (batch,): 1 where it has (of equal ones the first), else 0; float32 on the map's
            device. A map that says nothing of the class gets one over the number of cells in the mean.

    Raises:
        ArgumentError, ArgumentTypeError: If an argument cannot be used.

    Example:
        >>> right_quadrant(torch.tensor([[[3.0, 1.0], [-5.0, 0.0]]] * 2), torch.tensor([0, 1]))
        tensor([1., 0.])
    """
    cells = _cells(attribution, cell, grid)
    maps = attribution.detach().cpu().double()  # there is no double on every device
    pixels = maps.repeat_interleave(grid[0], dim=1).repeat_interleave(grid[1], dim=2)
    sums = pixels.new_zeros(len(maps), grid[0] * grid[1]).index_add_(1, cells.cpu().flatten(), pixels.flatten(1))
    return (sums.argmax(dim=1) == cell.cpu()).float().to(attribution.device)


def iou(attribution: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Return the intersection over union of the object with the patches above the map's own mean.

    Args:
        attribution (`torch.Tensor` of shape (batch, rows, cols)): The maps.
        masks (`torch.Tensor` of shape (batch, height, width), bool): True on the object's pixels.

    Returns:
        `torch.Tensor` of shape (batch,): In [0, 1], 0 for a constant map; float32 on the map's device.

    Raises:
        ArgumentError, ArgumentTypeError: If an argument cannot be used, or map and masks do not fit together.

    Example:
        >>> mask = torch.tensor([[[True, False], [False, False]]])
        >>> iou(torch.tensor([[[0.9, 0.8], [0.1, 0.0]]]), mask)
        tensor([0.5000])
    """
    patches = by_patch(attribution, masks)
    values = patches.values.cpu().double()  # there is no double on every device
    # From the smallest value on: the rounded mean of a constant map can be less than the constant.
    values = values - values.amin(dim=1, keepdim=True)
    above = (values > values.mean(dim=1, keepdim=True)).to(patches.values.device)
    both = (above * patches.num_inside).sum(dim=1)
    either = above.sum(dim=1) * patches.area + patches.num_inside.sum(dim=1) - both
    return both.float() / either.clamp_min(1)


def sparseness(attribution: torch.Tensor) -> torch.Tensor:
    """Return the Gini index of the map's magnitudes, which tells how few patches carry it.

    It is that of Hurley and Rickard ("Comparing Measures of Sparsity", IEEE Trans. Information Theory 2009).
    With magnitudes `c` in rising order, their sum `s` and `N` patches: `1 - 2 sum_k c_k / s (N - k + 1/2) / N`.

    Args:
        attribution (`torch.Tensor` of shape (batch, rows, cols)): The maps.

    Returns:
        `torch.Tensor` of shape (batch,): In [0, 1), 0 where all magnitudes are equal, `1 - 1 / N` where one patch
            carries all; float32 on the map's device. Neither end is better.

    Raises:
        ArgumentError, ArgumentTypeError: If the map cannot be used.

    Example:
        >>> sparseness(torch.tensor([[[0.0, 0.0], [0.0, -2.0]]]))
        tensor([0.7500])
    """
    rising = _relative(checked_maps("attribution", attribution).flatten(1).abs()).sort(dim=1).values
    num_patches, total = rising.shape[1], rising.sum(dim=1)
    # The same sum, written so that equal magnitudes cancel.
    place = torch.arange(1 - num_patches, num_patches, 2, device=rising.device)
    gini = (place * rising).sum(dim=1) / (num_patches * total)
    return gini.clamp_min(0).where(total > 0, 0).float()


def checked_maps(name: str, maps: torch.Tensor) -> torch.Tensor:
    """Return a user's maps (batch, rows, cols) of the argument `name`, detached, float32 at least.

    Raises:
        ArgumentError, ArgumentTypeError: If they are no tensor, of another shape, empty or not finite.
    """
    if not isinstance(maps, torch.Tensor):
        raise ArgumentTypeError(
            f"`{name}` must be a tensor of real numbers (batch, rows, cols); got {type(maps).__name__}. "
            "Pass `gmar_hf.explain(...).attribution`."
        )
    check_plain(name, maps)
    if maps.ndim != 3 or maps.numel() == 0:
        raise ArgumentError(
            f"`{name}` must have one map an image, shape (batch, rows, cols); got {tuple(maps.shape)}. "
            "Measure each of several targets by itself."
        )
    maps = at_least_float32(maps.detach())
    if not maps.isfinite().all():
        raise ArgumentError(f"`{name}` must be finite; got NaN or infinity.")
    return maps


def _cells(attribution: torch.Tensor, cell: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Check a mosaic's maps and cells; return the cell of each pixel, of so many a patch that each lies in one."""
    if not isinstance(grid, tuple | list) or len(grid) != 2:
        raise ArgumentTypeError(f"`grid` must be (rows, columns) of the mosaic; got {grid!r:.40}.")
    num_rows, num_cols = (check_whole("grid", number, minimum=1) for number in grid)
    batch, rows, cols = checked_maps("attribution", attribution).shape
    if not isinstance(cell, torch.Tensor) or cell.dtype == torch.bool or cell.is_floating_point():
        raise ArgumentTypeError("`cell` must be a tensor of ints, one for each map.")
    check_plain("cell", cell)
    cell = cell.long()  # a narrow type may not hold the number of cells
    if cell.shape != (batch,) or not bool(((cell >= 0) & (cell < num_rows * num_cols)).all()):
        raise ArgumentError(
            f"`cell` must be in [0, {num_rows * num_cols - 1}], one for each of the {batch} maps; got {cell.tolist()}."
        )
    places = torch.arange(num_rows * num_cols, device=attribution.device).view(num_rows, num_cols)
    return places.repeat_interleave(rows, dim=0).repeat_interleave(cols, dim=1)


class Patches(NamedTuple):
    """Maps and masks on one grid: values and numbers of the object's pixels (batch, patches); pixels of a patch."""

    values: torch.Tensor
    num_inside: torch.Tensor
    area: int

    @property
    def share_inside(self) -> torch.Tensor:
        """The object's share of each patch, in [0, 1], float32."""
        return self.num_inside.float() / self.area  # not in torch's default dtype


def by_patch(attribution: torch.Tensor, masks: torch.Tensor) -> Patches:
    """Check maps and masks and bring them to one grid.

    Raises:
        ArgumentError, ArgumentTypeError: If one of them cannot be used, or they do not fit together.
    """
    values = checked_maps("attribution", attribution)
    if not isinstance(masks, torch.Tensor) or masks.dtype != torch.bool:
        got = masks.dtype if isinstance(masks, torch.Tensor) else type(masks).__name__
        raise ArgumentTypeError(
            f"`masks` must be a bool tensor (batch, height, width), True on the object; got {got}. "
            "Make one with `torch.from_numpy(masks) > 0`."
        )
    check_plain("masks", masks)
    batch, rows, cols = values.shape
    if masks.ndim != 3 or len(masks) != batch or masks.numel() == 0:
        raise ArgumentError(
            f"`masks` must have one mask for each of the {batch} maps, shape ({batch}, height, width); "
            f"got {tuple(masks.shape)}."
        )
    height, width = masks.shape[1:]
    if height % rows or width % cols:
        raise ArgumentError(
            f"`masks` must have a height and a width that the map's {rows} x {cols} patches divide evenly; "
            f"got {height} x {width}. Crop or resize the masks to the pixels that the patches cover."
        )
    blocks = masks.to(values.device).reshape(batch, rows, height // rows, cols, width // cols)
    return Patches(values.flatten(1), blocks.sum(dim=(2, 4)).flatten(1), (height // rows) * (width // cols))


def _relative(values: torch.Tensor) -> torch.Tensor:
    """Divide numbers (batch, patches) of 0 or more by the largest of their row: no sum overflows, zeros become NaN."""
    return values / values.amax(dim=1, keepdim=True)
