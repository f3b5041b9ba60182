"""The k best rows of a query by bounds of their sums, of which few are summed exactly.

Lower bounds are counted in bins, from which the limit follows that k rows reach. A row whose upper bound is
not above it leaves. After the last row, the rows whose lower bounds reach the limit are scored, and then
those whose upper bounds reach the least of these scores.
"""

import numpy as np

from gpuzip.loops._arrays import counts, doubles, floats, halves, longs, words
from gpuzip.loops._jit import apart, jit
from gpuzip.loops._least import in_order, key_of, score_of
from gpuzip.loops._nibble_exact import exact_scores
from gpuzip.loops._nibble_memory import (
    ABOUT,
    BINS,
    BOUNDS,
    COUNTS,
    FACTS,
    KEYS,
    LIMITS,
    LISTED,
    LOWERS,
    SCORES,
    STATE,
    TAKEN,
    UPPERS,
    place,
)
from gpuzip.loops._nibble_order import BY_INSERTION, sort
from gpuzip.loops._nibbles import factored_bounds
from gpuzip.loops._register_bounds import plain_bounds
from gpuzip.loops._vectors256 import ROWS, lowest


@jit("uint32(intp, intp, intp, intp, float32, float32, float32, intp, intp)", inner=True)
def look(sums, r, n, bounds, low, step, limit, scale, last_scale):
    """Write the upper bounds of 32 rows from row r, of which n are there; return bits of those above limit.

    scale: the address of all rows' factors, 0 if there are none; last_scale: after the last 32 of them.
    """
    if scale == 0:
        above = plain_bounds(bounds, sums, low, step, limit)
    else:
        factors = scale + 4 * r if n >= ROWS else last_scale
        above = factored_bounds(bounds, sums, low, step, limit, factors)
    return above if n >= ROWS else above & np.uint32((np.int64(1) << n) - 1)


@jit("boolean(uint32, intp, intp, intp, intp, intp, intp, intp, intp, intp)", inner=True)
def take(above, r, q, k, codes, M, factors, memory, plan, room):
    """Take the rows from row r of which a bit is set; return whether there is room for more."""
    apart()
    taken = words(place(memory, plan, TAKEN) + 4 * room * q, room)
    uppers = floats(place(memory, plan, UPPERS) + 4 * room * q, room)
    lowers = halves(place(memory, plan, LOWERS) + 2 * room * q, room)
    bins, bounds = (
        words(place(memory, plan, COUNTS) + 4 * BINS * q, BINS),
        floats(place(memory, plan, BOUNDS), ROWS),
    )
    state, limits = (
        counts(place(memory, plan, STATE) + 24 * q, 3),
        floats(place(memory, plan, LIMITS) + 4 * q, 1),
    )
    about = doubles(place(memory, plan, ABOUT) + 8 * FACTS * q, FACTS)
    first, per_unit, width, scale = about[3], about[4], 2.001 * about[2], floats(factors, 0)
    count, passed, limit = state[0], state[1], state[2]
    while above != 0:
        i = lowest(above)
        above &= np.uint32(above - np.uint32(1))
        own = width if factors == 0 else width * scale[r + i]
        lower = np.intp(min(max((bounds[i] - own - first) * per_unit, 0.0), BINS - 1.0))
        taken[count], uppers[count], lowers[count] = r + i, bounds[i], lower
        count += 1
        bins[lower] += 1
        passed += lower >= limit
    if limit == 0 and passed >= k:
        limit = BINS - 1
        for i in range(count):  # which takes less time than to pass by all empty bins
            limit = min(limit, np.intp(lowers[i]))
    while passed - bins[limit] >= k:
        passed -= bins[limit]
        limit += 1
    if limit > state[2]:
        edge = first + (limit - 1e-6) / per_unit
        limits[0] = max(limits[0], np.float32(edge - 2.0**-22 * abs(edge)))
    state[0], state[1], state[2] = count, passed, limit
    return count <= room - ROWS or _make_room(q, codes, M, factors, memory, plan, room)


