"""Levels become floats in a tile of rows that stays in the cache, which is multiplied at once."""

import numpy as np
import torch

from gpuzip._core.matmul import matrix_product
from gpuzip._core.memory import uninitialized
from gpuzip._core.parallel import map_blocks
from gpuzip.loops._jit import jit, wide_vectors

_ROWS = 256


def rows_of_levels(levels, offsets, directions, mean):
    """Run the operator: (N, C) int32, (C, 4), (C, D), (D,) float32 -> (N, D) float32."""
    N, C = levels.shape
    out = uninitialized(N, len(mean), torch.float32)
    given, beyond = levels.contiguous().numpy(), offsets.contiguous().numpy()

    def some_rows(start, stop):
        values = torch.empty((stop - start, C), dtype=torch.float32, device="cpu")
        _steps(given[start:stop], beyond, values.numpy())
        matrix_product(torch.addmm, mean, values, directions, out=out[start:stop])

    map_blocks(some_rows, N, _ROWS)
    return out


@jit("void(int32[:, ::1], float32[:, ::1], float32[:, ::1])")
def _steps(levels, offsets, values):
    wide_vectors()
    N, C = levels.shape
    for i in range(N):
        for j in range(C):
            level = levels[i, j]
            size = abs(level)
            group = min(size, 3)
            value = np.float32(size) + offsets[j, group]
            values[i, j] = np.float32(0) if level == 0 else (-value if level < 0 else value)
