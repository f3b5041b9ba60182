"""Where the loops of `nibble_few` find their arrays: in one piece of memory, which calls pass on soonest."""

import numpy as np

from gpuzip.loops import _nibbles, _nibbles512
from gpuzip.loops._blocks import LINE
from gpuzip.loops._copy import word_at
from gpuzip.loops._jit import jit
from gpuzip.loops._nibbles import TOGETHER
from gpuzip.loops._registers import STEP
from gpuzip.loops._vectors256 import ROWS

#: The module of the widest registers that are here.
WIDEST = _nibbles512 if _nibbles512.is_here() else _nibbles
QUERIES = 16  # that share a pass over the codes
BINS = 1024  # of the lower bounds of scores
FACTS = 5  # per query: lowest sum, step, room, where bins start, bins per unit

(
    ASKED,  # queries, divided by their norms if that is asked for
    TABLES,
    ROUNDED,  # tables as bytes
    ENDS,  # the least and the greatest entry of each table
    ABOUT,  # FACTS
    COUNTS,  # rows per bin
    TAKEN,  # rows that are candidates
    UPPERS,  # their upper bounds
    LOWERS,  # the bins of their lower bounds
    STATE,  # per query: candidates, those whose lower bounds reach the limit, and the bin of the limit
    LIMITS,
    SUMS,  # of 32 rows for each of some queries
    FLOORS,  # per query, no greater than the sums of rows that may be above the limit
    NEAR,  # bits of 32 rows, for each of some queries: those not below the floor
    BOUNDS,  # of 32 rows
    FACTORS,  # of the rows after the last 32
    SCORES,  # of candidates
    LISTED,  # candidates to score
    KEYS,
    CODES,  # of candidates: rows, then columns
) = range(20)


def plan_of(Q, k, D, M, B, N):
    """Return where each array starts, how many candidates there may be per query, and the bytes in all."""
    even, room, together = B + B % 2, room_for(k, N), max(2, TOGETHER * WIDEST.HALVES_OF_FOUR)
    sizes = {
        ASKED: 4 * Q * D,
        TABLES: 64 * Q * M,
        ROUNDED: WIDEST.TABLE * Q * even,
        ENDS: 8 * M,
        ABOUT: 8 * Q * FACTS,
        COUNTS: 4 * Q * BINS,
        TAKEN: 4 * Q * room,
        UPPERS: 4 * Q * room,
        LOWERS: 2 * Q * room,
        STATE: 24 * Q,
        LIMITS: 4 * Q,
        SUMS: 2 * together * ROWS,
        FLOORS: 2 * Q,
        NEAR: 4 * together,
        BOUNDS: 4 * ROWS,
        FACTORS: 4 * ROWS,
        SCORES: 4 * room,
        LISTED: 4 * room,
        KEYS: 16 * room,
        CODES: 2 * ROWS * (B + STEP),
    }
    places = np.zeros(len(sizes) + 1, np.int64)
    np.cumsum([-(-sizes[n] // LINE) * LINE for n in range(len(sizes))], out=places[1:])
    return places[:-1].copy(), room, int(places[-1])


def room_for(k, N):
    """Return how many candidates a query may have."""
    return min(N, 16 * k + (1 << 14)) + 2 * ROWS


@jit("intp(intp, intp, intp)", inner=True)
def place(memory, plan, n):
    """Return the address of an array. plan: the address of what `plan_of` returned."""
    return memory + word_at(plan + 8 * n)
