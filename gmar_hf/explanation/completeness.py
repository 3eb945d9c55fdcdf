"""Whether the contributions on a path come near what they should come to."""

import torch


def completeness_note(head_contribution: torch.Tensor, completeness_gap: float) -> str | None:
    """Return a sentence where contributions on a path are half of what they should come to, twice it, or worse.

    Args:
        head_contribution (`torch.Tensor` of shape (layers, heads)): On the path, in logits; NaN of heads that a layer
            lacks.
        completeness_gap (`float`): By how much all of them together are too many.

    Returns:
        `str` or None: None where they are nearer.

    Example:
        >>> print(completeness_note(torch.tensor([[4.0, 8.0]]), 6.5))
        The heads' contributions come to +12.0 logits, where all attention adds +5.5: do not read amounts from this \
map. More points on the path (`num_points`, `--num-points`: 4, or 8) come closer.
        >>> completeness_note(torch.tensor([[4.0, 8.0]]), 5.0)
    """
    total = head_contribution.nan_to_num(0.0).sum().item()
    expected = total - completeness_gap
    if abs(completeness_gap) < min(abs(total), abs(expected)):
        return None
    return (
        f"The heads' contributions come to {total:+z.1f} logits, where all attention adds {expected:+z.1f}: do not "
        "read amounts from this map. More points on the path (`num_points`, `--num-points`: 4, or 8) come closer."
    )
