"""A search of few queries by look-up tables in one compiled call: tables, scan, and order of the answer."""

import numpy as np

from gpuzip.loops import adc_topk as whole
from gpuzip.loops._arrays import flat
from gpuzip.loops._blocks import is_lone, scratch
from gpuzip.loops._bounds import room_for_bounds
from gpuzip.loops._jit import at_address, jit
from gpuzip.loops._least import MOST_IN_ORDER, answer
from gpuzip.loops._shares import can_share, in_shares
from gpuzip.loops._unit_rows import unit_rows
from gpuzip.loops._vectors256 import ROWS
from gpuzip.loops.lookup_tables import fill

_NO_FLOATS, _NO_MASK, _NO_BYTES = (np.empty(0, kind) for kind in (np.float32, np.bool_, np.uint8))
_fill, _round, _scan = at_address(fill), at_address(whole.round_tables), at_address(whole.scan_of(16))


class AdcFew:
    """A search of few queries by the tables of `lookup_tables`, of which all but the queries is at hand.

    codes (N, B) uint8, columns (S, M, K) float32 of 16 entries per nibble or 256 per byte, scale (N,) float32
    or None. turned: what `adc_topk.turned` returned for the codes, or None. normalize: divide queries by
    their norms. most: queries whose squares do not add up to less are not sound.
    """

    def __init__(self, codes, columns, is_l2, scale=None, turned=None, normalize=False, most=np.inf):
        (self._N, self._B), self._is_kept, self._K = codes.shape, turned is not None, columns.shape[2]
        self._codes, self._asked = codes, (normalize, most)
        self._shape = *columns.shape, self._B, self._is_kept
        self._places, self._turned = whole.places_of([codes]), None if turned is None else turned.numpy()
        self._tables = columns.numpy(), is_l2, _NO_FLOATS if scale is None else scale.numpy(), _NO_MASK

    def can_search(self, Q, k):
        """Return whether one call is faster: for few results, and where threads share queries, not rows."""
        fits = k <= MOST_IN_ORDER and (self._is_lone(Q, k) or can_share(Q))
        return fits and whole.can_search(self._K, self._B, Q, self._N)

    def at_address(self, queries, Q, k, are_distances, values, rows):
        """Find the k best rows of Q queries: see `ops.few.Few`."""
        if self._is_lone(Q, k):
            return self._search(queries, Q, k, are_distances, values, rows)
        width = 4 * self._shape[0] * self._shape[1]
        return in_shares(self._search, width, queries, Q, k, are_distances, values, rows)

    def _is_lone(self, Q, k):
        return is_lone(self._N, self._B * Q, k)

    def _search(self, queries, Q, k, are_distances, values, rows):
        tile, blocks, memory = scratch.kept((Q, k, *self._shape), _memory)
        of_codes = self._places, self._N, self._turned if self._is_kept else tile, blocks, self._is_kept
        return _search(
            *of_codes, queries, Q, *self._asked, *self._tables, k, are_distances, values, rows, *memory
        )


def _memory(Q, k, S, M, K, B, is_kept):
    size, blocks = whole.columns_of(Q, K, B, is_kept)
    tile = _NO_BYTES if is_kept else scratch.take("columns", (blocks + 1) * size, np.uint8)
    memory = (
        np.empty(Q * S * M, np.float32),
        scratch.take("tables", Q * M * K, np.float32),
        np.zeros(Q * whole.entries_of(K) * (B + B % 2), np.uint8),
        np.empty((Q, 3)),
        np.zeros(Q, np.float32),
        np.empty(Q * room_for_bounds(k), np.uint64),
        scratch.take("sums", 2 * ROWS, np.uint16),
        scratch.take("floats", 3 * ROWS, np.float32),
        np.empty(3 * Q, np.intp),
        np.empty(2 * Q, np.float32),
        *(loop.address for loop in (fill, whole.round_tables, whole.scan_of(K))),
    )
    return tile, blocks, memory


@jit(
    "boolean(int64[:, ::1], intp, uint8[::1], intp, boolean, intp, intp, boolean, float64, "
    "float32[:, :, ::1], boolean, float32[::1], boolean[::1], intp, boolean, intp, intp, "
    "float32[::1], float32[::1], uint8[::1], float64[:, ::1], float32[::1], uint64[::1], uint16[::1], "
    "float32[::1], intp[::1], float32[::1], intp, intp, intp)"
)
def _search(
    places,
    N,
    tile,
    blocks,
    is_kept,
    queries,
    Q,
    normalize,
    most,
    columns,
    is_l2,
    scale,
    mask,
    k,
    are_distances,
    values,
    rows,
    asked,
    tables,
    luts,
    lines,
    shift,
    keys,
    sums,
    floats,
    counts,
    worst,
    fill_at,
    round_at,
    scan_at,
):
    if not unit_rows(queries, Q, normalize, most, asked):
        return False
    S, M, K = columns.shape
    B, nothing = places[0, 2], scale[:0]
    _fill(fill_at, asked, flat(columns), S, M, K, is_l2, tables)
    _round(round_at, tables, M, K, min(127, 65535 // (2 * B)), luts, lines)
    _scan(
        scan_at,
        places,
        N,
        0,
        N,
        tables,
        luts,
        lines,
        blocks,
        is_kept,
        scale,
        mask,
        nothing,
        nothing,
        shift,
        k,
        keys,
        tile,
        sums,
        floats,
        counts,
        worst,
    )
    answer(keys, Q, k, are_distances, values, rows)
    return True
