"""The scan of `scalar_topk` for more queries than few, whose products and scores lie in lanes."""

import numpy as np

from gpuzip.loops._arrays import local
from gpuzip.loops._jit import jit
from gpuzip.loops._least import clear_unused, cut, score_of
from gpuzip.loops._query_lanes import (
    LANES,
    ROWS,
    STEP,
    better,
    packed,
    products_of_row,
    products_of_row_and_group,
    products_of_rows,
    products_of_rows_and_group,
    raise_limits,
    score,
)
from gpuzip.loops._vectors256 import address_of
from gpuzip.loops._words import trailing_zeros

_TILE = 32  # rows, whose bytes stay in L1 while queries take turns
_GROUPS = 2  # of queries, whose products are made together
_FIRST = 512  # rows by whose scores limits are raised before any is kept
_LEAST_ROOM = 64  # keys beside k, as a cut of few keys takes almost as long as of many

_sums, _halves = local(_FIRST * _GROUPS * LANES, np.int32), local(LANES, np.uint32)


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
    Q, E, start = len(counts), len(asked) // len(worst), first
    for q in range(len(worst)):
        worst[q] = -np.inf if q < Q else np.inf
    for q in range(Q):
        counts[q] = 0
    sums, halves, worst_at = _sums(), _halves(), address_of(worst)
    of_codes = address_of(codes), address_of(edge), len(codes) // D - (len(edge) - (E - D)) // D, D, E
    while start < last:
        raises = start == first and last - first >= _FIRST and k <= _FIRST // 2
        stop = min(last, start + (_FIRST if raises else _TILE))
        for q in range(0, len(worst), _GROUPS * LANES):
            width, query = min(_GROUPS * LANES, len(worst) - q), address_of(asked) + E * q
            _multiply(of_codes, start, stop, query, flip[0], width, address_of(sums))
            for w in range(0, width, LANES):
                at, of_group = address_of(sums) + 4 * w, 4 * (q + w)
                own, limits = (
                    (address_of(unit) + of_group, address_of(offset) + of_group),
                    worst_at + of_group,
                )
                _score(at, 4 * width, start, stop, own, scale, bias, mask)
                if raises:
                    raise_limits(limits, at, 4 * width, stop - start, np.int32(k))
                for r in range(start, stop):
                    found = better(address_of(halves), at + 4 * width * (r - start), limits)
                    if found != 0:
                        _take(found, halves, q + w, r, k, keys, counts, worst)
        start = stop
    clear_unused(keys, counts, Q)


@jit("void(UniTuple(intp, 5), intp, intp, intp, int32, intp, intp)", inner=True)
def _multiply(of_codes, start, stop, query, flip, width, sums):
    """Write products of rows with one group of queries or two, in `width` lanes."""
    codes, edge, edge_row, D, E = of_codes
    whole, stride = max(0, min(stop, edge_row) - start) // ROWS * ROWS, 4 * width
    for r in range(start, start + whole, ROWS):
        place, into = codes + r * D, sums + stride * (r - start)
        if width > LANES:
            products_of_rows(into, stride, place, D, query, E, flip)
        else:
            products_of_rows_and_group(into, stride, place, D, query, E, flip)
    for r in range(start + whole, stop):
        place = codes + r * D if r < edge_row else edge + (r - edge_row) * D
        if width > LANES:
            products_of_row(sums + stride * (r - start), stride, place, D, query, E, flip)
        else:
            products_of_row_and_group(sums + stride * (r - start), stride, place, D, query, E, flip)


@jit("void(intp, intp, intp, intp, UniTuple(intp, 2), float32[::1], float32[::1], boolean[::1])", inner=True)
def _score(sums, stride, start, stop, of_queries, scale, bias, mask):
    """Make of sums of rows with a group of queries their scores, and -inf of rows that are not allowed."""
    unit, offset = of_queries
    for r in range(start, stop):
        factor = scale[r] if len(scale) else np.float32(1)
        term = bias[r] if len(bias) else np.float32(-0.0)  # which changes no score
        if len(mask) and not mask[r]:
            factor, term = np.float32(0), np.float32(-np.inf)
        score(sums + stride * (r - start), unit, offset, factor, term)


@jit("void(uint64, uint32[::1], intp, intp, intp, uint64[::1], intp[::1], float32[::1])", inner=True)
def _take(found, halves, first, row, k, keys, counts, worst):
    """Keep a row for those queries of a group, from `first`, whose bits are set."""
    room = len(keys) // len(counts)
    while found != 0:
        lane = trailing_zeros(found)
        found &= found - np.uint64(1)
        q = np.uint64(first) + lane
        at, count = q * np.uint64(room), counts[q] + 1
        keys[at + np.uint64(counts[q])] = np.uint64(halves[lane]) << np.uint64(32) | np.uint64(row)
        counts[q] = count
        if count == room:
            worst[q] = score_of(cut(keys, np.intp(at), room, k))
            counts[q] = k
