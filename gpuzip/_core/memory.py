"""Memory for large results on a CPU."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

_LARGE = (
    1 << 25
)  # bytes that the C library returns to the system after use, and then gets zeroed page by page
_LINE = 64  # bytes per cache line


def uninitialized(N: int, D: int, dtype: torch.dtype) -> Tensor:
    """(N, D) on the CPU, which starts on a cache line, since stores across two lines are slower.

    numpy allocates what is large, because it asks for large pages and torch does not.
    """
    size = dtype.itemsize
    if N * D * size < _LARGE:
        return torch.empty((N, D), dtype=dtype, device="cpu")
    memory = np.empty(N * D + _LINE // size, f"i{size}")
    start = -memory.ctypes.data % _LINE // size
    return torch.from_numpy(memory[start : start + N * D]).view(dtype).view(N, D)
