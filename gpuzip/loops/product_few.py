"""A search of few queries by products with float rows that are kept, in one compiled call.

Products in any order choose candidates, and `table_sums` scores these, until no other row can be better.
"""

import math

import numpy as np

from gpuzip.loops._arrays import flat
from gpuzip.loops._blocks import scratch
from gpuzip.loops._columns import part
from gpuzip.loops._jit import at_address, jit, wide_vectors
from gpuzip.loops._least import MOST_IN_ORDER, answer, cut, in_order, key_of, room_for, score_of
from gpuzip.loops._unit_rows import unit_rows
from gpuzip.loops.table_sums import arrays_of, closest_of_some

_closest = at_address(closest_of_some)
TOGETHER = 4  # queries that a row is multiplied by while it is in registers


class ProductFew:
    """A search of few queries by the scores of `table_sums`, which keeps everything but the queries.

    rows (N, D) float32: those of codes (N, B) uint8 by centroids (M, K, S). bias (N,): minus their squared
    norms by "l2", else None. scale (N,): their inverse norms by "cosine", else None. reach: their largest
    norm, 1 by "cosine". taken: of k and N, how many candidates. normalize, most: see `AdcFew`.
    """

    def __init__(self, rows, codes, centroids, scale, bias, reach, taken, normalize, most):
        (self._N, self._D), self._taken, is_l2 = rows.shape, taken, bias is not None
        self._rows, self._asked = rows.numpy(), (normalize, most)
        self._of_codes = arrays_of(codes, centroids, is_l2, scale, None)
        self._bias = part(bias, 0, self._N, np.float32)
        self._error = error_of(self._D, reach)

    def can_search(self, Q, k):
        """Return whether so few candidates are taken that one call puts them in order."""
        return self._taken(k, self._N) <= MOST_IN_ORDER

    def at_address(self, queries, Q, k, are_distances, values, rows):
        """Find the k best rows of Q queries: see `ops.few.Few`. False also where candidates prove none."""
        memory = scratch.kept((Q, self._N, self._D, self._taken(k, self._N)), _memory)
        of_queries = queries, Q, *self._asked, *self._error, k, are_distances, values, rows
        return _search(self._rows, self._bias, *self._of_codes, *of_queries, *memory)


def error_of(D, reach):
    """Return what `above` takes: the error of both sums, of rows and of their norms, and what is too small.

    The first is relative to products of norms.
    """
    return 1.05 * (D + 16) * 2.0**-22, reach, D * 2.0**-140


def _memory(Q, N, D, taken):
    return (
        np.empty((Q, D), np.float32),
        scratch.take("products", TOGETHER * N, np.float32).reshape(TOGETHER, N),
        np.empty(room_for(taken), np.uint64),
        np.empty((Q, taken), np.float32),
        np.empty((Q, taken), np.int64),
        np.empty((Q, taken), np.float32),
        np.empty(Q * taken, np.uint64),
        np.empty(Q, np.float32),
        closest_of_some.address,
    )


@jit(
    "void(float32[:, ::1], float32[:, ::1], intp, intp, float32[:, ::1])",
    inner=True,
    fastmath={"reassoc", "contract"},
)
def multiply(rows, asked, first, last, products):
    """Set products[i] to those of all rows with query first + i; of fewer than four queries, one by one."""
    wide_vectors()
    D = rows.shape[1]
    if last - first == TOGETHER:
        q0, q1, q2, q3 = asked[first], asked[first + 1], asked[first + 2], asked[first + 3]
        for r in range(0, len(rows), 2):  # of the last row of an odd number, twice
            second = min(r + 1, len(rows) - 1)
            row, other = rows[r], rows[second]
            s0 = s1 = s2 = s3 = t0 = t1 = t2 = t3 = np.float32(0)
            for d in range(D):
                s0 += q0[d] * row[d]
                s1 += q1[d] * row[d]
                s2 += q2[d] * row[d]
                s3 += q3[d] * row[d]
                t0 += q0[d] * other[d]
                t1 += q1[d] * other[d]
                t2 += q2[d] * other[d]
                t3 += q3[d] * other[d]
            products[0, r], products[1, r], products[2, r], products[3, r] = s0, s1, s2, s3
            products[0, second], products[1, second] = t0, t1
            products[2, second], products[3, second] = t2, t3
        return
    for q in range(first, last):
        query = asked[q]
        for r in range(len(rows)):
            row, total = rows[r], np.float32(0)
            for d in range(D):
                total += query[d] * row[d]
            products[q - first, r] = total


