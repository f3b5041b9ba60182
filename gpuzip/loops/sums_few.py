"""A search of few rows that are sums of codewords, by products with float rows that are kept, in one call.

Candidates are scored as `SumsScorer` does, without its tables. An entry of a table is a sum of products that
is rounded once, from its exact value to float32, so that it does not depend on the order of the sum.
"""

import numpy as np

from gpuzip._core.parallel import map_blocks
from gpuzip.loops._arrays import flat
from gpuzip.loops._blocks import scratch
from gpuzip.loops._columns import part
from gpuzip.loops._jit import apart, jit
from gpuzip.loops._least import MOST_IN_ORDER, NONE, answer, cut, key_of, room_for, score_of
from gpuzip.loops._unit_rows import unit_rows
from gpuzip.loops.product_few import TOGETHER, above, error_of, multiply, take_best

_SHARE = 16  # queries per block
_NAN = np.float32(np.nan)
_LEAST = 2.0**-100  # below, numbers of float32 may be further from each other


class SumsFew:
    """A search by the scores of `SumsScorer`, which keeps everything but the queries.

    rows (N, P*S) float32: those of codes (N, P*M) uint8 by codebooks (P, M, 256, S). scale, bias, taken,
    normalize, most: see `ProductFew`. reach: the largest sum of the norms of codewords that a row has, times
    its scale.
    """

    def __init__(self, rows, codes, codebooks, scale, bias, reach, taken, normalize, most):
        (self._N, self._D), (P, M, _, S), self._taken = rows.shape, codebooks.shape, taken
        of_rows = (part(column, 0, self._N, np.float32) for column in (scale, bias))
        words = codebooks.contiguous().numpy().reshape(-1)
        self._of_codes = rows.numpy(), codes.contiguous().numpy(), words, P, M, S, bias is not None, *of_rows
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
        scratch.take("products", TOGETHER * N, np.float32).reshape(TOGETHER, N),
        np.empty(room_for(taken), np.uint64),
        np.empty(taken, np.float32),
        np.empty(taken, np.int64),
        np.empty(Q * taken, np.uint64),
    )


@jit(
    "UniTuple(float64, 2)(float32[::1], intp, float32[::1], intp, intp)",
    inner=True,
    fastmath={"reassoc", "contract"},
)
def _product(query, first, words, at, S):
    """Return the sum of products of S values, each of which float64 holds, and that of their sizes."""
    total = size = np.float64(0)
    for s in range(S):
        product = np.float64(query[first + s]) * np.float64(words[at + s])
        total += product
        size += abs(product)
    return total, size


@jit("float32(float32[::1], intp, float32[::1], intp, intp, float64)", inner=True)
def _entry(query, first, words, at, S, factor):
    """Return the sum of S products, rounded once from its exact value; NaN where that is not known."""
    total, size = _product(query, first, words, at, S)
    off = (S + 4) * 2.0**-53 * size  # of the sum, and roundings here
    low, high = np.float32(factor * (total - off)), np.float32(factor * (total + off))
    return low if low == high else _near_a_middle(query, first, words, at, S, factor, low, high)


@jit("float32(float32[::1], intp, float32[::1], intp, intp, float64, float32, float32)", inner=True)
def _near_a_middle(query, first, words, at, S, factor, low, high):
    """Do what `_entry` does for a sum near the middle of two numbers, by sums of twice as many digits."""
    apart()
    total = rest = size = lost = np.float64(0)
    for s in range(S):
        product = np.float64(query[first + s]) * np.float64(words[at + s])
        both = total + product
        more = _left(total, product, both)
        total, size = both, size + abs(product)
        both = rest + more
        lost += abs(_left(rest, more, both))
        rest = both
    lower, upper = np.float64(low), np.float64(high)
    are_next = upper - lower < 2.0**-23 * max(abs(lower), abs(upper)) and abs(lower) > _LEAST
    middle = (lower + upper) / 2
    above_it = (factor * total - middle) + factor * rest
    if not are_next or (lost > 0 and abs(above_it) <= factor * S * (S + 4) * 2.0**-104 * size):
        return _NAN
    if above_it == 0:
        return np.float32(middle)
    return high if above_it > 0 else low


@jit("float64(float64, float64, float64)", inner=True)
def _left(a, b, both):
    """Return what the sum of two numbers lost when it was rounded."""
    part = both - a
    return (a - (both - part)) + (b - part)


@jit(
    "float32(uint8[:, ::1], float32[::1], intp, intp, intp, boolean, float32[::1], float32[::1], "
    "float32[::1], float32, intp)",
    inner=True,
)
def _score(codes, words, P, M, S, is_l2, scale, bias, query, square, row):
    """Return the score of a row by a query with this squared norm, or NaN if tables have to tell it."""
    total, factor = np.float32(0), 2.0 if is_l2 else 1.0
    for p in range(P):
        for m in range(p * M, (p + 1) * M):
            total += _entry(query, p * S, words, (m * 256 + np.intp(codes[row, m])) * S, S, factor)
    if len(scale):
        total *= scale[row]
    if is_l2:
        total += bias[row]
        total -= square
    return total


@jit(
    "boolean(float32[:, ::1], uint8[:, ::1], float32[::1], intp, intp, intp, boolean, float32[::1], "
    "float32[::1], boolean, float64, float64, float64, float64, intp, intp, intp, boolean, intp, intp, "
    "float32[:, ::1], float32[:, ::1], uint64[::1], float32[::1], int64[::1], uint64[::1])"
)
def _search(
    kept,
    codes,
    words,
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
    products,
    room,
    estimates,
    candidates,
    keys,
):
    if not unit_rows(queries, Q, normalize, most, flat(asked)):
        return False
    (N, D), taken = kept.shape, len(estimates)
    for first in range(0, Q, TOGETHER):
        last = min(first + TOGETHER, Q)
        multiply(kept, asked, first, last, products)
        for q in range(first, last):
            if not take_best(products[q - first], bias, scale, room, taken, estimates, candidates):
                return False
            query, start = asked[q], q * taken
            square, higher = _entry(query, 0, query, 0, D, 1.0), above(query, is_l2, error, reach, lost)
            count, worst = 0, -np.inf
            while count < taken and (count < k or estimates[count] + higher >= worst):
                row = candidates[count]
                score = _score(codes, words, P, M, S, is_l2, scale, bias, query, square, row)
                if not abs(score) < np.inf:
                    return False
                keys[start + count] = key_of(score, row)
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
