"""A search of few queries by RaBitQ codes in one compiled call: coefficients, tables, scan, order."""

import numpy as np

from gpuzip.loops import adc_topk as whole
from gpuzip.loops._arrays import floats
from gpuzip.loops._blocks import is_lone, scratch
from gpuzip.loops._bounds import room_for_bounds
from gpuzip.loops._columns import part, part_of_rows
from gpuzip.loops._jit import at_address, jit
from gpuzip.loops._least import MOST_SORTED, answer
from gpuzip.loops._shares import can_share, in_shares
from gpuzip.loops._vectors256 import ROWS
from gpuzip.loops.rabitq_query import METRICS, columns_of, fill_coefficients, fill_sign_tables

_ENTRIES = 16
_NO_BYTES = np.empty(0, np.uint8)
_coefficients, _tables = at_address(fill_coefficients), at_address(fill_sign_tables)
_round, _scan = at_address(whole.round_tables), at_address(whole.scan_of(_ENTRIES))


class RaBitQFew:
    """A search of few queries by RaBitQ codes, of which all but the queries is at hand.

    planes: (N, B_p) uint8 each, the first of W bytes. center (D,), metric and reach: of the coefficients.
    scale (N,), mask (N,) or None, extra (N, E): of rows. turned: what `adc_topk.turned` returned for the
    planes, or None. most: queries whose squares do not add up to less are not sound.
    """

    def __init__(self, planes, center, metric, reach, scale, mask, extra, turned=None, most=np.inf):
        self._N, self._B = len(scale), sum(plane.shape[1] for plane in planes)
        self._planes, self._is_kept = planes, turned is not None
        self._places, self._turned = whole.places_of(planes), None if turned is None else turned.numpy()
        E = columns_of(metric, reach)
        self._shape = len(center), self._B, E, self._is_kept
        self._asked = center.contiguous().numpy(), METRICS[metric], float(reach), most, planes[0].shape[1]
        columns = part_of_rows(extra.T, 0, E).reshape(-1)
        self._of_rows = part(scale, 0, self._N, np.float32), part(mask, 0, self._N, np.bool_), columns

    def can_search(self, Q, k):
        """Return whether one call is faster: where threads share queries, not rows."""
        fits = k <= MOST_SORTED and (self._is_lone(Q, k) or can_share(Q))
        return fits and whole.can_search(_ENTRIES, self._B, Q, self._N)

    def at_address(self, queries, Q, k, are_distances, values, rows):
        """Find the k best rows of Q queries: see `ops.few.Few`."""
        if self._is_lone(Q, k):
            return self._search(queries, Q, k, are_distances, values, rows)
        return in_shares(self._search, 4 * self._shape[0], queries, Q, k, are_distances, values, rows)

    def _is_lone(self, Q, k):
        return is_lone(self._N, self._B * Q, k)

    def _search(self, queries, Q, k, are_distances, values, rows):
        tile, blocks, memory = scratch.kept((Q, k, *self._shape), _memory)
        of_codes = self._places, self._N, self._turned if self._is_kept else tile, blocks, self._is_kept
        return _search(
            *of_codes, queries, Q, *self._asked, *self._of_rows, k, are_distances, values, rows, *memory
        )


def _memory(Q, k, D, B, E, is_kept):
    size, blocks = whole.columns_of(Q, _ENTRIES, B, is_kept)
    tile = _NO_BYTES if is_kept else scratch.take("columns", (blocks + 1) * size, np.uint8)
    memory = (
        np.empty(Q * D, np.float32),
        np.empty(Q * E, np.float32),
        np.empty(Q, np.float32),
        scratch.take("tables", Q * B * 2 * _ENTRIES, np.float32),
        np.zeros(Q * whole.entries_of(_ENTRIES) * (B + B % 2), np.uint8),
        np.empty((Q, 3)),
        np.empty(Q * room_for_bounds(k), np.uint64),
        scratch.take("sums", 2 * ROWS, np.uint16),
        scratch.take("floats", (3 + E) * ROWS, np.float32),
        np.empty(3 * Q, np.intp),
        np.empty(2 * Q, np.float32),
        *(loop.address for loop in (fill_coefficients, fill_sign_tables, whole.round_tables)),
        whole.scan_of(_ENTRIES).address,
    )
    return tile, blocks, memory


@jit(
    "boolean(int64[:, ::1], intp, uint8[::1], intp, boolean, intp, intp, float32[::1], intp, float64, "
    "float64, intp, float32[::1], boolean[::1], float32[::1], intp, boolean, intp, intp, "
    "float32[::1], float32[::1], float32[::1], float32[::1], uint8[::1], float64[:, ::1], uint64[::1], "
    "uint16[::1], float32[::1], intp[::1], float32[::1], intp, intp, intp, intp)"
)
def _search(
    places,
    N,
    tile,
    blocks,
    is_kept,
    queries,
    Q,
    center,
    metric,
    reach,
    most,
    W,
    scale,
    mask,
    extra,
    k,
    are_distances,
    values,
    rows,
    across,
    coef,
    shift,
    tables,
    luts,
    lines,
    keys,
    sums,
    of_rows,
    counts,
    worst,
    coefficients_at,
    tables_at,
    round_at,
    scan_at,
):
    B, given = len(tables) // (Q * 32), floats(queries, Q * len(center))
    of_queries = across, coef, shift
    if not _coefficients(coefficients_at, given, center, metric, reach, most, *of_queries):
        return False
    _tables(tables_at, across, len(center), W, B // W, tables)
    _round(round_at, tables, 2 * B, 16, min(127, 65535 // (2 * B)), luts, lines)
    lookups = tables, luts, lines, blocks, is_kept
    own = keys, tile, sums, of_rows, counts, worst
    _scan(scan_at, places, N, 0, N, *lookups, scale, mask, extra, coef, shift, k, *own)
    answer(keys, Q, k, are_distances, values, rows)
    return True
