"""The rules for tensors that hold everywhere: precision, and the shape of a batch of images."""

import hashlib
from typing import Any

import numpy as np
import torch

from gmar_hf.errors import ArgumentError, ArgumentTypeError


def at_least_float32(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor in float32, or as it is where it is finer: reductions are never done in half precision."""
    if tensor.is_floating_point() and tensor.dtype.itemsize == 1:  # which torch does not promote
        return tensor.float()
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def may_hold(flags: torch.Tensor) -> bool:
    """Tell whether one of the flags may be set: on a CPU whether one is.

    Elsewhere looking would make the CPU wait for the device, which costs more than what it could leave out.

    Example:
        >>> may_hold(torch.tensor([False, True])), may_hold(torch.tensor([False]))
        (True, False)
    """
    return flags.device.type != "cpu" or bool(flags.any())


def is_not_zero(rows: torch.Tensor) -> torch.Tensor:
    """Tell of every row (..., rows, numbers) whether some number in it is not zero, several times faster than `any`.

    Example:
        >>> is_not_zero(torch.tensor([[0.0, 2.0], [0.0, 0.0], [-1.0, 0.0]]))
        tensor([ True, False,  True])
    """
    return (rows.amax(dim=-1) != 0) | (rows.amin(dim=-1) != 0)


def reached_rows(by_row: torch.Tensor) -> torch.Tensor | None:
    """Find the rows that are not zero, where these are so few that the others are worth leaving out.

    Behind the last attention, and in its queries, a head of the class token reads one row. Elsewhere than on a CPU
    looking for it would make the CPU wait for the device.

    Args:
        by_row (`torch.Tensor` of shape (..., rows)): A number a row, or whether it has one that is not zero.

    Returns:
        `torch.Tensor` of shape (reached,), *optional*: The rows' indices; None on another device than a CPU, or where
            they are more than half.

    Example:
        >>> reached_rows(torch.tensor([[0.0, 2.0, 0.0, 0.0], [0.0, 0.0, 0.0, 3.0]]))
        tensor([1, 3])
    """
    if by_row.device.type != "cpu":
        return None
    rows = torch.atleast_2d(by_row).flatten(0, -2).any(dim=0).nonzero()[:, 0]
    return rows if 2 * len(rows) <= by_row.shape[-1] else None


def check_plain(name: str, tensor: torch.Tensor) -> None:
    """Refuse a tensor that does not hold real numbers, one behind the other.

    Args:
        name (`str`): What errors call it.
        tensor (`torch.Tensor`): What was given.

    Raises:
        ArgumentTypeError: If it is complex, sparse, quantised, nested or on the meta device.

    Example:
        >>> check_plain("head_weights", torch.ones(2, 2).to_sparse())
        Traceback (most recent call last):
        ...
        gmar_hf.errors.ArgumentTypeError: `head_weights` must be a dense tensor of real numbers; got one of layout \
sparse_coo. Call `.to_dense()`.
    """
    if tensor.is_nested:
        got, advice = "a nested one", "Pad it by `torch.nested.to_padded_tensor`"
    elif tensor.layout != torch.strided:
        got, advice = f"one of layout {str(tensor.layout).removeprefix('torch.').strip('_')}", "Call `.to_dense()`"
    elif tensor.is_quantized:
        got, advice = "a quantised one", "Call `.dequantize()`"
    elif tensor.is_complex():
        got, advice = "complex numbers", "Take `.real` or `.abs()`"
    elif tensor.is_meta:
        got, advice = "one on the meta device, which holds none", "Load it"
    else:
        return
    raise ArgumentTypeError(f"`{name}` must be a dense tensor of real numbers; got {got}. {advice}.")


def float64_array(name: str, values: Any, must: str) -> np.ndarray:
    """Return real numbers, as a tensor, an array or lists have them, as an array.

    Args:
        name (`str`): What errors call them.
        values: What was given.
        must (`str`): What errors say they must be, such as "a map of shape (rows, cols)".

    Raises:
        ArgumentTypeError: If they are something else.
    """
    if isinstance(values, torch.Tensor):
        check_plain(name, values)
        values = values.detach().cpu().double().numpy()  # NumPy knows no bfloat16
    try:
        if np.iscomplexobj(values):
            raise TypeError("complex numbers")
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ArgumentTypeError(f"`{name}` must be {must}; got {type(values).__name__} ({error}).") from error


def cast(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor | None:
    """Return a tensor in another dtype; None if a finite number in it is beyond what that holds.

    Example:
        >>> cast(torch.tensor([1e5]), torch.float16) is None
        True
    """
    narrow = tensor.to(dtype)
    if not tensor.is_floating_point() or torch.finfo(dtype).max >= torch.finfo(tensor.dtype).max:
        return narrow
    return narrow if torch.equal(narrow.isfinite(), tensor.isfinite()) else None


def relative_error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Return `max|a - b| / max|b|`, in float64.

    Example:
        >>> relative_error(torch.tensor([1.0, -4.0]), torch.tensor([2.0, -4.0]))
        0.25
    """
    difference = (ours.double() - theirs.double()).abs().max()
    return (difference / theirs.double().abs().max().clamp_min(torch.finfo(torch.float32).tiny)).item()


def described(value: object) -> object:
    """Return a value as plain JSON has it; of a tensor its shape, and a digest that tells it from others.

    Example:
        >>> described(0.5), described(torch.zeros(2, 1))
        (0.5, 'tensor of shape (2, 1), sha256 374708fff7719dd5')
    """
    if isinstance(value, torch.Tensor):
        content = value.detach().cpu().double().contiguous().numpy().tobytes()
        return f"tensor of shape {tuple(value.shape)}, sha256 {hashlib.sha256(content).hexdigest()[:16]}"
    return value if value is None or isinstance(value, bool | int | float | str) else type(value).__name__


def check_images(pixel_values: torch.Tensor, argument: str = "pixel_values") -> None:
    """Refuse what is no batch of images.

    Args:
        pixel_values (`torch.Tensor` of shape (batch, channels, height, width)): What was given.
        argument (`str`, defaults to "pixel_values"): What errors call it.

    Raises:
        ArgumentError: If the shape or the dtype do not fit.
        ArgumentTypeError: If it is no dense tensor of real numbers.
    """
    if not isinstance(pixel_values, torch.Tensor):
        raise ArgumentTypeError(
            f"`{argument}` must be a tensor (batch, channels, height, width); got {type(pixel_values).__name__}. "
            'Make it with the image processor: `image_processor(images, return_tensors="pt")["pixel_values"]`.'
        )
    check_plain(argument, pixel_values)
    if pixel_values.ndim != 4 or pixel_values.numel() == 0 or not pixel_values.is_floating_point():
        raise ArgumentError(
            f"`{argument}` must be floating point (batch, channels, height, width) with at least one image; got "
            f"{str(pixel_values.dtype).removeprefix('torch.')} {tuple(pixel_values.shape)}. One image needs "
            f"a batch axis, `{argument}[None]`; the flattened patches of SigLIP 2's image processor are put together "
            "by `gmar_hf.images.images_from_patches`."
        )


def copies_at_once(pixel_values: torch.Tensor, max_rows: int) -> int:
    """Tell how many copies of a batch a model gets at once: one at least, and no more than pay.

    A CPU is slower with many images at once (by a fifth for a ViT-S at 224 pixels and 64 images beside 8): what its
    layers make is taken from the system, page by page, and given back again. Anywhere memory ends somewhere.

    Args:
        pixel_values (`torch.Tensor` of shape (batch, channels, height, width)): The images.
        max_rows (`int`): How many images there may be at most.

    Returns:
        `int`: Copies that hold `max_rows` images together at most, and the pixels of 8 images of 224 x 224 on a CPU,
            of 64 elsewhere.

    Example:
        >>> copies_at_once(torch.zeros(2, 3, 224, 224), max_rows=256), copies_at_once(torch.zeros(2, 3, 32, 32), 256)
        (4, 128)
    """
    batch, _, height, width = pixel_values.shape
    pixels = 224 * 224 * (8 if pixel_values.device.type == "cpu" else 64)
    return max(1, min(max_rows, pixels // (height * width)) // batch)
