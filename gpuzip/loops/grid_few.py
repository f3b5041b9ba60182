"""A search of few queries by RaBitQ codes of several bits in one compiled call: see `GridFew`."""

import numpy as np

from gpuzip.loops import grid_topk as whole
from gpuzip.loops._arrays import flat, floats
from gpuzip.loops._blocks import rows_of_a_block, scratch
from gpuzip.loops._bounds import keep_above
from gpuzip.loops._columns import part, part_of_rows
from gpuzip.loops._jit import apart, at_address, jit
from gpuzip.loops._least import MOST_SORTED, cut, in_order, key_of, room_for, score_of, write
from gpuzip.loops.rabitq_query import METRICS, columns_of, fill_coefficients, fill_sign_tables
from gpuzip.loops.sign_rows import places_of, sums_of_two

_coefficients, _tables = at_address(fill_coefficients), at_address(fill_sign_tables)
_round, _scan = at_address(whole.round_queries), at_address(whole.scan)
_LOW = np.uint64(0xFFFFFFFF)


class GridFew:
    """A search of few queries by RaBitQ codes of several bits, of which all but the queries is at hand.

    planes: (N, W) and (N, (bits - 1) * W) uint8. center (D,), metric and reach: of the coefficients. scale
    (N,), mask (N,) or None, extra (N, E): of rows. tiles: what `packed_tiles` returned for the planes, or
    None. facts: what `longest` returned; the size of the largest scale times grid value, and of each extra
    column; the share of the sizes of all products that roundings take. taken: of k and N, how many rows are
    scored exactly. most: queries whose squares do not add up to less are not sound.
    """

    def __init__(self, planes, center, metric, reach, scale, mask, extra, tiles, facts, taken, most=np.inf):
        (self._N, W), self._planes, self._taken = planes[0].shape, planes, taken
        places, E, longest, sizes, share = places_of(planes), columns_of(metric, reach), *facts
        bits = int(places[:, 2].sum())
        self._shape, self._bytes = (len(center), W, bits, E), bits * W
        columns = part_of_rows(extra.T, 0, E).reshape(-1)
        of_rows = part(scale, 0, self._N, np.float32), part(mask, 0, self._N, np.bool_), columns
        kept = np.empty(0, np.uint8) if tiles is None else tiles.numpy()
        self._of_codes = places, self._N, kept, W, *of_rows, np.array([longest, share, *sizes])
        self._asked = center.contiguous().numpy(), METRICS[metric], float(reach), most

    def can_search(self, Q, k):
        """Return whether one call is faster: for rows that threads do not share."""
        taken = self._taken(k, self._N)
        fits = taken < self._N and k <= MOST_SORTED
        return fits and rows_of_a_block(self._N, self._bytes * Q, k) >= self._N

    def at_address(self, queries, Q, k, are_distances, values, rows):
        """Find the k best rows of Q queries: see `ops.few.Few`. False also where estimates prove none."""
        own = scratch.kept((Q, self._taken(k, self._N), *self._shape), _memory)
        return _search(*self._of_codes, *self._asked, queries, Q, k, are_distances, values, rows, *own)


def _memory(Q, taken, D, W, bits, E):
    return (
        taken,
        np.empty(Q * D, np.float32),
        np.empty(Q * E, np.float32),
        np.empty(Q, np.float32),
        np.empty(Q * 8 * W, np.uint8),
        np.empty(Q, np.float32),
        np.empty(Q, np.int32),
        np.empty(Q),
        np.empty((2 * W, 16), np.float32),
        np.empty(Q * room_for(taken), np.uint64),
        np.empty(Q, np.intp),
        np.empty(Q, np.float32),
        *whole.memory(W, bits, E),
        *(loop.address for loop in (fill_coefficients, fill_sign_tables, whole.round_queries, whole.scan)),
    )


@jit("float64(float32[::1], float32[::1], intp, float32, float64, float64[::1])", inner=True)
def _slack(across, coef, first, shift, rest, facts):
    """Return by how much scores may be above estimates, with all roundings of float32."""
    apart()
    size = 0.0
    for d in range(len(across)):
        size += np.float64(abs(across[d]))
    size *= facts[2]
    for e in range(len(facts) - 3):
        size += np.float64(abs(coef[first + e])) * facts[3 + e]
    slack = rest * facts[0] + size * facts[1] + 2.0**-21 * np.float64(abs(shift))
    return slack if slack < np.inf else np.inf


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


@jit(
    "boolean(uint64[::1], intp, intp, intp, intp, float64, int64[:, ::1], float32[:, ::1], float32[::1], "
    "float32[::1], float32[::1], intp, float32)",
    inner=True,
)
def _best(keys, start, room, taken, k, above, places, table, scale, extra, coef, at, shift):
    """Put the k best of the rows taken by estimates first, in order; return whether no other can be better.

    above: what to add to an estimate so that the score is not above it.
    """
    apart()
    of_rows = places, table, scale, extra, coef, at, shift
    last = np.float64(score_of(cut(keys, start, room, taken)))
    cut(keys, start, taken, k)
    least = _score(keys, start, start + k, *of_rows)
    limit = np.float64(least) - above - 2.0**-20 * (np.float64(abs(least)) + abs(above))
    end = keep_above(keys, start + k, start + k, start + taken, np.float32(limit))
    others = _score(keys, start + k, end, *of_rows)
    if not (least > -np.inf and others > -np.inf):
        return False
    return np.float64(score_of(in_order(keys, start, end - start, k))) > last + above


@jit(
    "boolean(int64[:, ::1], intp, uint8[::1], intp, float32[::1], boolean[::1], float32[::1], float64[::1], "
    "float32[::1], intp, float64, float64, intp, intp, intp, boolean, intp, intp, "
    "intp, float32[::1], float32[::1], float32[::1], uint8[::1], float32[::1], int32[::1], float64[::1], "
    "float32[:, ::1], uint64[::1], intp[::1], float32[::1], uint8[::1], uint8[::1], int32[::1], "
    "float32[::1], intp, intp, intp, intp)"
)
def _search(
    places,
    N,
    tiles,
    W,
    scale,
    mask,
    extra,
    facts,
    center,
    metric,
    reach,
    most,
    queries,
    Q,
    k,
    are_distances,
    values,
    rows,
    taken,
    across,
    coef,
    shift,
    numbers,
    unit,
    offset,
    rest,
    table,
    keys,
    counts,
    worst,
    tile,
    edge,
    sums,
    found,
    coefficients_at,
    tables_at,
    round_at,
    scan_at,
):
    D, E, room = len(center), len(coef) // Q, len(keys) // Q
    bits, given = places[0, 2] + places[1, 2], floats(queries, Q * D)
    if not _coefficients(coefficients_at, given, center, metric, reach, most, across, coef, shift):
        return False
    _round(round_at, across, D, bits, numbers, unit, offset, rest)
    of_queries, of_rows = (W, numbers, unit, offset), (scale, mask, extra, coef)
    own = keys, counts, worst, tile, edge, sums, found
    _scan(scan_at, places, N, 0, N, tiles, *of_queries, *of_rows, taken, *own)
    for q in range(Q):
        if counts[q] < taken:  # rows are left out
            return False
        asked = across[q * D : (q + 1) * D]
        above = np.float64(shift[q]) + _slack(asked, coef, q * E, shift[q], rest[q], facts)
        _tables(tables_at, asked, D, W, 1, flat(table))
        of_query = scale, extra, coef, q * E, shift[q]
        if not _best(keys, q * room, room, taken, k, above, places, table, *of_query):
            return False
    write(keys, Q, k, are_distances, values, rows)
    return True
