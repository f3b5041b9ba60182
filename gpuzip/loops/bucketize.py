"""Counts the boundaries below each value: by comparing with each if they are few, else by binary search."""

import numpy as np
import torch
from torch import Tensor

from gpuzip._core.parallel import map_blocks
from gpuzip.loops._jit import jit

_BLOCK = 1 << 18  # values per block
_FEW = 31


def bucketize(x: Tensor, boundaries: Tensor) -> Tensor:
    N, D = x.shape
    out = torch.empty((N, D), dtype=torch.uint8, device="cpu")
    steps = boundaries.float().expand(D, -1).T.contiguous().numpy()  # [L, D]: columns are lanes
    count = _count_of_few if len(steps) <= _FEW else _count_of_many

    def one_block(start: int, stop: int) -> None:
        count(x[start:stop].float().contiguous().numpy(), steps, out[start:stop].numpy())

    map_blocks(one_block, N, max(1, _BLOCK // max(D, 1)), with_caller=True)
    return out


@jit("void(float32[:, ::1], float32[:, ::1], uint8[:, ::1])")
def _count_of_few(x, boundaries, out):
    """Count not (x <= b) instead of b < x, so that NaN is above every boundary, as in torch."""
    N, D = x.shape
    L = len(boundaries)
    for n in range(N):
        for d in range(D):
            out[n, d] = 0
        for i in range(L):
            for d in range(D):
                out[n, d] += np.uint8(not (x[n, d] <= boundaries[i, d]))


@jit("void(float32[:, ::1], float32[:, ::1], uint8[:, ::1])")
def _count_of_many(x, boundaries, out):
    N, D = x.shape
    L = len(boundaries)
    half = 1
    while half <= L // 2:
        half *= 2
    for n in range(N):
        for d in range(D):
            value, below, step = x[n, d], 0, half
            while step:
                at = below + step - 1
                if at < L and not (value <= boundaries[at, d]):
                    below += step
                step //= 2
            out[n, d] = below
