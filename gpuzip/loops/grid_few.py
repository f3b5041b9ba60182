"""A search of few queries by RaBitQ codes of several bits in one compiled call: see `GridFew`."""

import numpy as np

from gpuzip.loops import grid_best
from gpuzip.loops import grid_topk as whole
from gpuzip.loops._arrays import floats
from gpuzip.loops._blocks import rows_of_a_block, scratch
from gpuzip.loops._columns import part, part_of_rows
from gpuzip.loops._grid_tiles512 import bytes_of_tile, codes_per_byte
from gpuzip.loops._jit import at_address, jit
from gpuzip.loops._least import MOST_SORTED, write
from gpuzip.loops._shares import can_share, in_shares
from gpuzip.loops.rabitq_query import METRICS, columns_of, fill_coefficients
from gpuzip.loops.sign_rows import places_of

_coefficients, _finish = at_address(fill_coefficients), at_address(grid_best.finish)
_round, _scan = at_address(whole.round_queries), at_address(whole.scan)


class GridFew:
    """A search of few queries by RaBitQ codes of several bits, of which all but the queries is at hand.

    planes: (N, W) and (N, (bits - 1) * W) uint8. center (D,), metric and reach: of the coefficients. scale
    (N,), mask (N,) or None, extra (N, E): of rows. tiles: what `tiles_of` returned for the planes, or
    None. facts: see `grid_best`. most: queries whose squares do not add up to less are not sound.
    """

    def __init__(self, planes, center, metric, reach, scale, mask, extra, facts, tiles, most=np.inf):
        (self._N, W), self._planes = planes[0].shape, planes
        places, E = places_of(planes), columns_of(metric, reach)
        bits = int(places[:, 2].sum())
        self._shape, per_byte = (len(center), W, bits, E), codes_per_byte(bits)
        columns = part_of_rows(extra.T, 0, E).reshape(-1)
        of_rows = part(scale, 0, self._N, np.float32), part(mask, 0, self._N, np.bool_), columns
        kept = np.empty(0, np.uint8) if tiles is None else tiles.numpy()
        self._of_codes = places, self._N, kept, per_byte, bytes_of_tile(W, per_byte), W, *of_rows, facts
        self._asked = center.contiguous().numpy(), METRICS[metric], float(reach), most

    def can_search(self, Q, k):
        """Return whether one call is faster: where threads share queries, not rows."""
        return k <= MOST_SORTED and (self._is_lone(Q, k) or can_share(Q))

    def at_address(self, queries, Q, k, are_distances, values, rows):
        """Find the k best rows of Q queries: see `ops.few.Few`. False also where estimates prove none."""
        if self._is_lone(Q, k):
            return self._search(queries, Q, k, are_distances, values, rows)
        return in_shares(self._search, 4 * self._shape[0], queries, Q, k, are_distances, values, rows)

    def _is_lone(self, Q, k):
        _, W, bits, _ = self._shape
        return rows_of_a_block(self._N, whole.work_of(bits, W, Q), k) >= self._N

    def _search(self, queries, Q, k, are_distances, values, rows):
        own = scratch.kept((Q, k, *self._shape), _memory)
        return _search(*self._of_codes, *self._asked, queries, Q, k, are_distances, values, rows, *own)


def _memory(Q, k, D, W, bits, E):
    return (
        np.empty(Q * D, np.float32),
        np.empty(Q * E, np.float32),
        np.empty(Q, np.float32),
        np.empty(Q * whole.columns_of(W), np.uint8),
        *np.empty((2, Q), np.float32),
        np.empty(Q),
        *grid_best.memory(W),
        np.empty(Q, np.bool_),
        np.empty(Q * whole.room_for(k), np.uint64),
        np.empty(Q, np.float32),
        np.empty(2 * Q, np.intp),
        np.empty(Q, np.float32),
        *whole.memory(W, bits, E),
        *(loop.address for loop in (fill_coefficients, whole.round_queries, whole.scan, grid_best.finish)),
    )


@jit(
    "boolean(int64[:, ::1], intp, uint8[::1], intp, intp, intp, float32[::1], boolean[::1], float32[::1], "
    "float64[::1], float32[::1], intp, float64, float64, intp, intp, intp, boolean, intp, intp, "
    "float32[::1], float32[::1], float32[::1], uint8[::1], float32[::1], float32[::1], float64[::1], "
    "float32[:, ::1], intp, boolean[::1], uint64[::1], float32[::1], intp[::1], float32[::1], uint8[::1], "
    "uint8[::1], int32[::1], float32[::1], intp, intp, intp, intp)"
)
def _search(
    places,
    N,
    tiles,
    per_byte,
    size,
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
    across,
    coef,
    shift,
    numbers,
    unit,
    base,
    slack,
    table,
    tables_at,
    unsure,
    keys,
    lost,
    counts,
    worst,
    tile,
    edge,
    sums,
    found,
    coefficients_at,
    round_at,
    scan_at,
    finish_at,
):
    D, bits, given = len(center), places[0, 2] + places[1, 2], floats(queries, Q * len(center))
    if not _coefficients(coefficients_at, given, center, metric, reach, most, across, coef, shift):
        return False
    of_query = across, D, bits, coef, shift, facts
    _round(round_at, *of_query, numbers, unit, base, slack)
    of_queries, of_rows = (W, numbers, unit, base), (scale, mask, extra, coef)
    own = keys, lost, counts, worst, tile, edge, sums, found
    _scan(scan_at, places, N, 0, N, tiles, per_byte, size, *of_queries, *of_rows, slack, k, *own)
    for q in range(Q):
        if counts[q] < k:  # rows are left out
            return False
    of_search = places, scale, extra, across, coef, shift, 0, Q, k
    _finish(finish_at, *of_search, keys, slack, lost, unsure, table, tables_at)
    for q in range(Q):
        if unsure[q]:
            return False
    write(keys, Q, k, are_distances, values, rows)
    return True
