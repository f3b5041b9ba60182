"""The scan of `scalar_topk` for more queries than few, whose products and scores lie in lanes."""

import numpy as np

from gpuzip.loops._arrays import local
from gpuzip.loops._blocks import LINE
from gpuzip.loops._jit import jit
from gpuzip.loops._least import clear_unused, cut, score_of
from gpuzip.loops._query_lanes import (
    LANES,
    ROWS,
    STEP,
    packed,
    products_of_row,
    products_of_row_and_group,
    products_of_rows,
    products_of_rows_and_group,
    scored,
)
from gpuzip.loops._vectors256 import address_of, prefetch
from gpuzip.loops._words import trailing_zeros

_TILE = 32  # rows, whose bytes stay in L1 while queries take turns
_GROUPS = 2  # of queries, whose products are made together
_LEAST_ROOM = 64  # keys beside k, as a cut of few keys takes almost as long as of many

_sums, _halves = local(_TILE * _GROUPS * LANES, np.int32), local(LANES, np.uint32)


def places(Q):
    """Return the lanes of Q queries."""
    return Q + -Q % LANES


def room_for(k):
    """Return the keys of a buffer."""
    return k + max(_LEAST_ROOM, k // 2)


def of_queries(queries, unit, offset, flip):
    """Return of queries (Q, D) int8, their units and offsets (Q,), or None, what `scan` takes.

    These are their words as bytes, what codes are xor-ed with, and units and offsets with an entry per lane.
    """
    whole = np.zeros((2, places(len(queries))), np.float32)
    whole[0, : len(queries)] = unit.numpy()
    whole[1] = -0.0  # which changes no score
    if offset is not None:
        whole[1, : len(queries)] = offset.numpy()
    return packed(queries.numpy()).view(np.uint8), np.full(STEP, flip, np.uint8).view(np.int32), *whole


@jit(
    "void(uint8[::1], uint8[::1], intp, intp, intp, uint8[::1], int32[::1], float32[::1], float32[::1], "
    "float32[::1], float32[::1], boolean[::1], intp, uint64[::1], intp[::1], float32[::1])"
)
def scan(codes, edge, D, first, last, asked, flip, unit, offset, scale, bias, mask, k, keys, counts, worst):
    """Scan rows first to last, as `scalar_topk.scan` does.

    edge: the last rows, with room for reads of STEP bytes. asked, flip: as `of_queries` returns them. unit,
    offset, worst: an entry per lane. counts: (Q,).
    """
    Q, E, N = len(counts), len(asked) // len(worst), len(codes) // D
    room, into, halves = len(keys) // Q, address_of(_sums()), _halves()
    for q in range(len(worst)):
        worst[q] = -np.inf if q < Q else np.inf
    for q in range(Q):
        counts[q] = 0
    edge_row = N - (len(edge) - (E - D)) // D
    for start in range(first, last, _TILE):
        rows = min(_TILE, last - start)
        whole, row = max(0, min(rows, edge_row - start)) // ROWS * ROWS, address_of(codes) + start * D
        for q in range(0, len(worst), _GROUPS * LANES):
            query, is_pair = address_of(asked) + E * q, q + LANES < len(worst)
            width = LANES * _GROUPS if is_pair else LANES
            for r in range(0, whole, ROWS):
                to = into + 4 * width * r
                if q == 0:
                    for byte in range((r + _TILE) * D, (r + _TILE + ROWS) * D, LINE):
                        prefetch(row + byte)
                if is_pair:
                    products_of_rows(to, 4 * width, row + r * D, D, query, E, flip[0])
                else:
                    products_of_rows_and_group(to, 4 * width, row + r * D, D, query, E, flip[0])
            for r in range(whole, rows):
                place, to = row + r * D, into + 4 * width * r
                if start + r >= edge_row:
                    place = address_of(edge) + (start + r - edge_row) * D
                if is_pair:
                    products_of_row(to, 4 * width, place, D, query, E, flip[0])
                else:
                    products_of_row_and_group(to, 4 * width, place, D, query, E, flip[0])
            for r in range(rows):
                if len(mask) and not mask[start + r]:
                    continue
                factor = scale[start + r] if len(scale) else np.float32(1)
                term = bias[start + r] if len(bias) else np.float32(-0.0)
                for w in range(0, width, LANES):
                    sums, at = into + 4 * (width * r + w), 4 * (q + w)
                    of_queries = address_of(unit) + at, address_of(offset) + at, address_of(worst) + at
                    better = scored(
                        address_of(halves), sums, of_queries[0], of_queries[1], of_queries[2], factor, term
                    )
                    if better != 0:
                        _take(better, halves, q + w, start + r, k, keys, room, counts, worst)
    clear_unused(keys, counts, Q)


@jit("void(uint64, uint32[::1], intp, intp, intp, uint64[::1], intp, intp[::1], float32[::1])", inner=True)
def _take(better, halves, first, row, k, keys, room, counts, worst):
    """Keep a row for those queries of a group, from `first`, whose bits are set."""
    while better != 0:
        lane = trailing_zeros(better)
        better &= better - np.uint64(1)
        q = np.uint64(first) + lane
        at, count = q * np.uint64(room), counts[q] + 1
        keys[at + np.uint64(counts[q])] = np.uint64(halves[lane]) << np.uint64(32) | np.uint64(row)
        counts[q] = count
        if count == room:
            worst[q] = score_of(cut(keys, np.intp(at), room, k))
            counts[q] = k
