"""A search of few queries by Hamming distance in one compiled call, over columns of codes that are kept.

A distance is the sum over nibbles of how many bits differ, which a table of 16 entries says. Distances are
small whole numbers: how many rows have each of them says at once how near a row must be to be among the k
best, whatever k is.
"""

import numpy as np

from gpuzip._core.parallel import map_blocks
from gpuzip.loops import _bit_sums, _bit_sums512
from gpuzip.loops._arrays import counts, integers
from gpuzip.loops._blocks import AHEAD_IN_ORDER, is_lone, rows_of_a_block, scratch
from gpuzip.loops._jit import apart, jit
from gpuzip.loops._least import MOST_SORTED
from gpuzip.loops._shares import can_share, in_shares
from gpuzip.loops._vectors256 import ROWS, address_of
from gpuzip.loops._words import trailing_zeros

_MOST_BYTES = 4096  # per row: sums of more do not fit in 16 bits
_QUERIES = 16  # whose counts stay in L2
_TILE = 1 << 14  # bytes of columns that stay in L1 while queries take turns
_MORE = 64  # rows beside 2 k that are kept before those that are too far leave
_LOW = np.uint64(0xFFFFFFFF)

_counted = _bit_sums512 if _bit_sums512.is_here() else _bit_sums
bits_below, tables_of_bits = _counted.bits_below, _counted.tables_of_bits


class HammingFew:
    """A search of few queries by codes (N, B) uint8, of which all but the queries is at hand.

    turned: what `adc_topk.turned` returned for the codes.
    """

    def __init__(self, codes, turned):
        (self._N, self._B), self._turned = codes.shape, turned.numpy()

    def can_search(self, Q, k):
        """Return whether one call is faster, as it is for rows that are not too long."""
        return self._B <= _MOST_BYTES and k <= MOST_SORTED

    def at_address(self, queries, Q, k, are_distances, values, rows):
        """Find the k nearest rows of Q queries: see `ops.few.Few`. Values are distances, in any case."""
        if is_lone(self._N, self._B * Q, k):
            return self._search(queries, Q, k, are_distances, values, rows)
        if can_share(Q):
            return in_shares(self._search, self._B, queries, Q, k, are_distances, values, rows)
        self._by_rows(queries, Q, k, values, rows)
        return True

    def _search(self, queries, Q, k, are_distances, values, rows):
        self._search_rows(0, self._N, queries, Q, k, values, rows)
        return True

    def _search_rows(self, start, stop, queries, Q, k, values, rows):
        """Find the nearest rows from row start, a multiple of 32, to row stop, whose numbers start at 0."""
        columns = self._turned[start * (self._B + self._B % 2) :] if start else self._turned
        for first in range(0, Q, _QUERIES):
            count = min(_QUERIES, Q - first)
            places = queries + self._B * first, k, values + 4 * k * first, rows + 8 * k * first
            memory = scratch.kept((count, self._B, k), _memory)
            _search(columns, stop - start, self._B, *places, *memory)

    def _by_rows(self, queries, Q, k, values, rows):
        """Let threads share the rows, and take the nearest of those that each finds."""

        def some(start, stop):
            own = min(k, stop - start)
            near, ids = np.empty((Q, own), np.int32), np.empty((Q, own), np.int64)
            self._search_rows(start, stop, queries, Q, own, near.ctypes.data, ids.ctypes.data)
            return near.astype(np.int64) << 32 | (ids + start)

        block = rows_of_a_block(self._N, self._B * Q, k)
        keys = np.concatenate(map_blocks(some, self._N, block, with_caller=True), 1)
        keys.sort(1)
        _read(keys, Q, k, values, rows)


def _memory(Q, B, k):
    return (
        np.zeros(Q * 32 * (B + B % 2), np.uint8),
        np.empty(Q * (2 * k + _MORE), np.uint64),
        np.empty((Q, 8 * B + 1), np.int64),
        np.empty((3, Q), np.intp),
        scratch.take("sums", 2 * ROWS, np.uint16),
    )


