"""The k best rows of a query by bounds of their sums, of which few are summed exactly.

Lower bounds are counted in bins, from which the limit follows that k rows reach: a row whose upper bound is
not above it leaves. After the last row, the rows whose lower bounds reach the limit are scored, and then those
whose upper bounds reach the least of these scores.
"""

import numpy as np

from gpuzip.loops._arrays import at, local
from gpuzip.loops._jit import apart, jit
from gpuzip.loops._least import in_order, key_of, score_of
from gpuzip.loops._nibble_tables import BINS, FACTS
from gpuzip.loops._nibbles import exact_sums, factored_bounds
from gpuzip.loops._registers import (
    ROWS,
    STEP,
    address_of,
    copy_rows,
    lowest,
    plain_bounds,
    prefetch,
    turn,
)

_LINE = 64
_BY_INSERTION = 48  # keys that `in_order` puts in order sooner than counting does
_DIGITS = 1 << 11
_digits, _floats = local(_DIGITS, np.uint32), at(np.float32)
_STATE = (
    "Tuple((float32[::1], float32[::1], float64[::1], uint32[::1], uint32[::1], float32[::1], int64[::1], "
    "float32[::1]))"
)


@jit("intp(float32, float64, float64, float64)", inner=True)
def _bin(bound, width, first, per_unit):
    """Return the bin of a lower bound, which is `width` below an upper one."""
    place = (bound - width - first) * per_unit
    return np.intp(min(max(place, 0.0), BINS - 1.0))


@jit("uint32(intp, intp, intp, intp, float32, float32, float32, intp, intp)", inner=True)
def look(sums, r, n, bounds, low, step, limit, scale, last_scale):
    """Write the upper bounds of 32 rows from row r, of which n are there; return the bits of those above limit.

    scale: the address of all rows' factors, 0 if there are none; last_scale: of those after the last whole 32.
    """
    if scale == 0:
        above = plain_bounds(bounds, sums, low, step, limit)
    else:
        factors = scale + 4 * r if n >= ROWS else last_scale
        above = factored_bounds(bounds, sums, low, step, limit, factors)
    return above if n >= ROWS else above & np.uint32((np.int64(1) << n) - 1)


@jit(f"boolean(uint32, intp, intp, intp, {_STATE})", inner=True)
def take(above, r, q, k, state):
    """Take the rows from row r of which a bit is set; return whether there is room for more."""
    apart()
    scale, bounds, about, bins, taken, uppers, counts, limits = state
    room = len(taken) // len(limits)
    start, width = room * q, 2.001 * about[FACTS * q + 2]
    first, per_unit = about[FACTS * q + 3], about[FACTS * q + 4]
    count, passed, bin_ = counts[3 * q], counts[3 * q + 1], counts[3 * q + 2]
    while above != 0:
        i = lowest(above)
        above &= np.uint32(above - np.uint32(1))
        taken[start + count], uppers[start + count] = r + i, bounds[i]
        count += 1
        own = width * scale[r + i] if len(scale) else width
        here = _bin(bounds[i], own, first, per_unit)
        bins[BINS * q + here] += 1
        passed += here >= bin_
    while passed - bins[BINS * q + bin_] >= k:
        passed -= bins[BINS * q + bin_]
        bin_ += 1
    if bin_ > counts[3 * q + 2]:
        edge = first + (bin_ - 1e-6) / per_unit
        limits[q] = np.float32(edge - 2.0**-22 * abs(edge))
    counts[3 * q], counts[3 * q + 1], counts[3 * q + 2] = count, passed, bin_
    if count > room - ROWS:
        counts[3 * q] = _leave(taken, uppers, start, count, limits[q])
        return counts[3 * q] <= room - room // 4
    return True


@jit("intp(uint32[::1], float32[::1], intp, intp, float32)", inner=True)
def _leave(taken, uppers, start, count, limit):
    """Let candidates leave whose upper bounds are not above the limit; return how many stay, in order."""
    into = start
    for i in range(start, start + count):
        taken[into], uppers[into] = taken[i], uppers[i]
        into += uppers[i] > limit
    return into - start


