"""Rows whose bounds let them be among the k best, of which few are summed exactly.

The keys of a query hold, after `done` keys of exact scores, keys of upper bounds. The k-th greatest bound
less twice the error is a score that k rows reach, so rows with lower bounds leave, and no row is summed.
Where bounds are too wide for that, and after the last row, scores replace the k best bounds, and then those
that are not below the k-th best score.
"""

import numpy as np

from gpuzip.loops._copy import byte_at
from gpuzip.loops._jit import apart, jit
from gpuzip.loops._least import cut, key_of, score_of
from gpuzip.loops._vectors256 import ROWS

AT_LEAST = 64  # bounds that are taken before rows with lower ones leave
_MANY = 1 << 13  # keys beside k that are taken for their use, not for the time of cuts
_LOW = np.uint64(0xFFFFFFFF)


def room_for_bounds(k):
    """Return the keys per query: with fewer, scores would soon replace bounds that are close together."""
    return k + max(4 * AT_LEAST, 2 * k, min(4 * k, _MANY))


@jit("intp(uint64[::1], intp, intp, intp, float32)", inner=True)
def keep_above(keys, into, first, last, limit):
    """Move the keys from first to last whose bounds are not below the limit to `into`; return their end."""
    for at in range(first, last):
        if score_of(keys[at]) >= limit:
            keys[into] = keys[at]
            into += 1
    return into


@jit(
    "UniTuple(float32, 4)(float32[::1], intp, intp, int64[:, ::1], intp, intp, intp, intp)",
    inner=True,
)
def _sums(tables, t, entries, places, r0, r1, r2, r3):
    """Sum the entries of four rows, as each sum waits for its last addition; by byte, as `byte_tables`."""
    sum0 = sum1 = sum2 = sum3 = np.float32(0)
    for p in range(len(places)):
        start, stride = places[p, 0], places[p, 1]
        at0, at1, at2, at3 = (
            start + r0 * stride,
            start + r1 * stride,
            start + r2 * stride,
            start + r3 * stride,
        )
        if entries == 32:
            for j in range(places[p, 2]):
                b0, b1, b2, b3 = byte_at(at0 + j), byte_at(at1 + j), byte_at(at2 + j), byte_at(at3 + j)
                high = t + 16
                sum0 += tables[t + (b0 & 15)] + tables[high + (b0 >> 4)]
                sum1 += tables[t + (b1 & 15)] + tables[high + (b1 >> 4)]
                sum2 += tables[t + (b2 & 15)] + tables[high + (b2 >> 4)]
                sum3 += tables[t + (b3 & 15)] + tables[high + (b3 >> 4)]
                t += 32
        else:
            for j in range(places[p, 2]):
                sum0 += tables[t + byte_at(at0 + j)]
                sum1 += tables[t + byte_at(at1 + j)]
                sum2 += tables[t + byte_at(at2 + j)]
                sum3 += tables[t + byte_at(at3 + j)]
                t += 256
    return sum0, sum1, sum2, sum3


@jit("intp(uint64[::1], intp, intp)", inner=True)
def _row(keys, at, last):
    return np.intp(keys[min(at, last - 1)] & _LOW)


@jit(
    "intp(uint64[::1], intp, intp, float32[::1], intp, intp, int64[:, ::1], float32[::1], float32[::1], "
    "float32[::1], intp, float32)",
    inner=True,
)
def _score(keys, first, last, tables, t, entries, places, scale, extra, coef, q, shift):
    """Replace the keys of bounds from first to last by those of scores; return their end. NaN is left out."""
    E, into = len(extra) // max(1, len(scale)), first
    for begin in range(first, last, 4):
        rows = (
            _row(keys, begin, last),
            _row(keys, begin + 1, last),
            _row(keys, begin + 2, last),
            _row(keys, begin + 3, last),
        )
        sums = _sums(tables, t, entries, places, rows[0], rows[1], rows[2], rows[3])
        for i in range(min(4, last - begin)):
            row, score = rows[i], sums[i]
            if len(scale):
                score *= scale[row]
            for e in range(E):
                score += extra[e * len(scale) + row] * coef[q * E + e]
            score += shift
            if score > -np.inf:
                keys[into] = key_of(score, row)
                into += 1
    return into


@jit(
    "void(uint64[::1], intp[::1], float32[::1], intp, float32[::1], intp, int64[:, ::1], float32[::1], "
    "float32[::1], float32[::1], intp, float32)",
    inner=True,
)
def settle(keys, counts, worst, k, tables, entries, places, scale, extra, coef, q, shift):
    """Keep the k best keys of a query, all of scores."""
    apart()
    Q = len(counts) // 3
    first, t = len(keys) // Q * q, len(tables) // Q * q
    begin, last = first + counts[Q + q], first + counts[q]
    if last - begin > k:
        cut(keys, begin, last - begin, k)
    head, limit = min(last, begin + k), np.float32(-np.inf)
    end = _score(keys, begin, head, tables, t, entries, places, scale, extra, coef, q, shift)
    if end - first >= k:
        limit, end = score_of(cut(keys, first, end - first, k)), first + k
    rest = keep_above(keys, end, head, last, limit)
    end = _score(keys, end, rest, tables, t, entries, places, scale, extra, coef, q, shift)
    if end - first >= k:
        worst[q], end = score_of(cut(keys, first, end - first, k)), first + k
    counts[q] = counts[Q + q] = end - first


@jit(
    "void(uint64[::1], intp[::1], float32[::1], intp, float32[::1], intp, int64[:, ::1], float32[::1], "
    "float32[::1], float32[::1], intp, float32)",
    inner=True,
)
def make_room(keys, counts, worst, k, tables, entries, places, scale, extra, coef, q, shift):
    """Let keys leave that cannot be among the k best of a query, and raise the bound that rows must pass."""
    Q = len(counts) // 3
    room = len(keys) // Q
    most, first = room - ROWS, room * q
    if counts[Q + q] == 0:
        bound = score_of(cut(keys, first, counts[q], k))
        bound -= np.float32(2.001) * worst[Q + q] + np.float32(2.0**-20) * abs(bound)
        if worst[q] < bound < np.inf:
            worst[q] = bound
            counts[q] = keep_above(keys, first + k, first + k, first + counts[q], bound) - first
        counts[2 * Q + q] = counts[q] + max(AT_LEAST, k)
        if counts[2 * Q + q] <= most:
            return
    settle(keys, counts, worst, k, tables, entries, places, scale, extra, coef, q, shift)
    counts[2 * Q + q] = min(most, counts[q] + max(3 * AT_LEAST, 2 * k))  # more would let the limit lag
