"""Beam search stage by stage over a tile of rows, so that the tables of a stage stay in cache.

The costs of one partial path, for every next code, are K floats in the L1 cache. Rows of tables are added to
them, four at a time, in the order of the reference.
"""

import numpy as np
import torch

from gpuzip._core.parallel import map_blocks
from gpuzip.loops._jit import jit, wide_vectors
from gpuzip.loops._vector import add_then_min

_ROWS = 64
_LANES = 16

_add_then_min = add_then_min(_LANES)


def beam_search(products, cross, beam):
    """Run the operator: (N, P, M, K), (P, M*(M-1)/2, K, K) float32 -> (N, P*M)."""
    N, P, M, K = products.shape
    labels = np.empty((N, P, M), np.uint8 if K <= 256 else np.int32)
    costs, tables = products.contiguous().numpy(), cross.contiguous().numpy()

    def some_rows(start, stop):
        _search(costs[start:stop], tables, beam, labels[start:stop])

    map_blocks(some_rows, N, _ROWS)
    return torch.from_numpy(labels).view(N, P * M)


@jit()
def _search(products, cross, beam, labels):
    """products (n, P, M, K), cross (P, pairs, K, K) -> labels (n, P, M)."""
    wide_vectors()
    n, P, M, K = products.shape
    cost, paths = np.empty((n, beam), np.float32), np.empty((n, beam, M), np.int32)
    least, at = np.empty(beam, np.float32), np.empty(beam, np.int64)
    old, total = np.empty((beam, M), np.int32), np.empty(K, np.float32)
    lowest = np.empty(_LANES, np.float32)
    for p in range(P):
        cost[:, 0], width = 0, 1
        for m in range(M):
            tables, taken = cross[p, m * (m - 1) // 2 : m * (m + 1) // 2], min(beam, width * K)
            for r in range(n):
                best, best_at = least[:taken], at[:taken]
                for i in range(taken):
                    best[i] = np.inf
                for beginning in range(width):
                    for k in range(K):
                        total[k] = products[r, p, m, k]
                    _add_tables(total, tables, paths[r, beginning])
                    _keep_least(total, cost[r, beginning], beginning * K, lowest, best, best_at)
                for i in range(width):
                    for j in range(m):
                        old[i, j] = paths[r, i, j]
                for i in range(taken):
                    parent, code = at[i] // K, at[i] % K
                    for j in range(m):
                        paths[r, i, j] = old[parent, j]
                    paths[r, i, m], cost[r, i] = code, least[i]
            width = taken
        labels[:, p] = paths[:, 0]


@jit()
def _add_tables(total, tables, path):
    """Add tables[j, path[j], k] to total[k] for every j in order."""
    wide_vectors()
    K, m = len(total), len(tables)
    for j in range(0, m - m % 4, 4):
        a, b = tables[j, path[j]], tables[j + 1, path[j + 1]]
        c, d = tables[j + 2, path[j + 2]], tables[j + 3, path[j + 3]]
        for k in range(K):
            total[k] = total[k] + a[k] + b[k] + c[k] + d[k]
    for j in range(m - m % 4, m):
        row = tables[j, path[j]]
        for k in range(K):
            total[k] += row[k]


@jit()
def _keep_least(total, cost, number, lowest, least, at):
    """Insert total[k] + cost, numbered number + k, into the sorted minima; the lower number wins a tie.

    lowest (lanes,) is scratch for the minimum of each lane, where a lane holds the k that are equal modulo
    the number of lanes. The lane with the lowest minimum is read first, so that most lanes can be skipped.
    """
    wide_vectors()
    K, taken = len(total), len(least)
    if K < _LANES:
        for k in range(K):
            _insert(total[k] + cost, number + k, least, at)
        return
    for w in range(_LANES):
        lowest[w] = np.inf
    for first in range(0, K, _LANES):
        _add_then_min(total, first, cost, lowest, 0)
    for _ in range(_LANES):
        lane = 0
        for w in range(1, _LANES):
            lane = w if lowest[w] < lowest[lane] else lane
        if lowest[lane] > least[taken - 1]:
            break
        lowest[lane] = np.inf
        for k in range(lane, K, _LANES):
            _insert(total[k], number + k, least, at)


@jit(inline="always")
def _insert(value, number, least, at):
    i = len(least)
    while i > 0 and (value < least[i - 1] or (value == least[i - 1] and number < at[i - 1])):
        if i < len(least):
            least[i], at[i] = least[i - 1], at[i - 1]
        i -= 1
    if i < len(least):
        least[i], at[i] = value, number
