"""The k highest scores of every row, in one pass with a heap of the k best so far."""

import numpy as np
import torch

from gpuzip._core.parallel import map_blocks
from gpuzip.loops._jit import jit


def topk(scores, k):
    """Run the operator: (Q, N) float32 without NaN -> values (Q, k) descending, ids (Q, k)."""
    Q, N = scores.shape
    scores = (scores if N == 0 or scores.stride(1) == 1 else scores.contiguous()).numpy()
    values, ids = np.empty((Q, k), np.float32), np.empty((Q, k), np.int64)

    def some_queries(start, stop):
        for q in range(start, stop):
            best_of_scores(scores[q], values[q], ids[q])

    map_blocks(some_queries, Q, max(1, (1 << 19) // max(1, N)), with_caller=True)
    return torch.from_numpy(values), torch.from_numpy(ids)


@jit("void(float32[::1], float32[::1], int64[::1])")
def best_of_scores(scores, values, ids):
    """Keep a heap whose root is the worst kept score: the lowest value, at ties the highest id."""
    k = len(values)
    for n in range(k):
        values[n], ids[n] = scores[n], n
    for at in range(k // 2 - 1, -1, -1):
        _sink(values, ids, at, k)
    worst = values[0]
    for n in range(k, len(scores)):
        if scores[n] > worst:  # an equal score has a higher id than all kept ones
            values[0], ids[0] = scores[n], n
            _sink(values, ids, 0, k)
            worst = values[0]
    for last in range(k - 1, 0, -1):  # move the worst to the end and restore the heap
        values[0], values[last] = values[last], values[0]
        ids[0], ids[last] = ids[last], ids[0]
        _sink(values, ids, 0, last)


@jit("void(float32[::1], int64[::1], intp, intp)", inner=True)
def _sink(values, ids, at, size):
    value, number = values[at], ids[at]
    while 2 * at + 1 < size:
        child = 2 * at + 1
        if child + 1 < size and _is_worse(values[child + 1], ids[child + 1], values[child], ids[child]):
            child += 1
        if not _is_worse(values[child], ids[child], value, number):
            break
        values[at], ids[at] = values[child], ids[child]
        at = child
    values[at], ids[at] = value, number


@jit(inline="always")
def _is_worse(value, number, other, other_number):
    return value < other or (value == other and number > other_number)
