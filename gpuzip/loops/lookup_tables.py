"""Look-up tables of queries: what each centroid adds to a score, one dimension at a time."""

import numpy as np
import torch

from gpuzip._core.parallel import map_blocks
from gpuzip.loops._jit import jit

_BLOCK = 1 << 16  # entries of tables per block


def lookup_tables(queries, columns, is_l2):
    """Make (Q, M, K) tables of queries (Q, M*S) for centroids as columns [S, M, K], as `ops` has it."""
    S, M, K = columns.shape
    tables = torch.empty((len(queries), M, K), dtype=torch.float32, device="cpu")
    asked, centroids, flat = queries.contiguous().numpy(), columns.numpy().reshape(-1), tables.numpy()

    def some_queries(start, stop):
        fill(asked[start:stop].reshape(-1), centroids, S, M, K, is_l2, flat[start:stop].reshape(-1))

    map_blocks(some_queries, len(asked), max(1, _BLOCK // max(1, M * K)), with_caller=True)
    return tables


@jit("void(float32[::1], float32[::1], intp, intp, intp, boolean, float32[::1])")
def fill(queries, columns, S, M, K, is_l2, tables):
    for n in range(len(queries) // (M * S) * M):
        table = tables[n * K : (n + 1) * K]  # numba makes no vectors of loops over flat indices
        for k in range(K):
            table[k] = np.float32(0)
        for s in range(S):
            value, first = queries[n * S + s], (s * M + n % M) * K
            column = columns[first : first + K]
            if is_l2:
                for k in range(K):
                    table[k] -= (value - column[k]) * (value - column[k])
            elif s == 0:
                for k in range(K):
                    table[k] = value * column[k]
            else:
                for k in range(K):
                    table[k] += value * column[k]
