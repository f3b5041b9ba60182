"""A search of few queries by tables of 16 entries in one compiled call: see `NibbleFew`."""

import numpy as np

from gpuzip.loops._arrays import counts, doubles, floats, halves, words
from gpuzip.loops._blocks import AHEAD_IN_ORDER, is_lone, scratch
from gpuzip.loops._jit import jit
from gpuzip.loops._least import to_distances
from gpuzip.loops._nibble_best import finish, look, take
from gpuzip.loops._nibble_memory import (
    ABOUT,
    BINS,
    BOUNDS,
    COUNTS,
    FACTORS,
    FACTS,
    FLOORS,
    LIMITS,
    NEAR,
    QUERIES,
    ROUNDED,
    STATE,
    SUMS,
    WIDEST,
    place,
    plan_of,
)
from gpuzip.loops._nibble_tables import make_tables
from gpuzip.loops._nibbles import TOGETHER
from gpuzip.loops._shares import can_share, in_shares
from gpuzip.loops._vectors256 import ROWS, address_of, is_here

_MOST_BYTES = 1024  # per row: with more, rounded tables are too coarse
_MOST_FOUND = 1 << 12  # k, for candidates of all queries in 20 MB
_MOST_PLANS = 64
_TILE = 1 << 14  # bytes of columns that stay in L1 for all of them
_SMALL, _LARGE = 2.0**-60, 2.0**60  # factors whose products with scores keep their digits
_NO_SCALE = np.empty(0, np.float32)

sums_of_one, sums_of_four = WIDEST.sums_of_one, WIDEST.sums_of_four
_HALVES, _TABLE = WIDEST.HALVES_OF_FOUR, WIDEST.TABLE


class NibbleFew:
    """A search of few queries by the tables of `lookup_tables`, of which all but the queries is at hand.

    codes (N, B) uint8, columns (S, M, 16) float32, an even M. scale (N,) float32 or None, inverse norms.
    turned: what `adc_topk.turned` returned for the codes. normalize: divide queries by their norms. most:
    queries whose squares do not add up to less are not sound.
    """

    def __init__(self, codes, columns, is_l2, scale, turned, normalize=False, most=np.inf):
        (N, B), (S, M, _) = codes.shape, columns.shape
        self._codes, self._shape = codes, (S * M, M, B, N)
        factors, least, greatest = _NO_SCALE, 1.0, 1.0
        self._most = _MOST_FOUND if B <= _MOST_BYTES and is_here() else 0
        if scale is not None:
            factors = scale.numpy()
            least, greatest = float(factors.min()), float(factors.max())
            small = np.count_nonzero(factors < _SMALL) - np.count_nonzero(factors == 0)
            if not (least >= 0 and 0 < greatest < _LARGE and small == 0):
                self._most = 0
        self._plans = {}
        facts = np.array([is_l2, normalize, most, least, greatest])
        rows = np.array([codes.data_ptr(), codes.stride(0), B, N], np.int64)
        self._fixed = turned.numpy(), rows, columns.numpy(), factors, facts

    def can_search(self, Q, k):
        """Return whether one call is faster: where threads share queries, not rows, and factors are safe."""
        _, _, B, N = self._shape
        return k <= self._most and (is_lone(N, B * Q, k) or can_share(Q))

    def at_address(self, queries, Q, k, are_distances, values, rows):
        """Find the k best rows of Q queries: see `ops.few.Few`.

        False also where a table is not sound, or too many rows are nearly as good as the k best.
        """
        D, _, B, N = self._shape
        if is_lone(N, B * Q, k):
            return self._search(queries, Q, k, are_distances, values, rows)
        return in_shares(self._search, 4 * D, queries, Q, k, are_distances, values, rows)

    def _search(self, queries, Q, k, are_distances, values, rows):
        plan, room, size = self._plan(min(Q, QUERIES), k)
        memory = scratch.at_least("nibbles", size, np.uint8)
        return _search(*self._fixed, queries, Q, k, are_distances, values, rows, memory, plan, room)

    def _plan(self, Q, k):
        """Return what `plan_of` did before for so many queries and rows of each."""
        if (Q, k) not in self._plans:
            if len(self._plans) >= _MOST_PLANS:
                self._plans.clear()
            self._plans[Q, k] = plan_of(Q, k, *self._shape)
        return self._plans[Q, k]


