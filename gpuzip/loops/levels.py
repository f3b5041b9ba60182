"""Levels become floats in a tile of rows that stays in the cache, which is multiplied at once."""

import numpy as np
import torch

from gpuzip._core.matmul import matrix_product
from gpuzip._core.memory import uninitialized
from gpuzip._core.parallel import map_blocks
from gpuzip.loops._arrays import flat
from gpuzip.loops._jit import jit, wide_vectors

_ROWS = 256


def rows_of_levels(levels, offsets, directions, mean):
    """Run the operator: (N, C) int32, (C, 4), (C, D), (D,) float32 -> (N, D) float32."""
    N, C = levels.shape
    out = uninitialized(N, len(mean), torch.float32)
    given, beyond = levels.contiguous().numpy(), offsets.T.contiguous().numpy()

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
    every_level, every_value, beyond = flat(levels), flat(values), flat(offsets)
    for i in range(N):
        for j in range(C):
            level = every_level[np.uint64(i * C + j)]
            size = abs(level)
            one = beyond[np.uint64(C + j)]
            two, more = beyond[np.uint64(2 * C + j)], beyond[np.uint64(3 * C + j)]
            offset = one if size == 1 else (two if size == 2 else more)
            value = np.float32(size) + offset
            signed = -value if level < 0 else value
            every_value[np.uint64(i * C + j)] = np.float32(0) if level == 0 else signed
