"""Beam search a stage at a time over a tile of rows: the tables of that stage are read while they are in cache.

The costs of one beginning, one for every next code, are K floats in the first cache; a table row is added to
them at a time, four where there are, in the order of the reference.
"""

import numpy as np
import torch

from gpuzip.loops._jit import jit, wide_vectors
from gpuzip.parallel import map_blocks

_ROWS = 64


def beam_search(products, cross, beam):
    """As the operator: (N, P, M, K), (P, M*(M-1)/2, K, K) float32 -> (N, P*M)."""
    N, P, M, K = products.shape
    labels = np.empty((N, P, M), np.uint8 if K <= 256 else np.int32)
    costs, tables = products.contiguous().numpy(), cross.contiguous().numpy()

    def some_rows(start, stop):
        for p in range(P):
            _search(costs[start:stop, p], tables[p], beam, labels[start:stop, p])

    map_blocks(some_rows, N, _ROWS)
    return torch.from_numpy(labels).view(N, P * M)


@jit()
def _search(products, cross, beam, labels):
    """products (n, M, K), cross (pairs, K, K) -> labels (n, M)."""
    wide_vectors()
    n, M, K = products.shape
    cost, paths = np.zeros((n, beam), np.float32), np.zeros((n, beam, M), np.int32)
    least, at = np.empty(beam, np.float32), np.empty(beam, np.int64)
    old, total = np.empty((beam, M), np.int32), np.empty(K, np.float32)
    width = 1
    for m in range(M):
        first, taken = m * (m - 1) // 2, min(beam, width * K)
        for r in range(n):
            least[:taken] = np.inf
            at[:taken] = -1
            for beginning in range(width):
                total[:] = products[r, m]
                _add_tables(total, cross, first, paths[r, beginning], m)
                _keep_least(total, cost[r, beginning], beginning * K, least, at, taken)
            old[:width, :m] = paths[r, :width, :m]
            for i in range(taken):
                parent, code = at[i] // K, at[i] % K
                for j in range(m):
                    paths[r, i, j] = old[parent, j]
                paths[r, i, m], cost[r, i] = code, least[i]
        width = taken
    labels[:] = paths[:, 0]


@jit()
def _add_tables(total, cross, first, path, m):
    """total[k] += cross[first + j, path[j], k] for j < m, in that order."""
    wide_vectors()
    K = len(total)
    for j in range(0, m - m % 4, 4):
        a, b = cross[first + j, path[j]], cross[first + j + 1, path[j + 1]]
        c, d = cross[first + j + 2, path[j + 2]], cross[first + j + 3, path[j + 3]]
        for k in range(K):
            total[k] = total[k] + a[k] + b[k] + c[k] + d[k]
    for j in range(m - m % 4, m):
        row = cross[first + j, path[j]]
        for k in range(K):
            total[k] += row[k]


@jit()
def _keep_least(total, cost, number, least, at, taken):
    """Sort total[k] + cost, of number + k, into the `taken` least, behind equal ones."""
    worst = least[taken - 1]
    for k in range(len(total)):
        value = total[k] + cost
        if value < worst:
            i = taken - 1
            while i > 0 and value < least[i - 1]:
                least[i], at[i] = least[i - 1], at[i - 1]
                i -= 1
            least[i], at[i] = value, number + k
            worst = least[taken - 1]
