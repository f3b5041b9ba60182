"""A search of few queries by tables of 16 entries in one compiled call: see `NibbleFew`."""

from functools import lru_cache

import numpy as np

from gpuzip.loops._arrays import at
from gpuzip.loops._blocks import AHEAD, LINE, rows_of_a_block, scratch
from gpuzip.loops._jit import jit
from gpuzip.loops._least import to_distances
from gpuzip.loops._nibble_best import finish, look, take
from gpuzip.loops._nibble_tables import BINS, FACTS, make_tables
from gpuzip.loops._nibbles import TOGETHER, sums_of_four
from gpuzip.loops._registers import ROWS, STEP, address_of, is_here, prefetch, sums_of_nibbles

_MOST_BYTES = 1024  # per row: with more, rounded tables are too coarse
_MOST_FOUND = 1 << 12  # k, for candidates of all queries in 20 MB
_QUERIES = 16  # that share a pass over the codes
_TILE = 1 << 14  # bytes of columns that stay in L1 for all of them
_SMALL, _LARGE = 2.0**-60, 2.0**60  # factors whose products with scores keep their digits
_NO_SCALE = np.empty(0, np.float32)


class NibbleFew:
    """A search of few queries by the tables of `lookup_tables`, of which all but the queries is at hand.

    codes (N, B) uint8, columns (S, M, 16) float32, an even M. scale (N,) float32 or None, inverse norms.
    turned: what `adc_topk.turned` returned for the codes. normalize: divide queries by their norms. most:
    queries whose squares do not add up to less are not sound.
    """

    def __init__(self, codes, columns, is_l2, scale, turned, normalize=False, most=np.inf):
        (N, B), (S, M, _) = codes.shape, columns.shape
        self._codes, self._shape = codes, (S * M, M, B, N)
        factors, self._is_safe = _NO_SCALE if scale is None else scale.numpy(), True
        least = greatest = 1.0
        if scale is not None:
            least, greatest = float(factors.min()), float(factors.max())
            small = np.count_nonzero(factors < _SMALL) - np.count_nonzero(factors == 0)
            self._is_safe = least >= 0 and 0 < greatest < _LARGE and small == 0
        facts = np.array([is_l2, normalize, most, least, greatest])
        rows = np.array([codes.data_ptr(), codes.stride(0), B, N], np.int64)
        self._fixed = turned.numpy(), rows, columns.numpy(), factors, facts

    def can_search(self, Q, k):
        """Return whether one call is faster: for rows that threads do not share, and safe factors."""
        _, _, B, N = self._shape
        return (
            self._is_safe
            and k <= _MOST_FOUND
            and B <= _MOST_BYTES
            and is_here()
            and rows_of_a_block(N, B * Q, k) >= N
        )

    def __call__(self, queries, Q, k, are_distances=False):
        """Find the k best rows of Q queries, an array of all their values: scores (Q * k), rows (Q * k).

        are_distances: scores of "l2" become distances. None: a query or a table is not sound, or too many
        rows are nearly as good as the k best.
        """
        scores, rows = np.empty(Q * k, np.float32), np.empty(Q * k, np.int64)
        plan, size = _plan(min(Q, _QUERIES), k, *self._shape)
        memory = scratch.take("nibbles", size, np.uint8)
        found = _search(*self._fixed, queries, Q, k, are_distances, scores, rows, memory, plan)
        return (scores, rows) if found else None