@jit(
    f"boolean(intp, intp, int64[::1], float32[::1], {_STATE}, float32[::1], uint32[::1], uint64[::1], intp, "
    "float32[::1], int64[::1], intp)",
    inner=True,
)
def finish(q, k, codes, tables, state, own, listed, keys, spare, scores, rows, into):
    """Score the candidates of a query that may be among the k best, and write these, the best first.

    Return False where a score is no number.
    """
    apart()
    scale, _, about, _, taken, uppers, counts, limits = state
    start, bin_ = len(taken) // len(limits) * q, counts[3 * q + 2]
    count, width = _leave(taken, uppers, start, counts[3 * q], limits[q]), 2.001 * about[FACTS * q + 2]
    first, per_unit = about[FACTS * q + 3], about[FACTS * q + 4]
    table = address_of(tables) + 4 * (len(tables) // len(limits)) * q
    some = 0
    for i in range(count):
        row_width = width * scale[taken[start + i]] if len(scale) else width
        own[i] = np.nan
        listed[some] = i
        some += _bin(uppers[start + i], row_width, first, per_unit) >= bin_
    least = _score(codes, table, scale, taken, start, listed, some, own, spare)
    some = 0
    for i in range(count):
        listed[some] = i
        some += uppers[start + i] >= least and not own[i] == own[i]
    if not (least > -np.inf and _score(codes, table, scale, taken, start, listed, some, own, spare) > -np.inf):
        return False
    some = 0
    for i in range(count):
        if own[i] == own[i]:
            keys[some] = key_of(own[i], taken[start + i])
            some += 1
    if k <= _BY_INSERTION:
        in_order(keys, 0, some, k)
    else:
        _sort(keys, some)
    for i in range(k):
        scores[into + i], rows[into + i] = score_of(keys[i]), np.int64(keys[i] & np.uint64(0xFFFFFFFF))
    return True


@jit(
    "float32(int64[::1], intp, float32[::1], uint32[::1], intp, uint32[::1], intp, float32[::1], intp)",
    inner=True,
)
def _score(codes, table, scale, taken, start, listed, count, own, spare):
    """Write the exact scores of listed candidates; return the least of them, NaN if one is."""
    apart()
    rows_at, stride, B = codes[0], codes[1], codes[2]
    wide = B + STEP - 1 & -STEP
    columns, sums, least = spare + ROWS * wide, _floats(spare, ROWS), np.float32(np.inf)
    for begin in range(0, count, ROWS):
        for i in range(ROWS):
            row = rows_at + taken[start + listed[min(begin + i, count - 1)]] * stride
            copy_rows(spare + i * wide, row, stride, B, 1)
            after = rows_at + taken[start + listed[min(begin + ROWS + i, count - 1)]] * stride
            for j in range(0, B, _LINE):
                prefetch(after + j)
            prefetch(after + B - 1)
        for j in range(0, wide, STEP):
            turn(columns + ROWS * j, spare + j, wide)
        exact_sums(spare, columns, table, B)
        for i in range(min(ROWS, count - begin)):
            place = listed[begin + i]
            score = sums[i]
            if len(scale):
                score *= scale[taken[start + place]]
            if not score > -np.inf:
                return np.float32(np.nan)
            own[place], least = score, min(score, least)
    return least


@jit("void(uint64[::1], intp)", inner=True)
def _sort(keys, count):
    """Put keys of rows in ascending order in the order of their scores: by counting, a digit at a time."""
    apart()
    half, counts, source, target = len(keys) // 2, _digits(), 0, len(keys) // 2
    for shift in range(32, 64, 11):
        for i in range(_DIGITS):
            counts[i] = 0
        for i in range(count):
            counts[(keys[source + i] >> np.uint64(shift)) & np.uint64(_DIGITS - 1)] += 1
        total = 0
        for i in range(_DIGITS):
            here = counts[i]
            counts[i] = total
            total += here
        for i in range(count):
            key = keys[source + i]
            digit = (key >> np.uint64(shift)) & np.uint64(_DIGITS - 1)
            keys[target + counts[digit]] = key
            counts[digit] += 1
        source, target = target, source
    for i in range(count):
        keys[i] = keys[half + i]
