"""The rows with the best estimates by int8 products, in one pass over codes of one byte per dimension."""

import numpy as np
import torch

from gpuzip._core.parallel import map_blocks
from gpuzip.loops import _query_lanes, scalar_lanes
from gpuzip.loops._arrays import local
from gpuzip.loops._blocks import rows_of_a_block
from gpuzip.loops._columns import part
from gpuzip.loops._jit import has_features, jit
from gpuzip.loops._least import best_of, clear_unused, cut, key_of, keys_of, room_for, score_of
from gpuzip.loops._query_lanes import LANES, STEP
from gpuzip.loops._query_products import (
    TOGETHER,
    WIDTH,
    prepared,
    products_and_fetches,
    products_of_four,
    products_of_one,
)
from gpuzip.loops._vector import above
from gpuzip.loops._vectors256 import address_of, is_here
from gpuzip.loops._words import trailing_zeros
from gpuzip.loops.rescore import METRICS, exactly
from gpuzip.loops.scalar_scan import fastest_of_many

_MOST_QUERIES = 4  # with more, tiles are faster on CPUs that have other products of bytes than AVX2's
_LEAST_IN_LANES = 8  # queries, as a group of lanes takes as long for any number of them
_FASTER_IN_LANES = 16  # times as many rows are worth another thread
_TILE = 32  # rows, whose bytes stay in L1 while queries take turns
_VALUES = 1 << 17  # of candidates per block
# Bytes from rows to what is fetched meanwhile: almost the next rows, as measured, but not too few.
_AHEAD, _BEFORE = 1 << 10, 1 << 8

_sums, _scores = local(_TILE, np.int32), local(_TILE, np.float32)
_above = above(_TILE)


def can_search(Q):
    """Return whether one pass is faster than `scalar_scan` for Q queries."""
    own = is_here() and not multiplies_bytes()
    return Q <= _MOST_QUERIES or own or (_query_lanes.is_here() and (Q <= LANES or searches_many()))


def searches_many():
    """Return whether lanes are the fastest for any number of queries: AMX may be faster for many."""
    return _query_lanes.is_here() and fastest_of_many() == "lanes"


def multiplies_in_lanes(Q):
    """Return whether products of Q queries are made in lanes, where there are any."""
    return Q >= _LEAST_IN_LANES and _query_lanes.is_here()


def work_of(Q, D):
    """Return what `rows_of_a_block` counts of a row: bytes times queries, or their time as such in lanes."""
    return D * Q // _FASTER_IN_LANES if multiplies_in_lanes(Q) else D * Q


def multiplies_bytes():
    """Return whether this CPU has instructions by which `scalar_scan` is faster for more queries."""
    return has_features("avx512vnni") or has_features("avxvnni")


def scalar_best(codes, asked, queries, of_rows, k, taken, slack):
    """Take rows by `best_estimates`, and return the k best of them by the scores of `rescore`.

    codes: with flip, and first and step, for which a row is first + step * code. asked: queries and metric.
    slack: (Q,), the most by which scores are above estimates. -> arrays: scores (Q, k), rows (Q, k), the
    estimates of the last rows taken (Q,).
    """
    estimates, rows = best_estimates(codes[0], queries, of_rows, taken, codes[1])
    if of_rows[2] is not None:
        rows[estimates == -np.inf] = len(codes[0])  # there are no more
    scores = _exact(codes, asked, rows[:, :k])
    may_be_better = estimates + slack[:, None] >= scores.min(1, keepdims=True)
    enough = max(k, int(may_be_better.sum(1).max()))  # estimates descend
    if enough > k:
        scores = np.concatenate([scores, _exact(codes, asked, rows[:, k:enough])], 1)
    best = best_of([keys_of(scores, rows[:, :enough])], k)
    return *best, estimates[:, -1]