@lru_cache(64)
def _plan(Q, k, D, M, B, N):
    """Return where each array of `_search` starts in its memory and how many entries it has, and the bytes."""
    even, room = B + B % 2, min(N, 8 * k + (1 << 13)) + 2 * ROWS
    sizes = [
        (Q * D, np.float32),  # queries
        (Q * M * 16, np.float32),  # tables
        (Q * even * 32, np.uint8),  # rounded tables
        (2 * M, np.float32),  # ends of tables
        (Q * FACTS, np.float64),  # facts of queries
        (Q * BINS, np.uint32),  # rows by lower bound
        (Q * room, np.uint32),  # rows that are candidates
        (Q * room, np.float32),  # their upper bounds
        (3 * Q, np.int64),  # counts
        (Q, np.float32),  # limits
        (TOGETHER * ROWS, np.uint16),  # sums
        (2 * ROWS, np.float32),  # bounds, and the last factors
        (room, np.float32),  # exact scores
        (room, np.uint32),  # candidates to score
        (2 * room, np.uint64),  # keys
        (2 * ROWS * (B + STEP), np.uint8),  # codes of candidates: rows, and columns
    ]
    plan, place = np.empty((len(sizes), 2), np.int64), 0
    for n, (count, dtype) in enumerate(sizes):
        plan[n] = place, count
        place += -(-count * dtype().itemsize // LINE) * LINE
    return plan, place


_bytes, _halves, _words, _longs = at(np.uint8), at(np.uint16), at(np.uint32), at(np.uint64)
_counts, _floats, _doubles = at(np.int64), at(np.float32), at(np.float64)


@jit("intp(intp, int64[:, ::1], intp)", inner=True)
def _start(memory, plan, n):
    return memory + plan[n, 0]


@jit(
    "boolean(uint8[::1], int64[::1], float32[:, :, ::1], float32[::1], float64[::1], float32[::1], intp, "
    "intp, boolean, float32[::1], int64[::1], uint8[::1], int64[:, ::1])"
)
def _search(
    columns, codes, centroids, scale, facts, queries, Q, k, are_distances, scores, rows, memory, plan
):
    S, M, _ = centroids.shape
    D, B, N, whole = S * M, codes[2], codes[3], address_of(memory)
    even, group = B + (B & 1), plan[9, 1]
    asked = _floats(_start(whole, plan, 0), plan[0, 1])
    tables = _floats(_start(whole, plan, 1), plan[1, 1])
    luts = _bytes(_start(whole, plan, 2), plan[2, 1])
    ends = _floats(_start(whole, plan, 3), plan[3, 1])
    about = _doubles(_start(whole, plan, 4), plan[4, 1])
    bins = _words(_start(whole, plan, 5), plan[5, 1])
    taken = _words(_start(whole, plan, 6), plan[6, 1])
    above = _floats(_start(whole, plan, 7), plan[7, 1])
    counts = _counts(_start(whole, plan, 8), plan[8, 1])
    limits = _floats(_start(whole, plan, 9), plan[9, 1])
    sums = _start(whole, plan, 10)
    bounds = _floats(_start(whole, plan, 11), plan[11, 1])
    own = _floats(_start(whole, plan, 12), plan[12, 1])
    listed = _words(_start(whole, plan, 13), plan[13, 1])
    keys = _longs(_start(whole, plan, 14), plan[14, 1])
    spare = _start(whole, plan, 15)
    for i in range(N // ROWS * ROWS, N):
        if len(scale):  # nothing may be read after the last ones
            bounds[ROWS + i % ROWS] = scale[i]
    for first in range(0, Q, group):
        count = min(group, Q - first)
        some = queries[first * D : (first + count) * D]
        if not make_tables(some, count, centroids, B, facts, len(scale) > 0, asked, tables, luts, ends, about):
            return False
        for i in range(count * BINS):
            bins[i] = 0
        for q in range(count):
            counts[3 * q] = counts[3 * q + 1] = counts[3 * q + 2] = 0
            limits[q] = -np.inf
        state = scale, bounds, about, bins, taken, above, counts, limits
        if not _scan(address_of(columns), N, even, address_of(luts), sums, count, k, state):
            return False
        for q in range(count):
            into = (first + q) * k
            if not finish(q, k, codes, tables, state, own, listed, keys, spare, scores, rows, into):
                return False
    if are_distances:
        to_distances(scores)
    return True


@jit(
    "boolean(intp, intp, intp, intp, intp, intp, intp, Tuple((float32[::1], float32[::1], float64[::1], "
    "uint32[::1], uint32[::1], float32[::1], int64[::1], float32[::1])))",
    inner=True,
)
def _scan(columns, N, even, luts, sums, Q, k, state):
    """Take every row that may be among the k best of a query; return whether there is room for them."""
    scale, bounds, about, _, _, _, _, limits = state
    size, table, tile = ROWS * even, 32 * even, max(2, _TILE // (ROWS * even) // 2 * 2)
    factors, bounds_at = address_of(scale) if len(scale) else 0, address_of(bounds)
    blocks = (N + ROWS - 1) // ROWS
    for first in range(0, blocks, tile):
        last = min(first + tile, blocks)
        for line in range(first * size, last * size, LINE):
            prefetch(columns + AHEAD + line)
        q = 0
        while q < Q:
            are_four = Q - q >= TOGETHER
            for b in range(first, last, 1 if are_four else 2):
                if are_four:
                    sums_of_four(sums, columns + b * size, luts + q * table, table, even)
                else:
                    sums_of_nibbles(sums, columns + b * size, size, luts + q * table, even)
                for i in range(TOGETHER if are_four else min(2, last - b)):
                    own, r = (q + i, b * ROWS) if are_four else (q, (b + i) * ROWS)
                    at, here = FACTS * own, sums + 2 * ROWS * i
                    low, step = np.float32(about[at] + about[at + 2]), np.float32(about[at + 1])
                    last_ones = bounds_at + 4 * ROWS
                    above = look(here, r, N - r, bounds_at, low, step, limits[own], factors, last_ones)
                    if above != 0 and not take(above, r, own, k, state):
                        return False
            q += TOGETHER if are_four else 1
    return True
