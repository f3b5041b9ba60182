"""Scores of some rows that are sums of codewords, without the tables that tell those of all rows."""

import numpy as np
import torch

from gpuzip._core.parallel import map_blocks
from gpuzip.loops._codeword_sums import score
from gpuzip.loops._columns import part
from gpuzip.loops._jit import jit, wide_vectors

_PAIRS = 1 << 8  # of queries and rows per block


def codeword_sums(codes, codebooks, norms, queries, squares, scale, bias, ids):
    """Score rows ids (Q, R) as `SumsScorer` does, -inf for row N; return None where tables have to tell one.

    codes (N, P*M) uint8, codebooks (P, M, 256, S), norms (P, M*256) float64 of codewords, queries (Q, P*S).
    squares (Q, 1): squared norms of queries by "l2", else None. scale (N,) by "cosine" and bias (N,) by "l2".
    """
    (P, M, _, S), (Q, R), N = codebooks.shape, ids.shape, len(codes)
    scores = np.empty((Q, R), np.float32)
    of_codes = (
        codes.contiguous().numpy(),
        codebooks.contiguous().numpy().reshape(-1),
        norms.numpy().reshape(-1),
    )
    of_rows = part(scale, 0, N, np.float32), part(bias, 0, N, np.float32)
    wide = queries.double()
    lengths = torch.linalg.vector_norm(wide, dim=1).numpy()
    asked, wanted = wide.numpy(), ids.contiguous().numpy()
    square = np.zeros(Q, np.float32) if squares is None else squares.reshape(-1).contiguous().numpy()

    def some_queries(start, stop):
        of_queries = (array[start:stop] for array in (asked, lengths, square, wanted, scores))
        return _score(*of_codes, P, M, S, squares is not None, *of_rows, *of_queries)

    known = all(map_blocks(some_queries, Q, max(1, _PAIRS // max(1, R)), with_caller=True))
    return torch.from_numpy(scores) if known else None


@jit(
    "boolean(uint8[:, ::1], float32[::1], float64[::1], intp, intp, intp, boolean, float32[::1], "
    "float32[::1], float64[:, ::1], float64[::1], float32[::1], int64[:, ::1], float32[:, ::1])"
)
def _score(codes, words, norms, P, M, S, is_l2, scale, bias, queries, lengths, squares, ids, scores):
    wide_vectors()
    known = True
    for q in range(len(ids)):
        for i in range(ids.shape[1]):
            row = ids[q, i]
            scores[q, i] = -np.inf
            if 0 <= row < len(codes):
                of_query = queries[q], lengths[q], squares[q]
                scores[q, i] = score(codes, words, norms, P, M, S, is_l2, scale, bias, *of_query, row)
                known &= abs(scores[q, i]) < np.inf
    return known
