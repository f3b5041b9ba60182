"""Sum and count of the rows of each centroid; each thread has its own sub-spaces.

Rows are added in order, in float64, so that the result is the same for any number of threads. A block of rows
stays in cache while each sub-space of the thread reads its columns.
"""

import numpy as np
import torch
from torch import Tensor

from gpuzip._core.parallel import map_blocks
from gpuzip.loops._jit import UNROLLED, jit, unrolled

_ROWS = 256
_WORK = 1 << 18  # values from which a group of sub-spaces pays for a thread
_LINE = 32  # values in two cache lines: fewer would make two threads read the same line


def centroid_sums(x: Tensor, labels: Tensor, K: int) -> tuple[Tensor, Tensor]:
    M = labels.shape[1]
    S = x.shape[1] // M
    _check(labels, K)
    sums, counts = (
        torch.empty((M, K, S), dtype=torch.float32, device="cpu"),
        torch.empty((M, K), dtype=torch.int32, device="cpu"),
    )
    rows = x.float().contiguous().numpy()
    width = unrolled(S if S <= UNROLLED else 0)

    def some_subspaces(start: int, stop: int) -> None:
        own = labels[:, start:stop].int().contiguous().numpy()
        found = sums[start:stop].numpy(), counts[start:stop].numpy()
        _add(rows, start, S, width, own, np.empty(found[0].size), *found)

    map_blocks(some_subspaces, M, subspaces_of_a_group(len(x) * S, S, _WORK))
    return sums, counts


def subspaces_of_a_group(work: int, S: int, least: int) -> int:
    """Return how many sub-spaces, each with this much work, one thread takes at a time."""
    return max(1, _LINE // max(S, 1), least // max(work, 1))


def _check(labels: Tensor, K: int) -> None:
    if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < K:
        raise IndexError(f"centroid_sums: labels must be below {K}.")


@jit()
def _add(x, first, S, width, labels, total, sums, counts):
    """total: memory for as many sums."""
    if len(width) > 0:
        S = len(width)
    M, K, _ = sums.shape
    for i in range(M * K * S):
        total[i] = 0
    for m in range(M):
        for k in range(K):
            counts[m, k] = 0
    for start in range(0, len(x), _ROWS):
        stop = min(start + _ROWS, len(x))
        for m in range(M):
            column = (first + m) * S
            for n in range(start, stop):
                k = labels[n, m]
                counts[m, k] += 1
                for s in range(S):
                    total[(m * K + k) * S + s] += x[n, column + s]
    for m in range(M):
        for k in range(K):
            for s in range(S):
                sums[m, k, s] = total[(m * K + k) * S + s]
