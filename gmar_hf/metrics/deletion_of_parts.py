"""Whether a map's mass on each part of an image goes with what the part really adds to the logit."""

from dataclasses import dataclass

import torch

from gmar_hf.errors import ArgumentError, ArgumentTypeError
from gmar_hf.metrics.localization import by_patch
from gmar_hf.utils.correlation import spearman
from gmar_hf.utils.tensors import check_plain


@dataclass(frozen=True, eq=False, kw_only=True)
class SingleDeletion:
    """How well a map's masses on parts are ranked, three times by Spearman's correlation in [-1, 1].

    Args:
        pooled (`torch.Tensor` of shape ()): Over all parts of all images. It also asks that masses of different
            images compare: a map in a unit of its own for each image begins with a handicap.
        by_image (`torch.Tensor` of shape (images,)): Over the parts of each image, NaN where one side is constant.
            With two parts it is 1 or -1, so that only its mean says something.
        by_part (`torch.Tensor` of shape (parts,)): Over the images, for the parts of each place by itself: what is
            left where no part has to be told from one of another kind.
    """

    pooled: torch.Tensor
    by_image: torch.Tensor
    by_part: torch.Tensor


def part_mass(attribution: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Return the signed sum of a map over a part of the image, a patch's value lying evenly on its pixels.

    Args:
        attribution (`torch.Tensor` of shape (batch, rows, cols)): The maps.
        masks (`torch.Tensor` of shape (batch, height, width), bool): True on the part's pixels.

    Returns:
        `torch.Tensor` of shape (batch,): In the unit of the map; float32 on its device.

    Raises:
        ArgumentError, ArgumentTypeError: If an argument cannot be used, or map and masks do not fit together.

    Example:
        >>> mask = torch.tensor([[[True, True, True, False]]])
        >>> part_mass(torch.tensor([[[-3.0, 1.0]]]), mask)  # all of the first patch, half of the second
        tensor([-2.5000])
    """
    patches = by_patch(attribution, masks)
    return (patches.values * patches.share_inside).sum(dim=1).float()


def single_deletion(mass: torch.Tensor, effect: torch.Tensor) -> SingleDeletion:
    """Compare a map's masses on parts with what removing each part alone takes from the logit.

    It is the single deletion protocol of FunnyBirds (Hesse, Schaub-Meyer and Roth, ICCV 2023): Spearman's rank
    correlation of the two over the parts.

    Args:
        mass (`torch.Tensor` of shape (images, parts)): The map's masses, as [`part_mass`] has them.
        effect (`torch.Tensor` of the same shape): The logit of the image less that of the image without the part.

    Returns:
        [`SingleDeletion`]: float64 on the CPU.

    Raises:
        ArgumentError: If they are not of one shape (images, parts), or not finite.
        ArgumentTypeError: If one of them is no tensor.

    Example:
        >>> found = single_deletion(torch.tensor([[2.0, 1.0], [4.0, 5.0]]), torch.tensor([[7.0, -1.0], [9.0, 8.0]]))
        >>> round(found.pooled.item(), 3), found.by_image.tolist(), found.by_part.tolist()
        (0.8, [1.0, -1.0], [1.0, 1.0])
    """
    for name, values in (("mass", mass), ("effect", effect)):
        if not isinstance(values, torch.Tensor):
            raise ArgumentTypeError(f"`{name}` must be a tensor (images, parts); got {type(values).__name__}.")
        check_plain(name, values)
        if values.ndim != 2 or values.numel() == 0 or values.shape != mass.shape or not values.isfinite().all():
            raise ArgumentError(
                f"`{name}` must be finite, of shape (images, parts), the same for both; got {tuple(values.shape)}."
            )
    return SingleDeletion(
        pooled=spearman(mass.flatten(), effect.flatten()),
        by_image=spearman(mass, effect),
        by_part=spearman(mass.T, effect.T),
    )
