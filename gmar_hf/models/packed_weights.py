"""Weights that bitsandbytes packs for a kernel without a backward, unpacked while a model is explained.

On CPUs with AVX512-BF16 its 4-bit layers rearrange their weights in the first forward in eval mode whose input wants
no gradient, and from then on compute in bfloat16 by an operator that no gradient passes. Unpacked, the same weights
multiply in the input's own precision, and have a backward.
"""

import copy
import sys
from collections.abc import Callable
from typing import Any

from torch import nn

_FLAG = "support_avx512bf16_for_cpu"  # of a layer: whether it packs its weight


def unpack(module: nn.Module) -> Callable[[], None]:
    """Unpack the weight of one module, if it is a 4-bit layer of bitsandbytes, and keep it from being packed again.

    Args:
        module (`nn.Module`): Any module; most are left alone.

    Returns:
        `Callable`: Puts the module back as it was.
    """
    library = sys.modules.get("bitsandbytes")  # who has such a layer has imported it
    if library is None or not isinstance(module, library.nn.Linear4bit) or not hasattr(module, _FLAG):
        return lambda: None
    weight: Any = module.weight
    flag, data, state = getattr(module, _FLAG), weight.data, getattr(weight, "quant_state", None)

    def undo() -> None:
        weight.data, weight.quant_state = data, state
        setattr(module, _FLAG, flag)

    if getattr(state, "packing_format_for_cpu", False):
        weight.data, weight.quant_state = _unpacked(library.functional, data, state)
    setattr(module, _FLAG, False)
    return undo


def _unpacked(functional: Any, data: Any, state: Any) -> tuple[Any, Any]:
    """Return a weight's 4-bit numbers in their order, and the state that scales them.

    The scales are taken as packing has left them, one a block of a row, rounded to bfloat16: the library's way back
    would compress them once more where they had been compressed, and leaves them in the packed order where not.
    """
    scales, state = state.absmax, copy.copy(state)
    state.original_nested = False
    data, state = functional._convert_weight_packed_for_cpu_inverse(data, state)
    state.absmax = scales.T.reshape(-1).float()
    return data, state
