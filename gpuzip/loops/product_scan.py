"""Decoded rows times queries by tile: a loop decodes, torch multiplies, a loop reduces."""

import numpy as np
import torch

from gpuzip._core.matmul import matrix_product
from gpuzip._core.parallel import map_blocks
from gpuzip.loops._columns import part
from gpuzip.loops._jit import jit, wide_vectors
from gpuzip.loops._words import as_float
from gpuzip.loops.decode import decode

_ROWS = 1024


def product_scan(packed, table, queries, scale, bias, mask, group):
    """Run the operator: estimates (Q, ceil(N / group)) of the best score of each group of rows."""
    if table.dtype == torch.float16:  # CPUs have no fast float16 product
        table, queries = table.float(), queries.float()
    N, Q = len(packed), len(queries)
    columns = queries.T.contiguous()
    best = np.empty((Q, -(-N // group)), np.float32)
    bits = table.view(torch.int16) if table.itemsize == 2 else table

    def some_rows(start, stop):
        rows = decode(packed[start:stop], bits).view(table.dtype)
        scores = _readable(matrix_product(torch.mm, rows, columns))
        factors = part(scale, start, stop, np.float32), part(bias, start, stop, np.float32)
        found = best.reshape(-1)[start // group :], best.shape[1], np.empty(Q, np.float32)
        _best_of_groups(scores, *factors, part(mask, start, stop, np.bool_), group, *found)

    if best.size:
        map_blocks(some_rows, N, max(_ROWS, group))
    return torch.from_numpy(best)


def _readable(scores):
    """Return the scores as an array; bfloat16, which numpy lacks, as its bits."""
    return (scores.view(torch.uint16) if scores.dtype == torch.bfloat16 else scores.float()).numpy()


@jit(
    "void(float32[:, ::1], float32[::1], float32[::1], boolean[::1], intp, float32[::1], intp, float32[::1])",
    "void(uint16[:, ::1], float32[::1], float32[::1], boolean[::1], intp, float32[::1], intp, float32[::1])",
)
def _best_of_groups(scores, scale, bias, mask, group, best, stride, tops):
    """scores (n, Q) -> best [Q, groups], rows `stride` apart. tops: memory for a row."""
    wide_vectors()
    n, Q = scores.shape
    for g in range((n + group - 1) // group):
        for q in range(Q):
            tops[q] = -np.inf
        for r in range(g * group, min(n, (g + 1) * group)):
            if len(mask) == 0 or mask[r]:
                factor = scale[r] if len(scale) else np.float32(1)
                offset = bias[r] if len(bias) else np.float32(0)
                row = scores[r]
                for q in range(Q):
                    key = as_float(row[q]) * factor + offset
                    tops[q] = key if key > tops[q] else tops[q]
        for q in range(Q):
            best[q * stride + g] = tops[q]
