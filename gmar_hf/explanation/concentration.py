"""Whether one or two patches hold most of a rollout, which then shows the model's scratch space and not the image."""

import torch

_MOST = 1 / 3  # of what rises above the median
_MANY_PATCHES = 32  # of fewer, two may well hold so much


def concentration(attribution: torch.Tensor) -> torch.Tensor:
    """Return how much of what rises above a map's median its two highest patches hold.

    Vision transformers write into tokens of outlying norm, which lie on patches that show nothing, and all others
    attend to them (Darcet et al., ICLR 2024, arXiv 2309.16588): a rollout lights these patches.

    Args:
        attribution (`torch.Tensor` of shape (..., rows, cols)): Maps.

    Returns:
        `torch.Tensor` of shape (...): In [0, 1]; 0 of a flat map.

    Example:
        >>> concentration(torch.tensor([[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [2.0, 4.0, 1.0]]))
        tensor(0.7500)
    """
    by_patch = attribution.flatten(-2)
    risen = (by_patch - by_patch.median(dim=-1, keepdim=True).values).clamp(min=0)
    highest = risen.topk(min(2, risen.shape[-1]), dim=-1).values.sum(dim=-1)
    return highest / risen.sum(dim=-1).clamp(min=torch.finfo(risen.dtype).tiny)


def concentration_note(attribution: torch.Tensor) -> str | None:
    """Return a sentence where two of many patches hold most of a rollout (rows, cols); else None."""
    share, num_patches = concentration(attribution).item(), attribution.numel()
    if share < _MOST or num_patches < _MANY_PATCHES:
        return None
    return (
        f"Two of {num_patches} patches hold {share:.0%} of what rises above this map's median: most often tokens that "
        'the model writes notes into, and not places that speak for the label. Look at method "recommended" too.'
    )
