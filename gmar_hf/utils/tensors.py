"""What holds for tensors everywhere."""

import torch


def at_least_float32(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor in float32, or as it is where it is finer: reductions are never done in half precision."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