@jit("boolean(intp, intp, intp, intp, intp, intp, intp)", inner=True)
def _make_room(q, codes, M, factors, memory, plan, room):
    """Let candidates leave; where bounds are too wide for that, by scores, which raise the limit further."""
    apart()
    for attempt in range(2):
        if attempt == 1:
            least = _score_the_best(q, codes, M, factors, memory, plan, room)
            limits = floats(place(memory, plan, LIMITS) + 4 * q, 1)
            limits[0] = max(limits[0], np.float32(least - 2.0**-22 * abs(least) - 2.0**-100))
        if _leave(q, memory, plan, room) <= room - room // 4:
            return True
    return False


@jit("intp(intp, intp, intp, intp)", inner=True)
def _leave(q, memory, plan, room):
    """Let candidates leave whose upper bounds are not above the limit; return how many stay, in order."""
    apart()
    taken = words(place(memory, plan, TAKEN) + 4 * room * q, room)
    uppers = floats(place(memory, plan, UPPERS) + 4 * room * q, room)
    lowers = halves(place(memory, plan, LOWERS) + 2 * room * q, room)
    state, limits = (
        counts(place(memory, plan, STATE) + 24 * q, 3),
        floats(place(memory, plan, LIMITS) + 4 * q, 1),
    )
    into, limit = 0, limits[0]
    for i in range(state[0]):
        taken[into], uppers[into], lowers[into] = taken[i], uppers[i], lowers[i]
        into += uppers[i] > limit
    state[0] = into
    return into


@jit("float32(intp, intp, intp, intp, intp, intp, intp)", inner=True)
def _score_the_best(q, codes, M, factors, memory, plan, room):
    """Score the candidates whose lower bounds reach the limit, k or more; return the least of the scores.

    The scores of all others are NaN.
    """
    apart()
    lowers, state = (
        halves(place(memory, plan, LOWERS) + 2 * room * q, room),
        counts(place(memory, plan, STATE) + 24 * q, 3),
    )
    own, listed, some = floats(place(memory, plan, SCORES), room), words(place(memory, plan, LISTED), room), 0
    for i in range(state[0]):
        own[i] = np.nan
        listed[some] = i
        some += lowers[i] >= state[2]
    return exact_scores(codes, M, factors, some, q, memory, plan, room)


@jit("boolean(intp, intp, intp, intp, intp, intp, intp, intp, intp, intp)", inner=True)
def finish(q, k, codes, M, factors, memory, plan, room, scores_at, rows_at):
    """Score the candidates of a query that may be among the k best, and write these, the best first.

    Return False where a score is no number.
    """
    apart()
    taken = words(place(memory, plan, TAKEN) + 4 * room * q, room)
    uppers = floats(place(memory, plan, UPPERS) + 4 * room * q, room)
    own, listed = floats(place(memory, plan, SCORES), room), words(place(memory, plan, LISTED), room)
    keys, count = longs(place(memory, plan, KEYS), 2 * room), _leave(q, memory, plan, room)
    least = _score_the_best(q, codes, M, factors, memory, plan, room)
    some = 0
    for i in range(count):
        listed[some] = i
        some += uppers[i] >= least and np.isnan(own[i])
    if not (least > -np.inf and exact_scores(codes, M, factors, some, q, memory, plan, room) > -np.inf):
        return False
    some = 0
    for i in range(count):
        keys[some] = key_of(own[i], taken[i])
        some += own[i] >= least
    if some < k:
        return False
    if k <= BY_INSERTION:
        in_order(keys, 0, some, k)
    else:
        sort(keys, some)
    scores, rows = floats(scores_at, k), counts(rows_at, k)
    for i in range(k):
        scores[i], rows[i] = score_of(keys[i]), np.int64(keys[i] & np.uint64(0xFFFFFFFF))
    return True