@jit(
    "UniTuple(intp, 3)(uint64, uint16[::1], intp, uint64[::1], int64[::1], intp, intp, intp, intp)",
    inner=True,
)
def _take(near, sums, first, keys, having, k, count, bound, below):
    """Take rows, whose sums were below the bound; return how many keys there are, and state as in `_search`.

    near: the bits of these rows. keys: of one query, with room for two for each of k and a few more.
    having: rows by distance.
    """
    apart()
    while near != 0:
        i = trailing_zeros(near)
        near &= near - np.uint64(1)
        distance = np.intp(sums[i])
        if distance >= bound:
            continue
        keys[count] = np.uint64(distance) << np.uint64(32) | (np.uint64(first) + i)
        having[distance] += 1
        count, below = count + 1, below + 1
        while below >= k:
            bound -= 1
            below -= having[bound]
        if count == len(keys):
            count = _leave(keys, count, k, bound, below)
    return count, bound, below


@jit("intp(uint64[::1], intp, intp, intp, intp)", inner=True)
def _leave(keys, count, k, bound, below):
    """Keep the k nearest keys, as they follow each other, and of equal ones the first; return how many.

    bound: the k-th least distance; below: how many keys are nearer.
    """
    apart()
    into, equal = 0, k - below
    for i in range(count):
        distance = np.intp(keys[i] >> np.uint64(32))
        if distance < bound or (distance == bound and equal > 0):
            equal -= distance == bound
            keys[into] = keys[i]
            into += 1
    return into


@jit("void(uint64[::1], intp, int64[::1], intp, int32[::1], int64[::1])", inner=True)
def _put_in_order(keys, k, having, bound, distances, rows):
    """Write the distances and rows of k keys that are none above the bound, the nearest first."""
    apart()
    place = 0
    for distance in range(bound + 1):
        having[distance], place = place, place + having[distance]
    for i in range(k):
        distance = np.intp(keys[i] >> np.uint64(32))
        at = having[distance]
        distances[at], rows[at] = distance, np.int64(keys[i] & _LOW)
        having[distance] += 1


@jit("void(int64[:, ::1], intp, intp, intp, intp)")
def _read(keys, Q, k, values, rows):
    """Write the distances and rows of the first k keys of each query to addresses."""
    distances, ids = integers(values, Q * k), counts(rows, Q * k)
    for q in range(Q):
        for i in range(k):
            distances[q * k + i] = keys[q, i] >> 32
            ids[q * k + i] = keys[q, i] & np.int64(_LOW)


@jit(
    "void(uint8[::1], intp, intp, intp, intp, intp, intp, uint8[::1], "
    "uint64[::1], int64[:, ::1], intp[:, ::1], uint16[::1])"
)
def _search(columns, N, B, queries, k, distances, rows, tables, keys, having, state, sums):
    """having: of each query how many rows that were taken have each distance.

    state: of each query how many keys there are, the distance that a row must be below, and how many of them
    are. This bound is the k-th least distance so far, and 8 B + 1 before there are k rows.
    """
    Q, even = len(having), B + (B & 1)
    size, room = ROWS * even, len(keys) // Q
    tile = max(1, _TILE // (2 * size)) * 2 * ROWS
    for q in range(Q):
        tables_of_bits(address_of(tables) + q * 32 * even, queries + q * B, B)
        having[q] = 0
        state[0, q], state[1, q], state[2, q] = 0, 8 * B + 1, 0
    for start in range(0, N, tile):
        stop = min(start + tile, N)
        for q in range(Q):
            own, bound = keys[q * room : (q + 1) * room], state[1, q]
            for r in range(start, stop, 2 * ROWS):
                place = address_of(columns) + r // ROWS * size
                table = address_of(tables) + q * 32 * even
                near = bits_below(address_of(sums), place, size, table, B, AHEAD_IN_ORDER, bound)
                if N - r < 2 * ROWS:
                    near &= (np.uint64(1) << np.uint64(N - r)) - np.uint64(1)
                if near != 0:
                    state[0, q], bound, state[2, q] = _take(
                        near, sums, r, own, having[q], k, state[0, q], bound, state[2, q]
                    )
            state[1, q] = bound
    for q in range(Q):
        own, bound = keys[q * room : (q + 1) * room], state[1, q]
        _leave(own, state[0, q], k, bound, state[2, q])
        found = integers(distances + 4 * q * k, k), counts(rows + 8 * q * k, k)
        _put_in_order(own, k, having[q], bound, *found)
