"""The k best of the rows with the best estimates by RaBitQ codes of several bits, few of which are scored."""

import numpy as np
import torch

from gpuzip._core.parallel import map_blocks
from gpuzip.loops._arrays import flat
from gpuzip.loops._bounds import keep_above
from gpuzip.loops._jit import apart, at_address, jit
from gpuzip.loops._least import NONE, cut, in_order, key_of, read, score_of
from gpuzip.loops.grid_topk import best_estimates, limit_of
from gpuzip.loops.rabitq_query import fill_sign_tables
from gpuzip.loops.sign_rows import places_of, sums_of_two

_LOW = np.uint64(0xFFFFFFFF)
_FEW = 32  # queries
_tables = at_address(fill_sign_tables)


def grid_best(planes, tiles, asked, terms, k, facts):
    """Find the k best rows per query, and which queries other rows may be better for.

    planes: (N, W) and (N, (bits - 1) * W) uint8. tiles: what `tiles_of` returned for them, or None.
    asked: across (Q, D), coef (Q, E) and shift (Q, 1) float32. terms: scale (N,), mask (N,) or None, extra
    (N, E). facts: what `longest` returned; the share of the sizes of all products that roundings take; the
    largest size of scale times numbers of the grid, and of each extra column. -> scores (Q, k), rows (Q, k),
    (Q,) bool. Missing rows are -inf and row 0.
    """
    asked, (scale, _, extra) = [part.contiguous() for part in asked], terms
    keys, slack, lost = best_estimates(planes, tiles, asked, terms, facts, k)
    Q, W, unsure = len(slack), planes[0].shape[1], np.zeros(len(slack), np.bool_)
    of_rows = places_of(planes), scale.contiguous().numpy(), extra.T.contiguous().numpy().reshape(-1)
    of_queries, every = [part.numpy().reshape(-1) for part in asked], keys.reshape(-1)

    def some_queries(start, stop):
        some = start, stop, k, every, slack, lost, unsure
        finish(*of_rows, *of_queries, *some, *memory(W))

    map_blocks(some_queries, Q, _share_of(Q), with_caller=True)
    scores, rows = np.empty((Q, k), np.float32), np.empty((Q, k), np.int64)
    read(every, k, scores.reshape(-1), rows.reshape(-1))
    return *map(torch.from_numpy, (scores, rows)), torch.from_numpy(unsure)


def _share_of(Q):
    """Return how many queries a thread finishes: few are not worth another one."""
    return max(_FEW, -(-Q // torch.get_num_threads()))


def memory(W):
    """Return what `finish` needs for itself: tables of a query, and where the code that makes them is."""
    return np.empty((2 * W, 16), np.float32), fill_sign_tables.address


@jit(
    "float32(uint64[::1], intp, intp, int64[:, ::1], float32[:, ::1], float32[::1], float32[::1], "
    "float32[::1], intp, float32)",
    inner=True,
)
def _score(keys, first, last, places, table, scale, extra, coef, at, shift):
    """Make keys of estimates those of scores; return the least score, inf without keys or NaN if one is."""
    apart()
    W, E, least = len(table) // 2, len(extra) // len(scale), np.float32(np.inf)
    for i in range(first, last, 2):
        other = min(i + 1, last - 1)
        rows = np.intp(keys[i] & _LOW), np.intp(keys[other] & _LOW)
        sums = sums_of_two(places, table, W, rows[0], rows[1])
        for j in range(2):
            row, score = rows[j], sums[j] * scale[rows[j]]
            for e in range(E):
                score += extra[e * len(scale) + row] * coef[at + e]
            score += shift
            if not abs(score) < np.inf:
                return np.float32(np.nan)
            least = min(least, score)
            keys[other if j else i] = key_of(score, row)
    return least


@jit("void(uint64[::1], intp, intp)", inner=True)
def _clear(keys, first, count):
    for i in range(first, first + count):
        keys[i] = NONE


@jit("intp(uint64[::1], intp, intp)", inner=True)
def _compact(keys, first, room):
    """Move keys that are used to the front; return how many there are."""
    count = 0
    for i in range(first, first + room):
        if keys[i] != NONE:
            keys[first + count] = keys[i]
            count += 1
    return count


@jit(
    "boolean(uint64[::1], intp, intp, intp, float64, float64, float64, int64[:, ::1], float32[:, ::1], "
    "float32[::1], float32[::1], float32[::1], intp, float32)",
    inner=True,
)
def _best(keys, start, room, k, above, below, lost, places, table, scale, extra, coef, at, shift):
    """Put the k best rows first, in order; return whether no other row can be better.

    above: what to add to an estimate so that the score is not above it. below: slack. lost: the greatest
    estimate of other rows.
    """
    apart()
    of_rows, count = (places, table, scale, extra, coef, at, shift), _compact(keys, start, room)
    some = min(k, count)
    if count > k:
        limit = limit_of(score_of(cut(keys, start, count, k)), below)
        count = keep_above(keys, start + k, start + k, start + count, limit) - start
    least = _score(keys, start, start + some, *of_rows)
    limit = np.float64(least) - above - 2.0**-20 * (np.float64(abs(least)) + abs(above))
    end = keep_above(keys, start + some, start + some, start + count, np.float32(limit))
    others = _score(keys, start + some, end, *of_rows)
    worst = np.float64(np.inf)
    if some > 0:
        worst = np.float64(score_of(in_order(keys, start, end - start, some)))
    _clear(keys, start + some, k - some)
    return least > -np.inf and others > -np.inf and above < np.inf and worst > lost + above


@jit(
    "void(int64[:, ::1], float32[::1], float32[::1], float32[::1], float32[::1], float32[::1], intp, intp, "
    "intp, uint64[::1], float64[::1], float32[::1], boolean[::1], float32[:, ::1], intp)"
)
def finish(
    places,
    scale,
    extra,
    across,
    coef,
    shift,
    first,
    last,
    k,
    keys,
    slack,
    lost,
    unsure,
    table,
    tables_at,
):
    """Put the k best keys of queries first to last first, in order, and tell which are not proven."""
    Q, E, W = len(shift), len(coef) // len(shift), len(table) // 2
    D, room = len(across) // Q, len(keys) // Q
    for q in range(first, last):
        _tables(tables_at, across[q * D : (q + 1) * D], D, W, 1, flat(table))
        bounds = np.float64(shift[q]) + slack[q], slack[q], np.float64(lost[q])
        of_query = scale, extra, coef, q * E, shift[q]
        unsure[q] = not _best(keys, q * room, room, k, *bounds, places, table, *of_query)
