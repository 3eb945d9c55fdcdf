"""Mean and spread of numbers that arrive in batches, kept apart by group."""

from dataclasses import dataclass

import torch

from gmar_hf.errors import ArgumentError
from gmar_hf.utils.missing_heads import are_finite_of_heads, is_nan_of_missing_heads


@dataclass(eq=False, repr=False)
class Moments:
    """Count, mean and squared deviations of all values so far, for each group; on the CPU.

    Within a batch the mean is taken first and the deviations from it second; batches are merged by the rule of Chan,
    Golub and LeVeque (1983). No difference of large sums is ever taken: the relative error of `squares` is about
    1e-16 times mean / spread. A group without members has mean and squares zero.

    Heads that a layer lacks are NaN in every value, see [`is_nan_of_missing_heads`].

    Args:
        count (`torch.LongTensor` of shape (groups,)): How many values each group has.
        mean (`torch.DoubleTensor` of shape (groups, ...)): Their mean.
        squares (`torch.DoubleTensor` of shape (groups, ...)): The sum of their squared deviations from the mean.

    Raises:
        ArgumentError: If a shape or dtype does not fit, or a count or a sum of squares is negative or NaN.

    Example:
        >>> moments = Moments.empty(num_groups=2, shape=())
        >>> moments.add(torch.tensor([1.0, 3.0, 7.0]), groups=torch.tensor([0, 0, 1]))
        >>> moments.count.tolist(), moments.mean.tolist(), moments.squares.tolist()
        ([2, 1], [2.0, 7.0], [2.0, 0.0])
    """

    count: torch.Tensor
    mean: torch.Tensor
    squares: torch.Tensor

    def __post_init__(self) -> None:
        dtypes = (self.count.dtype, self.mean.dtype, self.squares.dtype)
        if dtypes != (torch.int64, torch.float64, torch.float64):
            raise ArgumentError(
                "`count`, `mean`, `squares` must be int64, float64, float64; got "
                f"{', '.join(str(dtype).removeprefix('torch.') for dtype in dtypes)}."
            )
        shapes = [tuple(tensor.shape) for tensor in (self.count, self.mean, self.squares)]
        if len(shapes[0]) != 1 or shapes[1][:1] != shapes[0] or shapes[2] != shapes[1]:
            raise ArgumentError(
                "`count`, `mean`, `squares` must have shapes (groups,), (groups, ...), (groups, ...); got "
                f"{', '.join(map(str, shapes))}."
            )
        if (self.count < 0).any() or (self.squares < 0).any() or not is_nan_of_missing_heads(self._of_members()):
            raise ArgumentError("`count` and `squares` must not be negative or NaN; some are.")

    @classmethod
    def empty(cls, num_groups: int, shape: tuple[int, ...]) -> "Moments":
        """Return groups without members yet.

        Args:
            num_groups (`int`): How many groups.
            shape (`tuple[int, ...]`): The shape of one value.
        """
        # Fresh zeros cost memory only where they are written to: most groups of a large model never are.
        zeros = (torch.zeros(num_groups, *shape, dtype=torch.float64) for _ in range(2))
        return cls(torch.zeros(num_groups, dtype=torch.int64), *zeros)

    def _of_members(self) -> torch.Tensor:
        """Return the squares of the groups that have members."""
        return self.squares[self.count > 0]

    @property
    def num_groups(self) -> int:
        return len(self.count)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one value."""
        return tuple(self.mean.shape[1:])

    def __repr__(self) -> str:
        return f"Moments({self.num_groups} groups, values of shape {self.shape}, {int(self.count.sum())} so far)"

    def add(self, values: torch.Tensor, groups: torch.Tensor) -> None:
        """Take in a batch, in place.

        Args:
            values (`torch.Tensor` of shape (rows, ...)): The values, of any floating-point dtype and on any device.
            groups (`torch.LongTensor` of shape (rows,)): The group of each row; a group may come several times.

        Raises:
            ArgumentError: If shapes do not fit, a group is out of range, or a value is not finite. Nothing is taken
                in then.
        """
        groups = groups.detach().to("cpu", torch.int64)
        values = values.detach().to("cpu", torch.float64)
        if groups.ndim != 1 or tuple(values.shape) != (len(groups), *self.shape):
            raise ArgumentError(
                f"`values` must have shape ({', '.join(map(str, ('rows', *self.shape)))}) and `groups` (rows,); got "
                f"{tuple(values.shape)} and {tuple(groups.shape)}."
            )
        if not len(groups):
            return
        if groups.min() < 0 or groups.max() >= self.num_groups:
            raise ArgumentError(
                f"`groups` must be in [0, {self.num_groups - 1}]; got {int(groups.min())} to {int(groups.max())}."
            )
        if not are_finite_of_heads(values):
            raise ArgumentError("`values` must be finite; got NaN or infinity.")
        distinct, places, count = groups.unique(return_inverse=True, return_counts=True)
        # Sums run over distances from each group's first row: small numbers, and exact where all rows are equal.
        rows = torch.arange(len(groups))
        first = torch.full_like(distinct, len(groups)).scatter_reduce_(0, places, rows, "amin")
        origin = values[first]
        distance = values - origin[places]
        shift = torch.zeros_like(origin).index_add_(0, places, distance) / _beside(count, origin)
        squares = torch.zeros_like(origin).index_add_(0, places, (distance - shift[places]).square())
        self._absorb(distinct, count, origin + shift, squares)

    def merge(self, other: "Moments") -> "Moments":
        """Return new moments of the values of both.

        Args:
            other (`Moments`): Moments of as many groups, with values of the same shape.

        Raises:
            ArgumentError: If the groups or the shape differ.
        """
        if (other.num_groups, other.shape) != (self.num_groups, self.shape):
            raise ArgumentError(
                f"`other` must have {self.num_groups} groups of shape {self.shape}; got {other.num_groups} of "
                f"{other.shape}."
            )
        merged = Moments.empty(self.num_groups, self.shape)
        for part in (self, other):
            members = part.count.nonzero().flatten()
            merged._absorb(members, part.count[members], part.mean[members], part.squares[members])
        return merged

    def pool(self, groups: torch.Tensor) -> "Moments":
        """Return new moments with a single group, which holds the values of several.

        Args:
            groups (`torch.BoolTensor` of shape (groups,) or `torch.LongTensor` of shape (chosen,)): Which ones; each
                counts once.

        Raises:
            ArgumentError: If a group is out of range or the shape is another.
        """
        chosen = torch.zeros(self.num_groups, dtype=torch.bool)
        if groups.dtype == torch.bool:
            if groups.shape != chosen.shape:
                raise ArgumentError(f"`groups` must have shape ({self.num_groups},); got {tuple(groups.shape)}.")
            chosen |= groups.cpu()
        else:
            if groups.ndim != 1 or ((groups < 0) | (groups >= self.num_groups)).any():
                raise ArgumentError(f"`groups` must be indices in [0, {self.num_groups - 1}]; some are not.")
            chosen[groups.to("cpu", torch.int64)] = True
        members = (chosen & (self.count > 0)).nonzero().flatten()
        if not len(members):
            return Moments.empty(1, self.shape)
        count, mean = self.count[members], self.mean[members]
        weight = _beside(count, mean)
        distance = mean - mean[0]
        shift = (weight * distance).sum(0) / count.sum()
        squares = self.squares[members].sum(0) + (weight * (distance - shift).square()).sum(0)
        return Moments(count.sum()[None], (mean[0] + shift)[None], squares[None])

    def _absorb(self, distinct: torch.Tensor, count: torch.Tensor, mean: torch.Tensor, squares: torch.Tensor) -> None:
        """Merge values into the groups `distinct`, each of which is named once."""
        before, mean_before = self.count[distinct], self.mean[distinct]
        share = _beside(count.double() / (before + count), mean)  # int64 / int64 would be float32
        distance = mean - mean_before
        self.mean[distinct] = mean_before + distance * share
        self.squares[distinct] += squares + distance.square() * share * _beside(before, mean)
        self.count[distinct] = before + count


def _beside(count: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Return one number a group with axes to meet the group's values, float64."""
    return count.double().reshape(len(count), *[1] * (values.ndim - 1))