@jit(
    "boolean(float32[::1], float32[::1], float32[::1], uint64[::1], intp, float32[::1], int64[::1])",
    inner=True,
)
def take_best(products, bias, scale, keys, taken, estimates, rows):
    """Write the rows with the best products, times scale and plus bias, in order.

    estimates: where these go. Return whether all are finite.
    """
    count, limit, largest = 0, np.float32(-np.inf), np.float32(np.inf)
    for r in range(len(products)):
        estimate = products[r]
        if len(scale):
            estimate *= scale[r]
        if len(bias):
            estimate = np.float32(2) * estimate + bias[r]
        if not abs(estimate) < largest:
            return False
        if estimate > limit:
            keys[count] = key_of(estimate, r)
            count += 1
            if count == len(keys):
                limit, count = score_of(cut(keys, 0, count, taken)), taken
    in_order(keys, 0, count, taken)
    for i in range(taken):
        estimates[i], rows[i] = score_of(keys[i]), np.int64(keys[i] & np.uint64(0xFFFFFFFF))
    return True


@jit("float64(float32[::1], boolean, float64, float64, float64)", inner=True)
def above(query, is_l2, error, reach, lost):
    """Return by how much a score is above its estimate at most."""
    squares = np.float64(0)
    for value in query:
        squares += np.float64(value) * value
    norm = math.sqrt(squares)
    if is_l2:
        return 2 * error * (norm + reach) * (norm + reach) + lost - squares
    return error * norm * reach + lost


@jit(
    "boolean(float32[:, ::1], float32[::1], uint8[:, ::1], float32[::1], intp, intp, intp, boolean, "
    "float32[::1], boolean[::1], intp, intp, boolean, float64, float64, float64, float64, intp, "
    "boolean, intp, intp, float32[:, ::1], float32[:, ::1], uint64[::1], float32[:, ::1], "
    "int64[:, ::1], float32[:, ::1], uint64[::1], float32[::1], intp)"
)
def _search(
    kept,
    bias,
    codes,
    centroids,
    S,
    M,
    nbits,
    is_l2,
    scale,
    mask,
    queries,
    Q,
    normalize,
    most,
    error,
    reach,
    lost,
    k,
    are_distances,
    values,
    rows,
    asked,
    products,
    room,
    estimates,
    candidates,
    bounds,
    keys,
    least,
    closest_at,
):
    if not unit_rows(queries, Q, normalize, most, flat(asked)):
        return False
    taken = candidates.shape[1]
    for first in range(0, Q, TOGETHER):
        last = min(first + TOGETHER, Q)
        multiply(kept, asked, first, last, products)
        for q in range(first, last):
            if not take_best(products[q - first], bias, scale, room, taken, estimates[q], candidates[q]):
                return False
            higher = above(asked[q], is_l2, error, reach, lost)
            for i in range(taken):
                bounds[q, i] = np.float32(
                    (estimates[q, i] + higher) * (1 + np.sign(estimates[q, i] + higher) * 2.0**-23)
                )
    of_codes = codes, centroids, S, M, nbits, is_l2, scale, mask
    _closest(closest_at, *of_codes, asked, estimates, candidates, bounds, k, keys, least)
    if taken < len(kept):
        for q in range(Q):
            if least[q] <= bounds[q, taken - 1]:
                return False
    answer(keys, Q, k, are_distances, values, rows)
    return True