@jit(
    "boolean(uint8[::1], int64[::1], float32[:, :, ::1], float32[::1], float64[::1], intp, intp, intp, "
    "boolean, intp, intp, uint8[::1], int64[::1], intp)"
)
def _search(
    columns, codes, centroids, scale, facts, queries, Q, k, are_distances, values, rows, memory, plan, room
):
    S, M, _ = centroids.shape
    D, N, whole, of_plan = S * M, codes[3], address_of(memory), address_of(plan)
    factors, last_factors = address_of(scale), floats(place(whole, of_plan, FACTORS), ROWS)
    if len(scale) == 0:
        factors = 0
    else:
        for i in range(N // ROWS * ROWS, N):  # nothing may be read after the last ones
            last_factors[i % ROWS] = scale[i]
    for first in range(0, Q, QUERIES):
        count = min(QUERIES, Q - first)
        if not make_tables(queries + 4 * D * first, count, centroids, facts, len(scale) > 0, whole, of_plan):
            return False
        bins, state = words(place(whole, of_plan, COUNTS), 0), counts(place(whole, of_plan, STATE), 0)
        limits = floats(place(whole, of_plan, LIMITS), 0)
        for i in range(count * BINS):
            bins[i] = 0
        for q in range(count):
            state[3 * q] = state[3 * q + 1] = state[3 * q + 2] = 0
            limits[q] = -np.inf
        if not _scan(address_of(columns), address_of(codes), M, N, count, k, factors, whole, of_plan, room):
            return False
        for q in range(count):
            into = values + 4 * k * (first + q), rows + 8 * k * (first + q)
            if not finish(q, k, address_of(codes), M, factors, whole, of_plan, room, *into):
                return False
    if are_distances:
        to_distances(floats(values, Q * k))
    return True


@jit("boolean(intp, intp, intp, intp, intp, intp, intp, intp, intp, intp)", inner=True)
def _scan(columns, codes, M, N, Q, k, factors, memory, plan, room):
    """Take every row that may be among the k best of a query; return whether there is room for them."""
    sums, bounds, last_ones = (
        place(memory, plan, SUMS),
        place(memory, plan, BOUNDS),
        place(memory, plan, FACTORS),
    )
    about, limits = doubles(place(memory, plan, ABOUT), 0), floats(place(memory, plan, LIMITS), 0)
    floors_at, near_at = place(memory, plan, FLOORS), place(memory, plan, NEAR)
    floors, near = halves(floors_at, Q), words(near_at, TOGETHER * _HALVES)
    even, blocks, rounded = M // 2 + (M // 2 & 1), (N + ROWS - 1) // ROWS, place(memory, plan, ROUNDED)
    size, table, tile = ROWS * even, _TABLE * even, max(2, _TILE // (ROWS * even) // 2 * 2)
    ahead = AHEAD_IN_ORDER
    for q in range(Q):
        floors[q] = 0
    for first in range(0, blocks, tile):
        last = min(first + tile, blocks)
        q = 0
        while q < Q:
            are_four = Q - q >= TOGETHER
            count = _HALVES if are_four else 2  # times 32 rows
            for b in range(first, last, count):
                of_columns, of_query = (sums, columns + b * size, size), rounded + q * table
                rest = table, even, ahead, floors_at + 2 * q, near_at
                if are_four:
                    some = sums_of_four(*of_columns, of_query, *rest)
                else:
                    some = sums_of_one(*of_columns, of_query, *rest)
                if some == 0:
                    continue
                for i in range(TOGETHER * count if are_four else count):
                    own, r = q + i // count, (b + i % count) * ROWS
                    if near[i] == 0 or r >= N:
                        continue
                    at, here = FACTS * own, sums + 2 * ROWS * i
                    low, step = np.float32(about[at] + about[at + 2]), np.float32(about[at + 1])
                    above = look(here, r, N - r, bounds, low, step, limits[own], factors, last_ones)
                    if above != 0:
                        if not take(above, r, own, k, codes, M, factors, memory, plan, room):
                            return False
                        if factors == 0:
                            floors[own] = _floor(about[at] + about[at + 2], about[at + 1], limits[own])
            q += TOGETHER if are_four else 1
    return True


@jit("uint16(float64, float64, float32)", inner=True)
def _floor(low, step, limit):
    """Return a sum of bytes such that no row with less has a score above the limit.

    Scores are at most low + step * sum, where `low` has room for roundings of float32, which are far greater
    than those of float64 here.
    """
    return np.uint16(min(max((limit - low) / step - 1, 0.0), 65535.0))
