"""A search of few rows that are sums of codewords, by products with float rows that are kept, in one call.

Candidates are scored as `SumsScorer` does, without its tables.
"""

import math

import numpy as np

from gpuzip._core.parallel import map_blocks
from gpuzip.loops._arrays import flat
from gpuzip.loops._blocks import scratch
from gpuzip.loops._codeword_sums import entry, score
from gpuzip.loops._columns import part
from gpuzip.loops._jit import jit, wide_vectors
from gpuzip.loops._least import MOST_IN_ORDER, NONE, answer, cut, key_of, room_for, score_of
from gpuzip.loops._unit_rows import unit_rows
from gpuzip.loops.product_few import TOGETHER, above, error_of, multiply, take_best

_SHARE = 16  # queries per block


class SumsFew:
    """A search by the scores of `SumsScorer`, which keeps everything but the queries.

    rows (N, P*S) float32: those of codes (N, P*M) uint8 by codebooks (P, M, 256, S), whose codewords have the
    norms (P, M*256) float64. scale, bias, taken, normalize, most: see `ProductFew`. reach: the largest sum of
    the norms of codewords that a row has, times its scale.
    """

    def __init__(self, rows, codes, codebooks, norms, scale, bias, reach, taken, normalize, most):
        (self._N, self._D), (P, M, _, S), self._taken = rows.shape, codebooks.shape, taken
        of_rows = (part(column, 0, self._N, np.float32) for column in (scale, bias))
        words = codebooks.contiguous().numpy().reshape(-1), norms.numpy().reshape(-1)
        of_words = *words, P, M, S, bias is not None
        self._of_codes = rows.numpy(), codes.contiguous().numpy(), *of_words, *of_rows
        self._of_queries = normalize, most, *error_of(self._D + P * M, reach)

    def can_search(self, Q, k):
        """Return whether so few candidates are taken that one call puts them in order."""
        return self._taken(k, self._N) <= MOST_IN_ORDER

    def at_address(self, queries, Q, k, are_distances, values, rows):
        """Find the k best rows of Q queries: see `ops.few.Few`. False also where candidates prove none."""
        taken = self._taken(k, self._N)

        def some(start, stop):
            memory = scratch.kept((stop - start, self._N, self._D, taken), _memory)
            places = queries + 4 * self._D * start, values + 4 * k * start, rows + 8 * k * start
            asked = places[0], stop - start, k, are_distances, *places[1:]
            return _search(*self._of_codes, *self._of_queries, *asked, *memory)

        return all(map_blocks(some, Q, _SHARE, with_caller=True))


def _memory(Q, N, D, taken):
    return (
        np.empty((Q, D), np.float32),
        np.empty(D),
        scratch.take("products", TOGETHER * N, np.float32).reshape(TOGETHER, N),
        np.empty(room_for(taken), np.uint64),
        np.empty(taken, np.float32),
        np.empty(taken, np.int64),
        np.empty(Q * taken, np.uint64),
    )


@jit(
    "boolean(float32[:, ::1], uint8[:, ::1], float32[::1], float64[::1], intp, intp, intp, boolean, "
    "float32[::1], float32[::1], boolean, float64, float64, float64, float64, intp, intp, intp, boolean, "
    "intp, intp, float32[:, ::1], float64[::1], float32[:, ::1], uint64[::1], float32[::1], int64[::1], "
    "uint64[::1])"
)
def _search(
    kept,
    codes,
    words,
    norms,
    P,
    M,
    S,
    is_l2,
    scale,
    bias,
    normalize,
    most,
    error,
    reach,
    lost,
    queries,
    Q,
    k,
    are_distances,
    values,
    rows,
    asked,
    wide,
    products,
    room,
    estimates,
    candidates,
    keys,
):
    wide_vectors()
    if not unit_rows(queries, Q, normalize, most, flat(asked)):
        return False
    (N, D), taken = kept.shape, len(estimates)
    for first in range(0, Q, TOGETHER):
        last = min(first + TOGETHER, Q)
        multiply(kept, asked, first, last, products)
        for q in range(first, last):
            if not take_best(products[q - first], bias, scale, room, taken, estimates, candidates):
                return False
            query, start, squares = asked[q], q * taken, 0.0
            for d in range(D):
                wide[d] = query[d]
                squares += wide[d] * wide[d]
            length, higher = math.sqrt(squares), above(query, is_l2, error, reach, lost)
            square = entry(wide, 0, query, 0, D, 1.0, squares)
            count, worst = 0, -np.inf
            while count < taken and (count < k or estimates[count] + higher >= worst):
                row = candidates[count]
                found = score(codes, words, norms, P, M, S, is_l2, scale, bias, wide, length, square, row)
                if not abs(found) < np.inf:
                    return False
                keys[start + count] = key_of(found, row)
                count += 1
                if count == k:
                    worst = np.float64(score_of(cut(keys, start, k, k)))
            least = score_of(cut(keys, start, count, k))
            if taken < N and least <= estimates[taken - 1] + higher:
                return False
            for i in range(count, taken):
                keys[start + i] = NONE
    answer(keys, Q, k, are_distances, values, rows)
    return True
