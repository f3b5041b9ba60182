"""A search of few queries by Hamming distance in one compiled call, over columns of codes that are kept.

A distance is the sum over nibbles of how many bits differ, which a table of 16 entries says.
"""

import numpy as np

from gpuzip.loops._blocks import AHEAD, LINE, rows_of_a_block, scratch
from gpuzip.loops._jit import apart, jit
from gpuzip.loops._least import MOST_IN_ORDER, clear_unused, cut, in_order, key_of, read, room_for, score_of
from gpuzip.loops._registers import ROWS, address_of, prefetch, sums_of_nibbles

_MOST_QUERIES = 8  # whose tables stay in L1
_MOST_BYTES = 4096  # per row: sums of more do not fit in 16 bits
_BITS = np.array([n.bit_count() for n in range(16)], np.uint8)


class HammingFew:
    """A search of few queries by codes (N, B) uint8, of which all but the queries is at hand.

    turned: what `adc_topk.turned` returned for the codes.
    """

    def __init__(self, codes, turned):
        (self._N, self._B), self._turned = codes.shape, turned.numpy()

    def can_search(self, Q, k):
        """Return whether one call is faster: for few results, and for rows that threads do not share."""
        fits = Q <= _MOST_QUERIES and k <= MOST_IN_ORDER and self._B <= _MOST_BYTES
        return fits and rows_of_a_block(self._N, self._B * Q, k) >= self._N

    def __call__(self, queries, Q, k, are_distances=False):
        """Find the k nearest rows of Q queries, an array of all their bytes: scores (Q * k), rows (Q * k).

        Scores are minus the distances, or the distances as int32.
        """
        scores, rows = np.empty(Q * k, np.float32), np.empty(Q * k, np.int64)
        distances = np.empty(Q * k if are_distances else 0, np.int32)
        memory = scratch.kept(("bits", Q, self._B, k), _memory)
        _search(self._turned, self._N, self._B, queries, k, _BITS, scores, rows, distances, *memory)
        return distances if are_distances else scores, rows


def _memory(_, Q, B, k):
    return (
        np.zeros(Q * 32 * (B + B % 2), np.uint8),
        np.empty(Q * room_for(k), np.uint64),
        np.empty((2, Q), np.intp),
        scratch.take("sums", 2 * ROWS, np.uint16),
    )


@jit("void(uint8[::1], intp, uint8[::1], uint8[::1])", inner=True)
def _fill(queries, B, bits, tables):
    """Fill tables (Q, B, 32): in how many bits a nibble differs from a query's, the low nibble first."""
    apart()
    even = B + (B & 1)
    for q in range(len(queries) // B):
        for j in range(B):
            byte, at = queries[q * B + j], (q * even + j) * 32
            for n in range(16):
                tables[at + n] = bits[(byte & 15) ^ n]
                tables[at + 16 + n] = bits[(byte >> 4) ^ n]


@jit("boolean(uint16[::1], intp)", inner=True)
def _any_below(sums, bound):
    least = np.uint16(65535)
    for i in range(2 * ROWS):
        least = min(least, sums[i])
    return least < bound


@jit(
    "void(uint8[::1], intp, intp, uint8[::1], intp, uint8[::1], float32[::1], int64[::1], int32[::1], "
    "uint8[::1], uint64[::1], intp[:, ::1], uint16[::1])"
)
def _search(columns, N, B, queries, k, bits, scores, rows, distances, tables, keys, state, sums):
    """state: of each query how many keys there are, and the distance that a row must be below."""
    Q, even = len(queries) // B, B + (B & 1)
    size, room = ROWS * even, len(keys) // Q
    counts, bounds = state[0], state[1]
    _fill(queries, B, bits, tables)
    for q in range(Q):
        counts[q], bounds[q] = 0, 8 * B + 1
    for r in range(0, N, 2 * ROWS):
        place, last = address_of(columns) + r // ROWS * size, min(2 * ROWS, N - r)
        for at in range(0, 2 * size, LINE):
            prefetch(place + AHEAD + at)
        for q in range(Q):
            sums_of_nibbles(address_of(sums), place, size, address_of(tables) + q * 32 * even, even)
            if not _any_below(sums, bounds[q]):
                continue
            count, bound = counts[q], bounds[q]
            for i in range(last):
                if sums[i] < bound:
                    keys[q * room + count] = key_of(-np.float32(sums[i]), r + i)
                    count += 1
                    if count == room:
                        bound = -np.int64(score_of(cut(keys, q * room, room, k)))
                        count = k
            counts[q], bounds[q] = count, bound
    clear_unused(keys, counts, Q)
    for q in range(Q):
        in_order(keys, q * room, counts[q], k)
    read(keys, k, scores, rows)
    for i in range(len(distances)):
        distances[i] = np.int32(-scores[i])
