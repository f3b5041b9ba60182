"""Scalar codes of equal steps in one pass over the values."""

import numpy as np
import torch
from torch import Tensor

from gpuzip._core.parallel import map_blocks
from gpuzip.loops._jit import jit, wide_vectors

_BLOCK = 1 << 18  # values per block


def scalar_encode(x: Tensor, start: Tensor, step: Tensor, top: int) -> Tensor:
    N, D = x.shape
    out = torch.empty((N, D), dtype=torch.uint8, device="cpu")
    starts, steps = (t.float().expand(D).contiguous().numpy() for t in (start, step))

    def one_block(first: int, stop: int) -> None:
        _encode(
            x[first:stop].float().contiguous().numpy(),
            starts,
            steps,
            np.float32(top),
            out[first:stop].numpy(),
        )

    map_blocks(one_block, N, max(1, _BLOCK // max(D, 1)))
    return out


@jit()
def _encode(x, start, step, top, out):
    wide_vectors()
    N, D = x.shape
    for n in range(N):
        for d in range(D):
            cell = np.floor((x[n, d] - start[d]) / step[d])
            cell = cell if cell > np.float32(0) else np.float32(0)
            cell = cell if cell < top else top
            out[n, d] = np.uint8(np.int32(cell))