def _exact(codes, asked, ids):
    """Score rows ids (Q, R) by `rescore`; -inf where there is no such row."""
    (codes, flip, first, step), (floats, metric) = codes, asked
    (N, D), stored = (
        codes.shape,
        codes.contiguous().view(-1).view(torch.int8 if flip else torch.uint8).numpy(),
    )
    scores, wanted = np.full(ids.shape, -np.inf, np.float32), np.ascontiguousarray(ids).reshape(-1)
    flat, places = scores.reshape(-1), np.minimum(wanted, N - 1) * D
    constant = first.numpy(), step.numpy(), METRICS[metric]

    def some_pairs(start, stop):
        some = places[start:stop], wanted[start:stop], N, start, ids.shape[1]
        own = np.empty(D, np.float32)
        exactly(floats.numpy(), stored, *some, *constant, own, flat[start:stop])

    map_blocks(some_pairs, len(wanted), max(1, _VALUES // D), with_caller=True)
    return scores


def best_estimates(codes, queries, of_rows, k, flip):
    """Find the k best rows per query by the scores of `scalar_scan`, codes xor-ed with flip before.

    codes (N, D) uint8, queries: (Q, D) int8, scale and offset (Q,). of_rows: scale, bias and mask. -> arrays:
    scores (Q, k), rows (Q, k).
    """
    (N, D), Q, loop, width, room, of_queries = codes.shape, len(queries[0]), scan, WIDTH, room_for(k), None
    if multiplies_in_lanes(Q):
        loop, width, room = scalar_lanes.scan, STEP, scalar_lanes.room_for(k)
        of_queries = scalar_lanes.of_queries(*queries, flip)
    flat, edge = codes.view(-1).numpy(), edge_of(codes, width)
    asked, added, unit, offset = of_queries or _of_queries(*queries, flip)
    kinds = zip(of_rows, (np.float32, np.float32, np.bool_), strict=True)
    columns = [part(column, 0, N, kind) for column, kind in kinds]

    def some_rows(start, stop):
        keys = np.empty((Q, room), np.uint64)
        own = keys.reshape(-1), np.empty(Q, np.intp), np.empty(len(unit), np.float32)
        loop(flat, edge, D, start, stop, asked, added, unit, offset, *columns, k, *own)
        return keys

    return best_of(map_blocks(some_rows, N, rows_of_a_block(N, work_of(Q, D), k), with_caller=True), k)


def _of_queries(queries, unit, offset, flip):
    """Return of queries what `scan` takes."""
    asked, added = prepared(queries.numpy(), flip)
    return asked.reshape(-1), added, unit.contiguous().numpy(), part(offset, 0, len(unit), np.float32)


def edge_of(codes, width):
    """Return the last rows of codes (N, D), of which a read may pass the end, with room for that.

    width: the bytes of a read.
    """
    N, D = codes.shape
    tail = min(N, -(-(D + -D % width) // D))
    return np.concatenate([codes[N - tail :].reshape(-1).numpy(), np.zeros(-D % width, np.uint8)])


@jit(
    "void(uint8[::1], uint8[::1], intp, intp, intp, uint8[::1], int32[::1], float32[::1], float32[::1], "
    "float32[::1], float32[::1], boolean[::1], intp, uint64[::1], intp[::1], float32[::1])"
)
def scan(codes, edge, D, first, last, asked, added, unit, offset, scale, bias, mask, k, keys, counts, worst):
    """Scan rows first to last.

    edge: the last rows, with room for reads. asked, added: of queries, as `prepared` returns them. keys:
    (Q * room,) in all. counts, worst: (Q,).
    """
    Q, E, N = len(unit), len(asked) // (2 * len(unit)), len(codes) // D
    room, sums, scores, ahead = len(keys) // Q, _sums(), _scores(), max(_AHEAD, TOGETHER * D - _BEFORE)
    for q in range(Q):
        counts[q], worst[q] = 0, -np.inf
    edge_row = N - (len(edge) - (E - D)) // D
    for start in range(first, last, _TILE):
        rows = min(_TILE, last - start)
        for q in range(Q):
            whole = max(0, min(rows, edge_row - start)) // TOGETHER * TOGETHER
            query, into, row = address_of(asked) + 2 * E * q, address_of(sums), address_of(codes) + start * D
            for r in range(0, whole, TOGETHER):
                if q == 0:
                    products_and_fetches(into + 4 * r, row + r * D, D, query, E, added[q], ahead)
                else:
                    products_of_four(into + 4 * r, row + r * D, D, query, E, added[q])
            for r in range(whole, rows):
                place = row + r * D
                if start + r >= edge_row:
                    place = address_of(edge) + (start + r - edge_row) * D
                products_of_one(into + 4 * r, place, query, E, added[q])
            _score(sums, unit, offset, q, scale, bias, start, rows, scores)
            better = _above(scores, 0, worst[q])
            while better != 0:
                r = np.intp(trailing_zeros(better))
                better &= better - np.uint64(1)
                if scores[r] > worst[q] and (len(mask) == 0 or mask[start + r]):
                    keys[q * room + counts[q]] = key_of(scores[r], start + r)
                    counts[q] += 1
                    if counts[q] == room:
                        worst[q] = score_of(cut(keys, q * room, room, k))
                        counts[q] = k
    clear_unused(keys, counts, Q)


@jit(
    "void(int32[::1], float32[::1], float32[::1], intp, float32[::1], float32[::1], intp, intp, "
    "float32[::1])",
    inner=True,
)
def _score(sums, unit, offset, q, scale, bias, start, rows, scores):
    """Make of sums of rows from `start` their scores, and -inf after the last one."""
    one, added = unit[q], offset[q] if len(offset) else np.float32(0)
    for r in range(_TILE):
        scores[r] = one * np.float32(sums[r])
    if len(offset):
        for r in range(_TILE):
            scores[r] += added
    if len(scale):
        for r in range(rows):
            scores[r] *= scale[start + r]
    if len(bias):
        for r in range(rows):
            scores[r] += bias[start + r]
    for r in range(rows, _TILE):
        scores[r] = -np.inf
